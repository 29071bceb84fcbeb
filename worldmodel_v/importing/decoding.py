"""Frames of videos and pictures, decoded one at a time.

Legend: N frames, H, W frame.

Every frame that a video holds is given once, in the order in which they are shown. How long one is shown plays no part, so a
variable frame rate neither repeats nor drops one. FFmpeg hides much damage: it fills what it cannot decode from the frame
before, or ends early, and says so only in its log. So an error in that log is an error here, and the count in the container
must be the count of frames. Of 40 files of ffv1 in Matroska with one bit changed, FFmpeg logged all, and raised for none.
H.264, AV1 and MJPEG have no checksum: 13 to 32 of 40 gave another picture without a word (PyAV 18.1, 2026-11-29).

Colours go through swscale's exact arithmetic, so that one file gives the same bytes everywhere, with one converter for a file:
PyAV's `frame.to_ndarray("rgb24")` makes one for each frame, which takes 4 to 17 times as long at 64x64. One thread decodes,
so that cores are shared by episodes and not by frames.
"""

import functools
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from worldmodel_v.errors import DatasetNotUsable, PackageMissing, one_line
from worldmodel_v.storage.reading import readable

CONTAINERS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".ogv", ".flv", ".wmv")
PICTURES = (".png", ".jpg", ".jpeg")
OTHER_PICTURES = (".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2", ".jxl", ".heic", ".exr")
"""They are not read, so a folder that has some beside the others is refused."""
FORMATS = ("PNG", "JPEG")
PNG_SIGNATURE = b"\x89PNG"
MODES = ("RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "YCbCr")
"""Pillow's names of the kinds of picture with at most 8 bits a colour."""

DEPTH = 24
"""The byte of a PNG that says how many bits a colour has: Pillow shows 16 as 8."""

ORIENTATION, UPRIGHT = 0x0112, 1
"""Of EXIF: how a picture is to be turned."""

STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}
NO_OTHER_FILE = {"protocol_whitelist": "none"}
"""A playlist, or a video that refers to other files, does not have them read: it would need a protocol, such as `file`."""

UPRIGHT_VIDEO = "a video whose frames are stored as they are shown"
TURN = "turn it (ffmpeg -i IN -c:v ffv1 OUT.mkv)"
COPY = "restore it, or make a sound copy (ffmpeg -i IN -c:v ffv1 OUT.mkv)"
Shown = tuple[float | None, np.ndarray]
"""When a frame is shown, in seconds from the video's zero (None if the file does not say), and uint8 (H, W, 3)."""


def video_frames(path: Path, start: float | None = None) -> Iterator[Shown]:
    """The frames of a video in order; with `start`, from a frame at or before that second on.

    Raises DatasetNotUsable if it is no video, is damaged or ends early, PackageMissing without PyAV. With `start`, the
    container's count is not compared.
    """
    av = _pyav(path)
    reformatter = av.video.reformatter
    flags, converter = reformatter.Interpolation, reformatter.VideoReformatter()
    exact = flags.BILINEAR | flags.ACCURATE_RND | flags.FULL_CHR_H_INT | flags.BITEXACT
    for frame in _decoded(av, path, start):
        yield frame.time, converter.reformat(frame, format="rgb24", interpolation=exact, threads=1).to_ndarray()


