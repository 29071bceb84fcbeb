"""Three successive grey frames that look like one RGB picture, as a stack of one's own, (3, H, W) or (H, W, 3), does.

No space says which it is. The values do: a channel of such a frame is its neighbour's in the frame before. In a picture, it is
so only where the channels are equal, as in a grey one.
"""

import numpy as np

FRAMES_LOOKED_AT = 6


def is_stack(pixels_THWC: np.ndarray) -> bool:
    """Whether an episode's first frames, uint8 (T, H, W, 3), are stacks of three successive grey ones."""
    before, after = pixels_THWC[: FRAMES_LOOKED_AT - 1], pixels_THWC[1:FRAMES_LOOKED_AT]
    rows = min(len(before), len(after))
    before, after = before[:rows], after[:rows]
    if rows < 2 or not (after[..., 0] != after[..., 2]).any():
        return False
    oldest_first = np.array_equal(after[..., :2], before[..., 1:])
    newest_first = np.array_equal(after[..., 1:], before[..., :2])
    return oldest_first or newest_first
