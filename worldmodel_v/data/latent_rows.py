"""Rows of latent shards in memory, and windows gathered from them.

Legend: N rows, B windows, L window length in transitions, Z latent, A action.

A row takes 8 Z + 4 A + 6 bytes (float16 latents: 4 Z + 4 A + 6; a discrete action: 8 in place of 4 A): mu and σ in the
stored dtype, action, reward, terminated, truncated. σ = exp(logvar / 2) is computed once, when the row is read.

More than half of a batch's time goes into its normal numbers, 33 · Z for a window of 32. So PyTorch's generator draws them (290
million a second on one core of an AMD EPYC, where NumPy's fastest gives 133; 2026-11-20), block by block in memory that
stays in the cache, and mu and σ are gathered into it slice by slice: half the time of an index of rows. Rejected: a pool of
normals that is read from random places, which is faster and gives many latents the same noise; numba, for a fused loop.
"""

import math

import numpy as np
import torch

from worldmodel_v.data.windows import Columns, Places
from worldmodel_v.errors import ShardDamaged
from worldmodel_v.storage import Shard

Window = dict[str, torch.Tensor]

COLUMNS = ("mu", "std", "action", "reward", "terminated", "truncated")
BLOCK_ROWS = 2048
"""Rows that are drawn at once: 256 kB at Z = 32, which fits the second-level cache beside their mu and σ."""


def bytes_of_row(columns: Columns) -> int:
    """Bytes that a row takes in memory."""
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in _held(columns).values())


class LatentRows:
    """Room for N rows, to be filled, and windows of up to L transitions gathered from it.

    A window is copied as L + 1 consecutive rows even where its episode ends before, and then blanked from there on; so
    behind the N rows there are L more, which no window shows.
    """

    def __init__(self, num_rows: int, length: int, columns: Columns) -> None:
        """`columns` is what the shards hold."""
        rows = num_rows + length
        held = _held(columns).items()
        self._columns = {name: torch.from_numpy(np.empty((rows, *shape), dtype)) for name, (dtype, shape) in held}

    def fill(self, first: int, shard: Shard, start: int, stop: int, keep: np.ndarray | None = None) -> None:
        """Put rows start to stop of a shard (those of them that the mask `keep` says) from row `first` on.

        Raises ShardDamaged if a checksum fails, or if NaN or infinity stands where data should be.
        """
        final = np.zeros(shard.num_rows, np.bool_)
        final[np.cumsum(shard.ep_len) - 1] = True
        for name, column in self._columns.items():
            rows = shard.rows("logvar" if name == "std" else name, start, stop)
            _refuse_nan(shard, "logvar" if name == "std" else name, rows, final[start:stop])
            if name == "std":
                rows = np.exp(0.5 * rows.astype(np.float32))
            if keep is not None:
                rows = rows[keep]
            column.numpy()[first : first + len(rows)] = rows

    def windows(self, first: np.ndarray, places: Places, generator: torch.Generator | None) -> Window:
        """The windows at `places`, whose rows begin at `first` (B,) here, as `LatentSequences` describes them.

        z is drawn from the generator; without one it is mu.
        """
        starts = torch.from_numpy(first)
        mask = torch.arange(places.length) < torch.from_numpy(places.num_steps)[:, None]
        latents = self._latents(starts, places.length + 1, generator)
        window = {"z": latents[:, :-1], "next_z": latents[:, 1:]}
        window |= {name: _slices(self._columns[name], starts, places.length) for name in COLUMNS[2:]}
        if not mask.all():
            window = {name: _blank(column, mask) for name, column in window.items()}
        is_first = torch.zeros_like(mask)
        is_first[:, 0] = torch.from_numpy(places.t == 0)
        return window | {"mask": mask, "is_first": is_first}

    def _latents(self, starts: torch.Tensor, num_rows: int, generator: torch.Generator | None) -> torch.Tensor:
        """float32 (B, num_rows, Z): mu, or with a generator a draw."""
        mu, std = self._columns["mu"], self._columns["std"]
        if generator is None:
            return _slices(mu, starts, num_rows).float()
        latents = torch.empty(len(starts), num_rows, mu.shape[1])
        size = max(1, BLOCK_ROWS // num_rows)
        for some, out in zip(starts.split(size), latents.split(size), strict=True):
            out.normal_(generator=generator).mul_(_slices(std, some, num_rows)).add_(_slices(mu, some, num_rows))
        return latents


def _slices(column: torch.Tensor, starts: torch.Tensor, num_rows: int) -> torch.Tensor:
    """(B, num_rows, …): so many consecutive rows from each start on, copied slice by slice."""
    width = math.prod(column.shape[1:])
    overlapping = column.as_strided((len(column) - num_rows + 1, num_rows * width), (width, 1))
    return overlapping.index_select(0, starts).view(len(starts), num_rows, *column.shape[1:])


def _held(columns: Columns) -> Columns:
    """What of the stored columns is held in memory, σ for logvar."""
    return {name: columns["logvar" if name == "std" else name] for name in COLUMNS}


def _blank(column: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """Zeros where the mask is False."""
    return column.masked_fill(~mask_BL.view(*mask_BL.shape, *(1,) * (column.ndim - 2)), 0)


def _refuse_nan(shard: Shard, name: str, rows: np.ndarray, final: np.ndarray) -> None:
    """Raise ShardDamaged if NaN or infinity stands anywhere but in an episode's last action and reward."""
    finite = np.isfinite(rows)
    if name in ("action", "reward"):
        finite[final] = True
    if not finite.all():
        raise ShardDamaged(f"{shard.source}: {name} is NaN or infinite where data should be; restore it, or encode again")
