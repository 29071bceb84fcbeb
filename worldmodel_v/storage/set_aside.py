"""`set_aside.jsonl`: which failed episodes a collection set aside, and why. A note beside the data, not data.

The invariant ignores this file: an episode that is not in the index does not exist, whether this file lists it or not. So a
line has no meaning once its episode is committed, and deleting the file loses no data. The file is replaced as a whole.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.records import NO_SEED
from worldmodel_v.storage import files
from worldmodel_v.storage.index import MAX_NUMBER, IndexEntry
from worldmodel_v.storage.publish import publish, remove, sync_folder
from worldmodel_v.storage.reading import readable
from worldmodel_v.storage.store import Place, size, stream
from worldmodel_v.untrusted import parse_object

SET_ASIDE_NAME = "set_aside.jsonl"
MAX_REASON_CHARACTERS = 500
MAX_LINE_BYTES = 8192
"""Longer than any line: a reason of characters that JSON writes as two escapes of six bytes each, and six numbers."""


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """One failed episode that was set aside, and with it its whole shard."""

    episode: int
    seed: int
    """The seed that the environment was reset with; NO_SEED if nobody knows it."""

    shard: int
    first_episode: int
    """The shard's first episode; its `num_episodes` episodes are missing because of this one."""

    num_episodes: int
    tries: int
    reason: str
    """How the last try ended: one line of at most `MAX_REASON_CHARACTERS` characters, all printable."""

    def is_committed(self, entries: Sequence[IndexEntry]) -> bool:
        """Whether the episode has been committed since."""
        return any(entry.first_episode <= self.episode < entry.end_episode for entry in entries)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "reason":
                if type(value) is not str or len(value) > MAX_REASON_CHARACTERS or not value.isprintable():
                    raise ValueError(f"reason must be at most {MAX_REASON_CHARACTERS} printable characters")
            elif type(value) is not int or not (NO_SEED if each.name == "seed" else 0) <= value < MAX_NUMBER:
                raise ValueError(f"{each.name} must be a whole number from 0 and below 2^53, got {value!r:.100}")


def as_reason(text: str) -> str:
    """Any text as the reason of a line: printable, and cut if it is too long."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    shortened = printable[: MAX_REASON_CHARACTERS - 1] + "…"
    return printable if len(printable) <= MAX_REASON_CHARACTERS else shortened


@readable()
def read_set_aside(dataset: Place) -> list[SetAside]:
    """The lines of a dataset's `set_aside.jsonl`; none if there is no such file. Raises DatasetNotUsable on a
    malformed line."""
    path = dataset / SET_ASIDE_NAME
    if size(path) is None:
        return []
    with stream(path) as file:
        lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")
        return [_parse(path, number, line) for number, line in enumerate(lines, start=1)]


def write_set_aside(dataset: Path, episodes: Sequence[SetAside]) -> None:
    """Replace the file's lines by these, or remove the file if there are none; raises WriteFailed."""
    path = dataset / SET_ASIDE_NAME
    if episodes:
        publish(path, "".join(json.dumps(asdict(episode)) + "\n" for episode in episodes).encode())
    elif files.exists(path):
        remove(path)
        sync_folder(dataset, inside=dataset)


def _parse(path: Place, number: int, line: bytes) -> SetAside:
    try:
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"expected at most {MAX_LINE_BYTES} bytes")
        return SetAside(**parse_object(line))
    except (ValueError, TypeError) as error:
        raise DatasetNotUsable(
            f"not a line about an episode that was set aside ({error})",
            where=f"{path}:{number}",
            remedy="delete the file, it holds no data",
        ) from None
