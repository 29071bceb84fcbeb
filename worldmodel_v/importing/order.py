"""Whether the rows of an episode are in the order in which they were recorded, as further columns say it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.surface import option

COUNTS = (
    *("step", "step_idx", "step_index", "timestep", "time_step", "index"),
    *("frame", "frame_idx", "frame_index", "frame_id", "frame_number"),
)
"""Names of further columns that count the rows of an episode, evenly."""

TIMES = (*COUNTS, "timestamp", "t", "", "unnamed: 0", "__index_level_0__")
"""Names of further columns that say when a row was; they do not fall within an episode. The last three are what
pandas calls its index in files."""


def require_in_order(columns: Mapping[str, np.ndarray], where: Any = None) -> None:
    """Raise DatasetNotUsable if a column that says when a row was falls, or one that counts rows does not count evenly: the
    rows are in another order than the frames, or one is missing."""
    for name, times in columns.items():
        if name.lower() in TIMES and times.ndim == 1 and times.dtype != object:
            _require_no_fall(name, times, where)
            if name.lower() in COUNTS and times.dtype.kind in "fiu":
                _require_even(name, times, where)


def _require_no_fall(name: str, times: np.ndarray, where: Any) -> None:
    if (falls := np.flatnonzero(times[1:] < times[:-1])).size:
        before, after = map(str, times[falls[0] : falls[0] + 2])  # not `tolist`: of dates in ns it makes whole numbers
        said = name or "the column without a name"
        raise DatasetNotUsable(
            f"its rows are not in the order of {said}",
            where=where,
            expected="a row for each frame, in their order",
            got=f"{after} after {before}",
            remedy=f"sort it by {said}, or remove that column if it says no order",
        )


def _require_even(name: str, counts: np.ndarray, where: Any) -> None:
    steps = np.diff(counts.astype(np.float64))
    if (uneven := np.flatnonzero(np.isfinite(steps) & (steps != steps[:1]))).size:
        before, after = counts[uneven[0] : uneven[0] + 2].tolist()
        raise DatasetNotUsable(
            f"{name} does not count evenly, so a row is missing",
            where=where,
            expected=f"{before + steps[0]:g} after {before}",
            got=after,
            remedy=f"add it, or if its frame is missing too, leave the column out with {option('without', name)}",
        )
