"""The directory that a stage writes: which names it may hold, and reading its JSON. (Datasets have rules of their own.)"""

from collections.abc import Container
from pathlib import Path
from typing import Any

from worldmodel_v.errors import ConfigError, OutputNotUsable
from worldmodel_v.storage import files
from worldmodel_v.storage.publish import is_temporary
from worldmodel_v.storage.reading import readable
from worldmodel_v.storage.store import Place
from worldmodel_v.untrusted import parse_object

MAX_JSON_BYTES = 16 << 20


def refuse_foreign_names(out: Path, own_names: Container[str], what: str, whose: str) -> None:
    """Raise OutputNotUsable unless `out` is absent, or a directory with no other names than `own_names`. Writes nothing.

    The message calls the directory's content `what` ("a training") and the content it may have `whose` ("of this training").
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputNotUsable("is a file", where=out, remedy=f"give a directory that is new, empty, or {whose}")
    if foreign := sorted(item.name for item in out.iterdir() if not (item.name in own_names or is_temporary(item))):
        remedy = "give a directory that is new or empty"
        raise OutputNotUsable(f"holds {foreign[0]!r}, which is not of {what}", where=out, remedy=remedy)


def require_outside(out: Path, place: Place, said: str) -> None:
    """Raise ConfigError, which begins as `said`, if `out` is a directory that is only read, or lies in it,
    also by symbolic links."""
    real = out.resolve()
    if (place.resolve() if isinstance(place, Path) else place) in (real, *real.parents):
        raise ConfigError(said, field="out", got=out, remedy="give a directory outside of it")


def read_object(file: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if the file is missing or damaged. Raises NotAFile, NotReadable, ReadFailed."""
    with readable(file):
        try:
            return parse_object(files.read_file(file, MAX_JSON_BYTES))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
