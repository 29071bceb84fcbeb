"""Whether an autoencoder gives what it declares, and the same again from its file. One of a user's own may not: PyTorch
broadcasts many a wrong shape, and of a module it keeps parameters and buffers alone.
"""

import numpy as np
import torch

from worldmodel_v.autoencoders.artifact import from_bytes, save
from worldmodel_v.autoencoders.base import Autoencoder, Latents
from worldmodel_v.errors import ModelFailed, one_line, retold
from worldmodel_v.schema import Column

SAME = 1e-3
"""Of the largest real number of a column. On CUDA, the last digits may differ from call to call."""


def require_round_trip(model: Autoencoder) -> None:
    """Raise ModelFailed unless two frames become the declared columns, and frames of their shape again."""
    x = torch.rand(2, model.config.channels, *model.config.frame_shape, generator=torch.Generator().manual_seed(0))
    condition = model.typical_condition(2)
    given = () if condition is None else (condition,)
    model.eval()
    about = f"the autoencoder fails on frames of the shape {tuple(x.shape)}"
    with torch.no_grad(), retold(lambda error: ModelFailed(f"{about}: {one_line(error)}")):
        latents = model.encode(x, *given)
        for column in model.latents("float32")[0]:
            require_rows(column, latents, len(x))
        frames = model.decode(latents, *given)
    if frames.shape != x.shape:
        raise ModelFailed(
            f"the autoencoder's decode gives the shape {tuple(frames.shape)} for frames of the shape {tuple(x.shape)}",
            remedy="let it give (B, C, H, W)",
        )
    require_same_from_file(model, x, condition)
    _require_frame_alone(model, x, given)


@torch.no_grad()
def require_same_from_file(model: Autoencoder, x_BCHW: torch.Tensor, condition_BK: torch.Tensor | None) -> None:
    """Raise ModelFailed unless what is loaded from the autoencoder's file makes the same of frames as it does itself."""
    given = () if condition_BK is None else (condition_BK,)
    loaded = from_bytes(save(model), "the autoencoder's file", model.kind).model.to(x_BCHW.device)
    latents = model.eval().encode(x_BCHW, *given)
    own = {**latents, "frames": model.decode(latents, *given)}
    others = {**loaded.encode(x_BCHW, *given), "frames": loaded.decode(latents, *given)}
    if name := _differing(own, others):
        raise ModelFailed(
            f"the autoencoder gives other {name} once it is saved and loaded",
            remedy="keep all that it needs in parameters and buffers (register_buffer), as float32, and draw nothing in "
            "encode and decode",
        )


@torch.no_grad()
def _require_frame_alone(model: Autoencoder, x_BCHW: torch.Tensor, given: tuple[torch.Tensor, ...]) -> None:
    """Raise ModelFailed if what it makes of a frame depends on the other frames of the batch."""
    first = []
    for x in (x_BCHW, torch.cat([x_BCHW[:1], 1 - x_BCHW[1:]])):
        latents = model.encode(x, *given)
        made = {column.name: latents[column.name] for column in model.latents("float32")[0]}
        made["frames"] = model.decode(latents, *given)
        first.append({name: rows[:1] for name, rows in made.items()})
    if name := _differing(*first):
        raise ModelFailed(
            f"the autoencoder gives other {name} for a frame if the other frames of its batch change",
            remedy="let encode and decode treat each frame alone; a BatchNorm needs its running statistics",
        )


def _differing(some: Latents, others: Latents) -> str | None:
    """The first of some tensors whose values are others'; None if none are."""
    for name, rows in some.items():
        values, other = rows.double(), others[name].double()
        tolerance = SAME * values.abs().max() if rows.is_floating_point() else 0
        if not ((values - other).abs() <= tolerance).all():  # NaN is not the same as anything
            return name
    return None


def require_rows(column: Column, latents: Latents, num_rows: int) -> None:
    """Raise ModelFailed unless the autoencoder's output matches its declaration: column, shape, range of whole numbers."""
    rows, expected = latents.get(column.name), (num_rows, *column.row_shape)
    if rows is None or tuple(rows.shape) != expected:
        found = f"none, but {', '.join(latents)}" if rows is None else f"the shape {tuple(rows.shape)}"
        raise ModelFailed(f"the autoencoder declares a column {column.name} of shape {expected}; its encode gives {found}")
    dtype = np.dtype(column.dtype)
    if rows.is_floating_point() != (dtype.kind == "f"):
        raise ModelFailed(f"the autoencoder declares {column.name} as {dtype}; its encode gives {rows.dtype}")
    if dtype.kind in "iu":
        low, high, range_ = int(rows.min()), int(rows.max()), np.iinfo(dtype)
        smallest, largest = (range_.min, range_.max) if column.num_values is None else (0, column.num_values - 1)
        if low < smallest or high > largest:
            declared = f"the autoencoder declares {column.name} as {dtype} from {smallest} to {largest}"
            raise ModelFailed(f"{declared}; its encode gives {low} to {high}")
