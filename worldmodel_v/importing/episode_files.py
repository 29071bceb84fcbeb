"""The files of episodes in a folder: videos or folders of pictures, and their tables.

Names are ordered as people count: ride_2 before ride_10.
"""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.importing.decoding import CONTAINERS, OTHER_PICTURES, PICTURES
from worldmodel_v.importing.tables import READERS


def videos(source: Path) -> list[Path]:
    """Each episode's video, or its folder of pictures; `source` itself may be one. Raises DatasetNotUsable if there is none."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DatasetNotUsable("is not there", where=source)
    inside = in_order(source.iterdir())
    files = [path for path in inside if path.suffix.lower() in CONTAINERS and path.is_file()]
    folders = [path for path in inside if path.is_dir() and _pictures(path)]
    if files and folders:
        raise DatasetNotUsable(f"holds videos ({files[0].name}) and folders of pictures ({folders[0].name})", where=source)
    if not (found := files or folders or ([source] if _pictures(source) else [])):
        expected = f"videos ({', '.join(CONTAINERS)}), or a folder of PNG or JPEG frames for each episode"
        raise DatasetNotUsable("holds no episode", where=source, expected=expected)
    names = [name_of(path) for path in found]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise DatasetNotUsable(f"holds two videos of the name {doubled[0]}", where=source)
    return found


def frame_files(video: Path) -> list[Path]:
    """The pictures of an episode in order, or its video alone; raises DatasetNotUsable if a number is left out, or if one has
    none or is of a kind that is not read."""
    if video.is_file():
        return [video]
    if others := _pictures(video, OTHER_PICTURES):
        raise DatasetNotUsable("stands among the frames and is not read", where=others[0], expected="PNG or JPEG frames alone")
    pictures = _pictures(video)
    numbers = [int(found[-1]) if (found := re.findall(r"\d+", path.stem)) else None for path in pictures]
    for before, number, path in zip(numbers, numbers[1:], pictures[1:], strict=False):
        if before is None or number is None:
            raise DatasetNotUsable(where=path, expected="pictures with a number in each name, which says their order")
        if number != before + 1:
            expected = f"{before + 1} as the last number in its name"
            raise DatasetNotUsable("a frame's number does not follow the one before", where=path, expected=expected, got=number)
    return pictures


def tables(found: list[Path], place: Path | None) -> list[Path]:
    """The table of each video: in the folder `place`, by default the video's own, by its name; or `place` itself for all.

    Raises DatasetNotUsable if one is missing, or if there are two.
    """
    if place is not None and place.is_file():
        return [place] * len(found)
    return [_table(video, place or video.parent) for video in found]


def unused_tables(used: Collection[Path], folder: Path) -> list[Path]:
    """The tables in a folder that are of no video."""
    inside = in_order(folder.iterdir()) if folder.is_dir() else []
    return [path for path in inside if path.suffix.lower() in READERS and path.is_file() and path not in used]


def name_of(video: Path) -> str:
    """An episode's name, which its table has too."""
    return video.name if video.is_dir() else video.stem


def in_order(paths: Iterable[Path]) -> list[Path]:
    """By their names, the numbers in them as numbers; hidden files are left out."""
    shown = (path for path in paths if not path.name.startswith("."))
    return sorted(shown, key=lambda path: (as_counted(path.name), path.name))


def as_counted(text: str) -> list[str | int]:
    """A key to sort by, in which the numbers of a text are numbers."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def _pictures(folder: Path, endings: Collection[str] = PICTURES) -> list[Path]:
    return in_order(path for path in folder.iterdir() if path.suffix.lower() in endings)


def _table(video: Path, folder: Path) -> Path:
    stem = name_of(video)
    spelled = [spelling for ending in READERS for spelling in (ending, ending.upper())]
    there = [path for ending in spelled if (path := folder / f"{stem}{ending}").is_file()]
    if len(there) != 1:
        names = " or ".join(f"{stem}{ending}" for ending in READERS)
        raise DatasetNotUsable(
            "has no table of actions" if not there else "has two tables of actions",
            where=video,
            expected=f"{names} in {folder}",
        )
    return there[0]
