"""Picking a few positions that are spread evenly over all."""

import numpy as np


def evenly_spaced(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` positions out of `count`, evenly spaced from the first to the last: int64 (n,), ascending."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))
