"""Rows of latent shards in memory, and windows gathered from them.

Legend: N rows, B windows, L window length in transitions, Z latent, A action.

Columns are found by their role. A row of Gaussian latents takes 8 Z + 4 A + 6 bytes (float16: 4 Z + 4 A + 6; a discrete
action: 8 in place of 4 A): mu and σ in the stored dtype, action, reward, terminated, truncated. Further columns add to this.
σ = exp(logvar / 2) is computed once, when the row is read.

Drawing normal numbers takes more than half of a batch's time: 33 · Z of them for a window of 32. So PyTorch's generator draws
them: 290 million a second on one core of an AMD EPYC, against 133 million by NumPy's fastest (2026-11-20). It draws block by
block, in memory that stays in the cache. mu and σ are gathered into a block slice by slice, in half the time of an index of
rows. Rejected: a pool of normals that is read from random places, which is faster but gives many latents the same noise;
numba, for a fused loop.
"""

import math
import os

import numpy as np
import torch

from worldmodel_v.data.windows import Places, WindowTable
from worldmodel_v.errors import DatasetNotUsable, ShardDamaged
from worldmodel_v.schema import Column, Draw, Schema
from worldmodel_v.storage import Shard

Window = dict[str, torch.Tensor]

BLOCK_ROWS = 2048
"""Rows that are drawn at once: 256 kB at Z = 32, which fits the second-level cache beside their mu and σ."""


def bytes_of_row(schema: Schema) -> int:
    """Bytes that a row takes in memory."""
    return sum(_in_memory(column).itemsize * math.prod(column.row_shape) for column in _held(schema))


