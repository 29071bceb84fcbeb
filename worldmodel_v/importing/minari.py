"""Minari datasets, HDF5 or Arrow, read by the minari package itself.

A Minari episode has T + 1 observations and infos, and T of everything else: actions[t] was chosen on observations[t], and led
to observations[t + 1] with rewards[t], terminations[t] and truncations[t]. These are our rows.

Frames are a picture in the observations, chosen as wm-collect chooses it: by the space, with its axes and its scale. Other
numbers in the observations and infos become columns, named as wm-collect names them (`observation.goal`, `info.speed`).

Minari's metadata may name an environment instead of its spaces, and minari would then make that environment, which is code of
whoever wrote the file. Such a dataset is refused. HDF5 files with links to other files are refused, too.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np

from worldmodel_v.envs.parts import INFO, OBSERVATION, RENDER, choose_frames, leaves
from worldmodel_v.envs.picture import AUTO, Layout, Picture
from worldmodel_v.errors import DatasetNotUsable, EnvironmentNotUsable, PackageMissing
from worldmodel_v.importing.columns import is_storable
from worldmodel_v.importing.config import ImportConfig
from worldmodel_v.importing.memory import most_bytes
from worldmodel_v.importing.recording import Recorded, Recording, further, leave_out, reading
from worldmodel_v.importing.source_files import files_below
from worldmodel_v.records import MAX_SEED
from worldmodel_v.schema import ActionSpace, space_record
from worldmodel_v.storage.foreign_hdf5 import require_self_contained
from worldmodel_v.storage.reading import readable
from worldmodel_v.surface import option

METADATA = "metadata.json"
SAID = ("dataset_id", "minari_version", "algorithm_name", "code_permalink")
"""Of the metadata, what is recorded."""


@dataclass(frozen=True, kw_only=True)
class MinariImportConfig(ImportConfig):
    """A Minari dataset (HDF5 or Arrow) with pictures in its observations, with seeds, infos and all other numbers.

    Give its folder as --from, such as ~/.minari/datasets/NAME-v0. It needs the minari package.
    """

    frames: str = AUTO
    """The picture: observation, or observation.KEY of a Dict; auto: the only picture in the observations."""

    layout: Layout = AUTO
    """Axes of that picture; with T a stack, whose last frame is taken. auto: HWC, HW or CHW, by its shape."""

    name: ClassVar[str] = "minari"
    placement: ClassVar[str] = "row t: the frame o_t, the action a_t chosen on it, and its reward and end"

    def open(self) -> Recording:
        return _Dataset(self)


class _Dataset(Recording):
    def __init__(self, config: MinariImportConfig) -> None:
        self.root = Path(config.from_)
        data = self.root / "data" if (self.root / "data").is_dir() else self.root
        metadata = _metadata(data)
        self.files = _files(data)
        for path in self.files:
            if path.suffix == ".hdf5":
                require_self_contained(path, most_bytes())
        with reading(self.root):
            dataset = _minari().MinariDataset(data)
            self._storage, self._numbers = dataset.storage, [*map(int, dataset.episode_indices)]
            self._metadata = list(self._storage.get_episode_metadata(self._numbers))
        self.num_episodes = len(self._numbers)
        if not self._numbers:
            raise DatasetNotUsable("holds no episode", where=self.root)
        self.action_space, self.observation_space = dataset.action_space, dataset.observation_space
        try:
            ActionSpace(space_record(self.action_space))
        except ValueError as error:
            raise DatasetNotUsable(str(error), where=self.root) from None
        self.env = None if dataset.env_spec is None else dataset.env_spec.id
        self.policy = str(metadata.get("algorithm_name") or Recording.policy)
        self.licence = next((str(metadata[name]) for name in ("license", "licence") if metadata.get(name)), None)
        self.lacks = () if all(_seed(each) is not None for each in self._metadata) else ("seed",)
        self.settings = {name: str(metadata[name]) for name in SAID if metadata.get(name)}
        self.frames, self._picture = _picture(config, self.observation_space)
        self.notes = (*_lossy(self._storage, self._picture), *self._take_extras(config.without))

    def episode(self, number: int) -> Recorded:
        """As `Recording` says."""
        episode, metadata = self._stored(number), self._metadata[number]
        num_steps = len(episode["rewards"])
        if num_steps != metadata["total_steps"]:
            raise DatasetNotUsable(expected=f"{metadata['total_steps']} steps, as its metadata says", got=num_steps)
        parts = dict(_parts(episode))
        if missing := [name for name in self._extras if name not in parts]:
            expected = f"{missing[0]}, as in the first episode"
            raise DatasetNotUsable(expected=expected, got=", ".join(parts), remedy=leave_out(missing[0]))
        return Recorded(
            frames=_frames(np.asarray(parts[self.frames]), self._picture, first=number == 0),
            action=np.asarray(episode["actions"]),
            reward=np.asarray(episode["rewards"]),
            terminated=_ends("terminations", episode["terminations"]),
            truncated=_ends("truncations", episode["truncations"]),
            extras={name: np.asarray(parts[name]) for name in self._extras},
            seed=_seed(metadata),
            policy=str(metadata["policy"]) if "policy" in metadata else None,
        )

    def _stored(self, number: int) -> dict[str, Any]:
        return next(iter(self._storage.get_episodes([self._numbers[number]])))

    def _take_extras(self, without: tuple[str, ...]) -> Iterator[str]:
        """Choose the columns beside the frames by episode 0, and say what is left out."""
        with reading(self.where(0)):
            episode = self._stored(0)
            stored = {name: values for name, values in _parts(episode) if name != self.frames}
            parts = {name: np.asarray(stored[name]) for name in further(stored, without, self.root)}
        num_rows = len(episode["rewards"]) + 1
        self._extras = [name for name, rows in parts.items() if rows.shape[:1] == (num_rows,) and is_storable(rows)]
        for name, rows in parts.items():
            if name not in self._extras:
                yield f"{name}: left out, since it has no number for each row ({rows.dtype} {rows.shape})"


def _minari() -> Any:
    try:
        import minari
    except ModuleNotFoundError as error:
        raise PackageMissing(
            f"Minari datasets need {error.name}, which is not installed", remedy="pip install 'worldmodel_v[import]'"
        ) from None
    return minari


@readable()
def _files(data: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in files_below(data) if not path.name.startswith(".")))


def _metadata(data: Path) -> Mapping[str, Any]:
    """The content of `metadata.json`; raises DatasetNotUsable unless it names both spaces."""
    path = data / METADATA
    if not path.is_file():
        raise DatasetNotUsable(
            f"holds no {METADATA}", where=data, remedy="give the folder of a Minari dataset, such as ~/.minari/datasets/NAME-v0"
        )
    with reading(path), readable(path):
        metadata = json.loads(path.read_text())
    if not isinstance(metadata, dict):
        raise DatasetNotUsable(where=path, expected="a JSON object", got=type(metadata).__name__)
    for name in ("observation_space", "action_space"):
        if not isinstance(metadata.get(name), str):
            raise DatasetNotUsable(
                f"does not say its {name}, and making its environment to learn it would run other people's code",
                where=path,
                remedy="write it there with minari",
            )
    return metadata


def _picture(config: MinariImportConfig, space: gymnasium.Space) -> tuple[str, Picture]:
    """The path of the frames and how they are read; raises DatasetNotUsable if there are none, or several."""
    name = str(config.from_)
    try:
        path, layout = choose_frames(name, space, ["rgb_array"], config.frames, config.layout)
    except EnvironmentNotUsable as error:
        remedy = error.remedy and f"say which part is the picture with {option('frames')}"  # of `render` there is none
        raise DatasetNotUsable(error.what, **error.parts | {"remedy": remedy}) from None
    if path == RENDER:
        raise DatasetNotUsable(where=name, expected="observations with a picture", got=str(space))
    box = dict(leaves(space))[path]
    assert isinstance(box, gymnasium.spaces.Box)
    return path, Picture(box, layout)


def _lossy(storage: Any, picture: Picture) -> Iterator[str]:
    from minari.dataset.minari_storage import is_image_space

    if storage.jpeg_encoding and any(is_image_space(box) for _, box in leaves(storage.observation_space)):
        yield "frames: JPEG, as Minari stores them by default, so they are not exactly what the policy saw"


def _parts(episode: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Everything in the observations and infos that is no dictionary or tuple, with its path."""
    yield from _flat(episode["observations"], OBSERVATION)
    yield from _flat(episode["infos"] or {}, INFO)


