"""The files of a recording: their names and SHA-256, which `dataset.json` holds, so that nobody continues with others.

Up to `MAX_LISTED` files stand in `dataset.json` themselves. Of more, it holds the hash of the list, and the list is
`files.jsonl` beside it, a line for each file: `dataset.json` may not grow over a megabyte, and every dataset that is made of
this one carries these settings.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodel_v.errors import DatasetNotUsable, OutputNotUsable
from worldmodel_v.importing.recording import Recording
from worldmodel_v.progress import Progress
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import files
from worldmodel_v.storage.checksum import sha256_of_file
from worldmodel_v.storage.dataset import SPEC_NAME, open_dataset
from worldmodel_v.storage.publish import publish, remove
from worldmodel_v.storage.reading import readable
from worldmodel_v.untrusted import is_name, parse_object

FILES_NAME = "files.jsonl"
MAX_LISTED = 1000
MAX_FILE_LIST_BYTES = 1 << 30


@dataclass(frozen=True)
class SourceFiles:
    """The files of a recording as they were when it was opened."""

    paths: tuple[Path, ...]
    sha256: dict[str, str]
    """By name, below the recording's root."""

    stamps: tuple[tuple[int, int], ...]
    """Size and time of change of each."""

    @classmethod
    def of(cls, recording: Recording, progress: Progress) -> "SourceFiles":
        """Read every file once; raises NotReadable, ReadFailed, and DatasetNotUsable for a name that cannot be recorded."""
        task = progress.task(f"checksums of {recording.root.name}", len(recording.files), "files")
        sha256: dict[str, str] = {}
        stamps = []
        for path in recording.files:
            name = path.name if path == recording.root else path.relative_to(recording.root).as_posix()
            if not is_name(name):
                raise DatasetNotUsable("has a name that cannot be recorded", where=repr(str(path)), remedy="rename it")
            stamps.append(_stamp(path))
            sha256[name] = sha256_of_file(path)
            task.advance()
        task.close()
        return cls(recording.files, sha256, tuple(stamps))

    @property
    def lines(self) -> bytes:
        """The list, a JSON object a line."""
        return b"".join(json.dumps({"name": name, "sha256": sha}).encode() + b"\n" for name, sha in self.sha256.items())

    def record(self) -> dict[str, Any]:
        """What `dataset.json` holds of them."""
        return {
            "num_files": len(self.sha256),
            "files_sha256": hashlib.sha256(self.lines).hexdigest(),
            "files": self.sha256 if len(self.sha256) <= MAX_LISTED else {},
        }

    def put_beside(self, out: Path) -> None:
        """Write the list into a dataset that has been begun, if `dataset.json` does not hold it; raises WriteFailed."""
        if len(self.sha256) > MAX_LISTED:
            publish(out / FILES_NAME, self.lines, out)
        else:
            remove(out / FILES_NAME, out)

    def require_same(self, out: Path) -> None:
        """Raise OutputNotUsable, naming a file, if episodes of the dataset at `out` were imported from other files."""
        dataset = open_dataset(out) if out.is_dir() and files.exists(out / SPEC_NAME) else None
        if dataset is None or not dataset.entries or not isinstance(dataset.spec, RolloutSpec):
            return
        imported = dataset.spec.imported
        if imported and imported["files_sha256"] != self.record()["files_sha256"]:
            there = imported["files"] or _listed(out)
            raise OutputNotUsable(
                f"was imported from other files: {_difference(there, self.sha256)}",
                where=out,
                remedy="give another directory, or the files that it was made from",
            )

    def require_unchanged(self) -> None:
        """Raise DatasetNotUsable if a file is not as it was when it was opened."""
        for path, stamp in zip(self.paths, self.stamps, strict=True):
            if _stamp(path) != stamp:
                raise DatasetNotUsable(
                    "was changed while it was imported", where=path, remedy="import again, into another directory"
                )


def files_below(folder: Path) -> Iterator[Path]:
    """Every file, in folders that are reached by a symbolic link too; none of a folder that leads back to itself."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in folders if os.path.realpath(Path(place, name)) not in seen]
        yield from (path for name in names if (path := Path(place, name)).is_file())


@readable()
def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _listed(out: Path) -> dict[str, str]:
    """The files in `files.jsonl`; none if it is not there."""
    if not files.exists(out / FILES_NAME, out):
        return {}
    lines = files.read_file(out / FILES_NAME, MAX_FILE_LIST_BYTES, out).splitlines()
    try:
        return {str(parsed["name"]): str(parsed["sha256"]) for parsed in map(parse_object, lines)}
    except (ValueError, KeyError) as error:
        raise DatasetNotUsable(f"is no list of files ({error})", where=out / FILES_NAME, remedy="remove it") from None


def _difference(there: dict[str, str], here: dict[str, str]) -> str:
    """The first file, in the order of their names, in which two lists differ."""
    name = min((name for name in there.keys() | here.keys() if there.get(name) != here.get(name)), default=None)
    if not there or name is None:
        return "which ones is not recorded here"
    if name not in here:
        return f"{name} is missing now"
    if name not in there:
        return f"{name} is new"
    return f"{name} has SHA-256 {here[name][:12]}…, it had {there[name][:12]}…"
