"""What a notebook shows of an object: a table of facts, and a few frames as one picture.

All texts are escaped, because a dataset or a file of weights may be a stranger's.
"""

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from worldmodel_v.errors import WorldModelError
from worldmodel_v.spec import RolloutSpec, Spec
from worldmodel_v.untrusted import printable, shortened

if TYPE_CHECKING:
    from worldmodel_v.storage.dataset import Dataset

FRAMES = 8
"""Frames in a picture: of a dataset no more rows are read, whatever its size."""

MOST_PIXELS = 96
"""The largest height and width of a frame in the picture."""


def as_html(facts: Mapping[str, str], frames: Callable[[], Iterable[np.ndarray]] | None = None) -> str:
    """A table of facts, above a picture of `frames`, uint8 (H, W, 3); where these cannot be had, the reason."""
    rows = "".join(f"<tr><th>{name}</th><td>{_escaped(text)}</td></tr>" for name, text in facts.items())
    table = f"<table>{rows}</table>"
    if frames is None:
        return table
    try:
        encoded = base64.b64encode(_png(frames())).decode()
    except WorldModelError as error:
        return f"{table}<p>{_escaped(str(error))}</p>"
    return f'{table}<img alt="frames" src="data:image/png;base64,{encoded}">'


def dataset_html(dataset: "Dataset[Spec]") -> str:
    """What a dataset is; of rollouts also frames of evenly spaced shards."""
    spec = dataset.spec
    facts = {
        "path": str(dataset.path),
        "holds": f"{spec.format.rpartition('/')[2]}: {dataset.num_episodes:,} episodes, {dataset.num_rows:,} rows",
        "columns": ", ".join(f"{column.name} {column.dtype}{list(column.row_shape)}" for column in spec.schema.columns),
    }
    if not isinstance(spec, RolloutSpec):
        return as_html(facts)
    facts |= {"environment": spec.env, "policy": spec.policy}
    return as_html(facts, (lambda: _frames(dataset)) if dataset.entries else None)


def frames_picture(dataset: "Dataset[Spec]") -> bytes:
    """Frames of evenly spaced shards of rollouts side by side, as PNG; raises ShardDamaged."""
    return _png(_frames(dataset))


def _frames(dataset: "Dataset[Spec]") -> Iterable[np.ndarray]:
    (column,) = dataset.schema.by_role("observation")
    number = min(FRAMES, len(dataset.entries))
    entries = [dataset.entries[place * len(dataset.entries) // number] for place in range(number)]
    for place, (entry, shard) in enumerate(dataset.shards(entries)):
        row = (2 * place + 1) * entry.num_rows // (2 * number)
        yield shard.rows(column.name, row, row + 1)[0]


def _png(frames: Iterable[np.ndarray]) -> bytes:
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    for image in images:
        image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    width, height = images[0].size
    picture = Image.new("RGB", ((width + 2) * len(images) - 2, height), "white")
    for place, image in enumerate(images):
        picture.paste(image, (place * (width + 2), 0))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _escaped(text: str) -> str:
    return html.escape(printable(shortened(text)))