def _flat(values: Any, path: str) -> Iterator[tuple[str, Any]]:
    named = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, tuple) else None
    if named is None:
        yield path, values
        return
    for name, part in named:
        yield from _flat(part, f"{path}.{name}")


def _frames(values: np.ndarray, picture: Picture, *, first: bool) -> np.ndarray:
    """uint8 (T + 1, H, W, …)."""
    try:
        frames = values if picture.is_plain else np.stack([picture(frame) for frame in values])
    except ValueError as error:
        raise DatasetNotUsable(str(error)) from None
    if first and picture.is_refuted_by(int(frames.max()), is_varied=bool(np.ptp(frames))):
        raise DatasetNotUsable(
            f"its frames are no picture: none of their values is above {int(frames.max())} of 255", expected="brightness"
        )
    return frames


def _ends(name: str, rows: Any) -> bool:
    ends = np.asarray(rows)
    if ends[:-1].any():
        raise DatasetNotUsable(f"{name} in step {int(ends.argmax())}, and the episode goes on")
    return bool(ends[-1])


def _seed(metadata: Mapping[str, Any]) -> int | None:
    """The seed, if there is one that a dataset can hold."""
    seed = metadata.get("seed")
    return None if seed is None or not 0 <= int(seed) <= MAX_SEED else int(seed)