class LatentRows:
    """Room for N rows, to be filled, and windows of up to L transitions gathered from it.

    A window is copied as L + 1 consecutive rows, even if its episode ends earlier; the rows from there on are then set to
    zero. So L spare rows follow the N rows, and no window shows them.
    """

    def __init__(self, num_rows: int, table: WindowTable) -> None:
        """`table` has the windows that are wanted. Raises DatasetNotUsable if they take more than the machine's memory."""
        schema, length = table.schema, table.length
        room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // bytes_of_row(schema)
        if num_rows + length > room:
            raise DatasetNotUsable(
                f"{num_rows:,} rows, and windows of {length:,} transitions",
                where=table.dataset.path,
                expected=f"at most {room:,} rows and transitions together, which fill the machine's memory",
                remedy=f"ask for windows of at most {table.num_steps.max()}, the longest episode; if the rows alone are too "
                "many, read them with LatentStream",
            )
        held = _held(schema)
        shapes = {column.name: (num_rows + length, *column.row_shape) for column in held}
        self._columns = {column.name: torch.from_numpy(np.empty(shapes[column.name], _in_memory(column))) for column in held}
        self._schema = schema
        drawn = {name for draw in schema.draws for name in draw.columns}
        self._stored = [column.name for column in held if column.role == "latent" and column.name not in drawn]
        self._beside = [column.name for column in held if column.role != "latent"]

    def fill(self, first: int, shard: Shard, start: int, stop: int, keep: np.ndarray | None = None) -> None:
        """Put rows start to stop of a shard (with `keep`, those where this mask is True) at row `first` and after it.

        Raises ShardDamaged if a checksum fails, or if NaN or infinity stands where data should be.
        """
        final = np.zeros(shard.num_rows, np.bool_)
        final[np.cumsum(shard.ep_len) - 1] = True
        shard.ahead(self._columns, start, stop)
        logvars = {draw.columns[1] for draw in self._schema.draws}
        for name, held in self._columns.items():
            rows = shard.rows(name, start, stop)
            _refuse_nan(shard, self._schema[name], rows, final[start:stop])
            if name in logvars:  # σ is held in its place
                rows = np.exp(0.5 * rows.astype(np.float32))
            if keep is not None:
                rows = rows[keep]
            held.numpy()[first : first + len(rows)] = rows

    def windows(self, first: np.ndarray, places: Places, generator: torch.Generator | None) -> Window:
        """The windows at `places`, as `LatentSequences` describes them; their rows begin at `first` (B,) in this object.

        The generator draws latents that have a distribution; without a generator they are the distribution's mean.
        """
        starts = torch.from_numpy(first)
        mask = torch.arange(places.length, device="cpu") < torch.from_numpy(places.num_steps)[:, None]
        latents = {draw.name: self._drawn(draw, starts, places.length + 1, generator) for draw in self._schema.draws}
        latents |= {name: _widened(_slices(self._columns[name], starts, places.length + 1)) for name in self._stored}
        window = {name: rows[:, :-1] for name, rows in latents.items()}
        window |= {f"next_{name}": rows[:, 1:] for name, rows in latents.items()}
        window |= {name: _slices(self._columns[name], starts, places.length) for name in self._beside}
        if not mask.all():
            window = {name: _blank(column, mask) for name, column in window.items()}
        is_first = torch.zeros_like(mask)
        is_first[:, 0] = torch.from_numpy(places.t == 0)
        return window | {"mask": mask, "is_first": is_first}

    def _drawn(self, draw: Draw, starts: torch.Tensor, num_rows: int, generator: torch.Generator | None) -> torch.Tensor:
        """float32 (B, num_rows, Z): the mean, or with a generator a draw from N(mean, exp(logvar))."""
        mean, std = (self._columns[name] for name in draw.columns)
        if generator is None:
            return _slices(mean, starts, num_rows).float()
        latents = mean.new_empty((len(starts), num_rows, *mean.shape[1:]), dtype=torch.float32)
        size = max(1, BLOCK_ROWS // num_rows)
        for some, out in zip(starts.split(size), latents.split(size), strict=True):
            out.normal_(generator=generator).mul_(_slices(std, some, num_rows)).add_(_slices(mean, some, num_rows))
        return latents


def _held(schema: Schema) -> tuple[Column, ...]:
    """The columns that are held in memory, σ in the place of a logvar; not a reward that nobody recorded, which is NaN."""
    held = schema.by_role("latent", "action", "reward", "terminated", "truncated", "extra")
    return tuple(column for column in held if not column.absent)


def _in_memory(column: Column) -> np.dtype:
    """The dtype that a column has in memory: PyTorch computes with few unsigned types."""
    return np.dtype({"uint16": "int32", "uint32": "int64"}.get(column.dtype, column.dtype))


def _widened(rows: torch.Tensor) -> torch.Tensor:
    """Latents as networks take them: whole numbers as int64, others as float32."""
    return rows.float() if rows.is_floating_point() else rows.long()


def _slices(column: torch.Tensor, starts: torch.Tensor, num_rows: int) -> torch.Tensor:
    """(B, num_rows, …): `num_rows` consecutive rows from each start on, copied slice by slice."""
    width = math.prod(column.shape[1:])
    overlapping = column.as_strided((len(column) - num_rows + 1, num_rows * width), (width, 1))
    return overlapping.index_select(0, starts).view(len(starts), num_rows, *column.shape[1:])


def _blank(column: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """The column with zeros where the mask is False."""
    return column.masked_fill(~mask_BL.view(*mask_BL.shape, *(1,) * (column.ndim - 2)), 0)


def _refuse_nan(shard: Shard, column: Column, rows: np.ndarray, final: np.ndarray) -> None:
    """Raise ShardDamaged if NaN or infinity stands where data should be (not in the last action and reward, nor in extras)."""
    if rows.dtype.kind != "f" or column.role == "extra":
        return
    finite = np.isfinite(rows)
    if column.role in ("action", "reward"):
        finite[final] = True
    if not finite.all():
        raise ShardDamaged(
            f"{column.name} is NaN or infinite where data should be", where=shard.source, remedy="restore it, or encode again"
        )
