"""Frames as a video: a GIF, which everything shows, or an MP4 (H.264), which is smaller and has all colours.

Legend: N frames, H, W frame.

Small frames are magnified by a whole number, without smoothing, so that each pixel is seen as it is. A GIF has one palette for
all frames, so nothing flickers.
"""

import io

import numpy as np
from PIL import Image

from worldmodel_v.errors import PackageMissing
from worldmodel_v.notebook import shown
from worldmodel_v.progress import Progress

SMALLEST_SIDE = 256
"""Smaller frames are magnified to about this height."""

FRAMES_A_SECOND = 25
COLOURS = 256
PALETTE_FRAMES = 64
"""So many frames, evenly spaced, decide the palette."""

QUALITY = "18"
"""H.264's constant rate factor: losses that are hardly seen."""


def to_gif(frames_NHWC: np.ndarray, progress: Progress | None = None) -> bytes:
    """uint8 (N, H, W, 3) -> the bytes of a GIF that repeats."""
    every = -(-len(frames_NHWC) // PALETTE_FRAMES)
    some = Image.fromarray(np.concatenate(frames_NHWC[::every]))
    palette = some.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1)
    task = shown(progress).task("video", len(frames_NHWC), "frames")
    pictures = []
    for frame in map(_magnified, frames_NHWC):
        pictures.append(Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE))
        task.advance()
    task.close()
    buffer = io.BytesIO()
    first, *rest = pictures
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=1000 // FRAMES_A_SECOND, loop=0)
    return buffer.getvalue()


def to_mp4(frames_NHWC: np.ndarray, progress: Progress | None = None) -> bytes:
    """uint8 (N, H, W, 3) -> the bytes of an MP4 that browsers play; raises PackageMissing without PyAV."""
    try:
        import av
    except ImportError:
        raise PackageMissing("an MP4 needs PyAV, which is not installed", remedy="pip install av, or name a .gif") from None
    buffer = io.BytesIO()
    task = shown(progress).task("video", len(frames_NHWC), "frames")
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", FRAMES_A_SECOND, options={"crf": QUALITY})
        stream.height, stream.width, _ = _magnified(frames_NHWC[0]).shape
        stream.pix_fmt = "yuv420p"
        for frame in map(_magnified, frames_NHWC):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
            task.advance()
        container.mux(stream.encode())
    task.close()
    return buffer.getvalue()


WRITERS = {".gif": to_gif, ".mp4": to_mp4}
"""By the ending of the file's name."""


def _magnified(frame_HWC: np.ndarray) -> np.ndarray:
    """Each pixel as a square of pixels, (H', W', 3)."""
    times = max(1, SMALLEST_SIDE // len(frame_HWC))
    return frame_HWC.repeat(times, axis=0).repeat(times, axis=1)