def video_shape(path: Path) -> tuple[int, int, int, int]:
    """(N, H, W, 3) of a video; all of it is decoded once if the container does not say N. Raises as `video_frames`."""
    with readable(path):
        return _shape(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _shape(path: Path, changed: int) -> tuple[int, int, int, int]:
    av = _pyav(path)
    with _opened(av, path) as (_, stream, _):
        num_frames, height, width = stream.frames, stream.height, stream.width
    return num_frames or sum(1 for _ in _decoded(av, path)), height, width, 3


def picture(content: bytes | Path, where: Any) -> np.ndarray:
    """A PNG or JPEG as uint8 (H, W, 3), turned as its EXIF says, without transparency.

    Raises DatasetNotUsable if it is none, is damaged, has more than 8 bits a colour, or is an animation. PNG has checksums,
    which are verified; JPEG has none.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        stored = content.read_bytes() if isinstance(content, Path) else content
        if stored.startswith(PNG_SIGNATURE):
            Image.open(io.BytesIO(stored), formats=FORMATS).verify()
        with Image.open(io.BytesIO(stored), formats=FORMATS) as image:
            mode = f"{image.mode}, 16 bits a colour" if _has_16_bits(stored) else image.mode
            num_frames = getattr(image, "n_frames", 1) if image.format == "PNG" else 1  # those of a JPEG are previews
            shown = image if image.getexif().get(ORIENTATION, UPRIGHT) == UPRIGHT else ImageOps.exif_transpose(image)
            pixels = np.asarray(shown if mode == "RGB" else shown.convert("RGB")) if mode in MODES else None
    except UnidentifiedImageError:
        raise DatasetNotUsable("is no PNG or JPEG", where=where) from None
    except Exception as error:  # Pillow raises whatever its decoders meet
        raise DatasetNotUsable(f"no readable PNG or JPEG ({one_line(error)})", where=where) from error
    if num_frames > 1:
        raise DatasetNotUsable("is an animation", where=where, expected="one picture a file", got=f"{num_frames} pictures")
    if pixels is None:
        raise DatasetNotUsable("is no picture of 8 bits a colour", where=where, expected=", ".join(MODES), got=f"mode {mode}")
    return pixels


def _has_16_bits(stored: bytes) -> bool:
    return stored.startswith(PNG_SIGNATURE) and stored[DEPTH] == 16


def _decoded(av: Any, path: Path, start: float | None = None) -> Iterator[Any]:
    """The frames as PyAV has them."""
    with _opened(av, path) as (container, stream, errors):
        if start is not None:
            container.seek(max(0, round(start / stream.time_base) - 1), backward=True, stream=stream)
        stream.codec_context.options = STRICT
        count = 0
        for frame in container.decode(stream):
            _require_sound(path, errors, count, frame.is_corrupt)
            if frame.rotation or (not count and _is_mirrored(frame)):
                got = f"one to be turned by {frame.rotation}°" if frame.rotation else "one to be flipped vertically"
                raise DatasetNotUsable(where=path, expected=UPRIGHT_VIDEO, got=got, remedy=TURN)
            count += 1
            yield frame
        _require_sound(path, errors, count)
        if start is None and stream.frames not in (0, count):
            raise DatasetNotUsable(
                "ends early", where=path, expected=f"{stream.frames} frames, as it says", got=count, remedy=COPY
            )


def _is_mirrored(frame: Any) -> bool:
    """Whether its top is shown below, which is no rotation."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return matrix is not None and bool(np.frombuffer(bytes(matrix), np.int32)[4] < 0)


def _require_sound(path: Path, errors: list[Any], count: int, is_corrupt: bool = False) -> None:
    if errors or is_corrupt:
        said = f"FFmpeg says {str(errors[0][2]).strip()!r}" if errors else "FFmpeg calls it corrupt"
        raise DatasetNotUsable(f"is damaged at frame {count}: {said}", where=path, remedy=COPY)


@contextmanager
def _opened(av: Any, path: Path) -> Iterator[tuple[Any, Any, list[Any]]]:
    """The container, its video stream with one thread, and what FFmpeg logs as errors meanwhile, as it grows."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with (
            av.logging.Capture(local=True) as errors,
            _file(path) as file,
            av.open(file, container_options=NO_OTHER_FILE) as container,
        ):
            if len(container.streams.video) != 1:
                raise DatasetNotUsable(where=path, expected="one video stream", got=len(container.streams.video))
            stream = container.streams.video[0]
            _require_8_bits(stream.codec_context.format, path)
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            yield container, stream, errors
    except av.error.FFmpegError as error:
        what = f"is no video that FFmpeg can read, or it is damaged ({one_line(error)})"
        raise DatasetNotUsable(what, where=path, remedy=COPY) from error
    finally:
        av.logging.set_level(level)


def _require_8_bits(stored: Any, path: Path) -> None:
    """Raise DatasetNotUsable for grey and RGB of more bits, such as distances. YUV is rounded to 8 bits in any case."""
    is_yuv = stored is None or (not stored.is_rgb and len(stored.components) > 2)
    if not is_yuv and (bits := max(part.bits for part in stored.components)) > 8:
        remedy = f"convert it to 8 bits (ffmpeg -i IN -pix_fmt {'bgr0' if stored.is_rgb else 'gray'} -c:v ffv1 OUT.mkv)"
        raise DatasetNotUsable(where=path, expected="8 bits a colour", got=f"{bits} ({stored.name})", remedy=remedy)


@readable()
def _file(path: Path) -> BinaryIO:
    return path.open("rb")


def _pyav(path: Path) -> Any:
    try:
        import av.logging
        import av.video.reformatter
    except ImportError:
        raise PackageMissing("reading a video needs av", where=path, remedy="pip install 'worldmodel_v[import]'") from None
    return av
