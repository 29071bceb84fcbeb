"""What a notebook shows of an object: a table of facts, and a few frames, or latents, as one picture.

All texts are escaped, because a dataset or a file of weights may be a stranger's.
"""

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from worldmodel_v.errors import WorldModelError
from worldmodel_v.spec import RolloutSpec, Spec
from worldmodel_v.untrusted import printable, shortened
from worldmodel_v.words import counted

if TYPE_CHECKING:
    from worldmodel_v.storage.dataset import Dataset

FRAMES = 8
"""Frames in a picture: of a dataset no more rows are read, whatever its size."""

MOST_PIXELS = 96
"""The largest height and width of a frame in the picture."""

LATENT_ROWS, LATENT_SCALE = 200, 4
"""So many rows of latents are in a picture, and each number is a square of so many pixels."""


def as_html(facts: Mapping[str, str], picture: Callable[[], bytes] | None = None) -> str:
    """A table of facts, above a picture as PNG; where it cannot be had, the reason."""
    rows = "".join(f"<tr><th>{name}</th><td>{_escaped(text)}</td></tr>" for name, text in facts.items())
    table = f"<table>{rows}</table>"
    if picture is None:
        return table
    try:
        encoded = base64.b64encode(picture()).decode()
    except WorldModelError as error:
        return f"{table}<p>{_escaped(str(error))}</p>"
    return f'{table}<img alt="preview" src="data:image/png;base64,{encoded}">'


def dataset_html(dataset: "Dataset[Spec]") -> str:
    """What a dataset is, and its picture."""
    spec = dataset.spec
    holds = f"{counted(dataset.num_episodes, 'episode', ',')}, {dataset.num_rows:,} rows"
    facts = {
        "path": dataset.name,
        "holds": f"{spec.format.rpartition('/')[2]}: {holds}",
        "columns": ", ".join(f"{column.name} {column.dtype}{list(column.row_shape)}" for column in spec.schema.columns),
    }
    if isinstance(spec, RolloutSpec):
        facts |= {"environment": spec.env, "policy": spec.policy}
    return as_html(facts, (lambda: dataset_picture(dataset)) if dataset.entries else None)


def dataset_picture(dataset: "Dataset[Spec]") -> bytes:
    """A PNG: frames of evenly spaced shards side by side, or the latents of the first episode, time to the right.

    The dataset must have episodes. Raises ShardDamaged.
    """
    return frames_picture(_frames(dataset)) if dataset.schema.frames else _latents_picture(dataset)


def frames_picture(frames: Iterable[np.ndarray]) -> bytes:
    """Frames, uint8 (H, W, 3), side by side as PNG."""
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    for image in images:
        image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    width, height = images[0].size
    picture = Image.new("RGB", ((width + 2) * len(images) - 2, height), "white")
    for place, image in enumerate(images):
        picture.paste(image, (place * (width + 2), 0))
    return _png(picture)


def _frames(dataset: "Dataset[Spec]") -> Iterable[np.ndarray]:
    (column,) = dataset.schema.by_role("observation")
    number = min(FRAMES, len(dataset.entries))
    entries = [dataset.entries[place * len(dataset.entries) // number] for place in range(number)]
    for place, (entry, shard) in enumerate(dataset.shards(entries)):
        row = (2 * place + 1) * entry.num_rows // (2 * number)
        yield shard.rows(column.name, row, row + 1)[0]


def _latents_picture(dataset: "Dataset[Spec]") -> bytes:
    """Each number of the first column of latents is a line of grey squares, the brighter the larger."""
    from PIL import Image

    column = dataset.schema.by_role("latent")[0]
    with dataset.open_shard(dataset.entries[0]) as shard:
        rows = shard.rows(column.name, 0, min(int(shard.ep_len[0]), LATENT_ROWS))
    values_ZT = rows.reshape(len(rows), -1).T.astype(np.float64)
    low, high = values_ZT.min(), values_ZT.max()
    grey = (255 * (values_ZT - low) / max(high - low, 1e-9)).astype(np.uint8)
    return _png(Image.fromarray(grey.repeat(LATENT_SCALE, 0).repeat(LATENT_SCALE, 1)))


def _png(picture: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _escaped(text: str) -> str:
    return html.escape(printable(shortened(text)))
