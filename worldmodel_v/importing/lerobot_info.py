"""What a LeRobotDataset v3.0 says about itself: `meta/info.json`, the tasks' texts, and its card.

Read from huggingface/lerobot at commit 7427f31 of 2026-08-23 (`DatasetInfo` in `datasets/utils.py`).
"""

import functools
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.importing.recording import reading
from worldmodel_v.storage.reading import readable
from worldmodel_v.untrusted import parse_object

INFO = "meta/info.json"
TASKS = "meta/tasks.parquet"
CARD = "README.md"
VERSION = "v3.0"
CONVERT = "python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id=NAME --root=DIRECTORY"


@dataclass(frozen=True)
class Info:
    """What `meta/info.json` says."""

    root: Path
    fps: float
    features: dict[str, dict[str, Any]]
    data_path: str
    video_path: str
    robot: str | None
    num_episodes: int | None
    """None if it does not say."""

    @classmethod
    def read(cls, root: Path) -> "Info":
        """Raises DatasetNotUsable if there is none, or if it is of another version."""
        path = root / INFO
        if not path.is_file():
            raise DatasetNotUsable("is no LeRobotDataset", where=root, expected=INFO)
        with reading(path), readable(path):
            content = parse_object(path.read_bytes())
        version = content.get("codebase_version")
        if version != VERSION:
            remedy = f"convert it: {CONVERT}" if str(version).startswith("v2.1") else None
            raise DatasetNotUsable(where=path, expected=f"codebase_version {VERSION}", got=version, remedy=remedy)
        fps, features = content.get("fps"), content.get("features")
        if not (isinstance(fps, int | float) and fps > 0 and isinstance(features, dict)):
            raise DatasetNotUsable("does not say fps and features", where=path)
        for key, feature in features.items():
            if not (isinstance(feature, dict) and isinstance(feature.get("dtype"), str) and _is_shape(feature.get("shape"))):
                raise DatasetNotUsable(f"does not say dtype and shape of {key}", where=path)
        num_episodes = total if type(total := content.get("total_episodes")) is int else None
        data, video, robot = (content.get(name) for name in ("data_path", "video_path", "robot_type"))
        return cls(root, float(fps), features, str(data), str(video), robot if isinstance(robot, str) else None, num_episodes)

    def shape(self, key: str) -> tuple[int, ...]:
        """Of a row of a feature; () where a row is one value."""
        shape = tuple(self.features[key]["shape"])
        return () if shape == (1,) else shape

    def names(self, key: str) -> tuple[str, ...]:
        """The names of a vector's values, if each has its own; they are a list, or one list in an object."""
        names = self.features[key].get("names")
        if isinstance(names, dict) and len(names) == 1:
            names = next(iter(names.values()))
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            return ()
        return tuple(names) if len({*names}) == len(names) and self.shape(key) == (len(names),) else ()

    def path(self, template: str, **parts: Any) -> Path:
        """A file by its template; raises DatasetNotUsable if it would lie outside of the dataset."""
        with reading(self.root / INFO):
            relative = PurePosixPath(template.format(**parts))
        if relative.is_absolute() or ".." in relative.parts:
            raise DatasetNotUsable(f"names a file outside of the dataset: {template!r:.200}", where=self.root / INFO)
        return self.root / relative


def tasks(root: Path) -> dict[int, str]:
    """The tasks' texts by their `task_index`; empty if there are none."""
    path = root / TASKS
    if not path.is_file():
        return {}
    with reading(path):
        table = open_parquet(path).read()
        texts = next((name for name in table.schema.names if name != "task_index"), None)
        if texts is None or "task_index" not in table.schema.names:
            return {}
        return {
            int(index): str(text)
            for index, text in zip(*(table[name].to_pylist() for name in ("task_index", texts)), strict=True)
        }


def licence(root: Path) -> str | None:
    """The licence that the dataset's card names in its head."""
    path = root / CARD
    if not path.is_file():
        return None
    with reading(path), readable(path):
        _, begin, rest = path.read_text(encoding="utf-8", errors="replace").partition("---\n")
        head = yaml.safe_load(rest.partition("\n---")[0]) if begin else None
    named = head.get("license") if isinstance(head, dict) else None
    return str(named) if named is not None else None


def open_parquet(path: Path) -> Any:
    """A file, open: episodes are read one after the other, and the file's own index need not be read for each."""
    with reading(path):
        return _opened(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _opened(path: Path, changed: int) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path)


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)
