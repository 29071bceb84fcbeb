"""A dataset as a notebook shows it: what it is in a few lines, and for rollouts a few frames as one picture.

It reads at most `FRAMES` rows, whatever the dataset's size. All texts are escaped, because a dataset may be a stranger's.
"""

import base64
import html
import io
from typing import TYPE_CHECKING

from worldmodel_v.errors import WorldModelError
from worldmodel_v.spec import RolloutSpec, Spec
from worldmodel_v.untrusted import printable, shortened

if TYPE_CHECKING:
    from worldmodel_v.storage.dataset import Dataset

FRAMES = 8
MOST_PIXELS = 96
"""The largest height and width of a frame in the picture."""


def as_html(dataset: "Dataset[Spec]") -> str:
    """A table of facts, above a picture of frames of evenly spaced shards; where these cannot be read, the reason."""
    spec = dataset.spec
    facts = {
        "path": str(dataset.path),
        "holds": f"{spec.format.rpartition('/')[2]}: {dataset.num_episodes:,} episodes, {dataset.num_rows:,} rows",
        "columns": ", ".join(f"{column.name} {column.dtype}{list(column.row_shape)}" for column in spec.schema.columns),
    }
    if isinstance(spec, RolloutSpec):
        facts |= {"environment": spec.env, "policy": spec.policy}
    rows = "".join(f"<tr><th>{name}</th><td>{_escaped(text)}</td></tr>" for name, text in facts.items())
    table = f"<table>{rows}</table>"
    if not isinstance(spec, RolloutSpec) or not dataset.entries:
        return table
    try:
        encoded = base64.b64encode(_png(dataset)).decode()
    except WorldModelError as error:
        return f"{table}<p>{_escaped(str(error))}</p>"
    return f'{table}<img alt="frames" src="data:image/png;base64,{encoded}">'


def _png(dataset: "Dataset[Spec]") -> bytes:
    from PIL import Image

    (column,) = dataset.schema.by_role("observation")
    number = min(FRAMES, len(dataset.entries))
    entries = [dataset.entries[place * len(dataset.entries) // number] for place in range(number)]
    frames = []
    for place, (entry, shard) in enumerate(dataset.shards(entries)):
        row = (2 * place + 1) * entry.num_rows // (2 * number)
        frame = Image.fromarray(shard.rows(column.name, row, row + 1)[0])
        frame.thumbnail((MOST_PIXELS, MOST_PIXELS))
        frames.append(frame)
    width, height = frames[0].size
    picture = Image.new("RGB", ((width + 2) * number - 2, height), "white")
    for place, frame in enumerate(frames):
        picture.paste(frame, (place * (width + 2), 0))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _escaped(text: str) -> str:
    return html.escape(printable(shortened(text)))
