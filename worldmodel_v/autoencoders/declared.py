"""Whether an autoencoder gives what it declares. One of a user's own may not, and PyTorch broadcasts many a wrong shape."""

import numpy as np
import torch

from worldmodel_v.autoencoders.base import Autoencoder, Latents
from worldmodel_v.errors import ModelFailed
from worldmodel_v.schema import Column


def require_round_trip(model: Autoencoder) -> None:
    """Raise ModelFailed unless two black frames become the declared columns, and frames of their shape again."""
    x = torch.zeros(2, model.config.channels, *model.config.frame_shape)
    condition = model.typical_condition(2)
    given = () if condition is None else (condition,)
    model.eval()
    with torch.no_grad():
        latents = model.encode(x, *given)
        for column in model.latents("float32")[0]:
            require_rows(column, latents, len(x))
        frames = model.decode(latents, *given)
    if frames.shape != x.shape:
        raise ModelFailed(
            f"the autoencoder's decode gives the shape {tuple(frames.shape)} for frames of the shape {tuple(x.shape)}",
            remedy="let it give (B, C, H, W)",
        )


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
