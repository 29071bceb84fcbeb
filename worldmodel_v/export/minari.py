"""Minari: rollouts as a dataset that `minari.load_dataset` opens, with nothing lost.

A Minari episode has T + 1 observations and T of everything else. Our rows are the same, without the empty last row. Ground
truth goes into `infos`, which has T + 1 rows too; seed and policy become the episode's metadata.

The HDF5 file is written directly, and tested with the package. Rejected: Minari's own writer, which stores frames uncompressed
or as JPEG (wrong by up to 194 levels) and would make the package a dependency. Its reader requires `jpeg_encoding: false` in
the metadata, which 0.5.4 was the first version to read, and a group `infos`, even if it is empty.

`env_spec` is Gymnasium's record of the environment, with the settings that it was made with and its wrappers. So
`recover_environment()` builds it where its module can be imported. Only environments that this process knows without importing
a module that the dataset names have one: a dataset may come from a stranger.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from worldmodel_v.errors import ConfigError
from worldmodel_v.export.config import ExportConfig, Written
from worldmodel_v.export.source import Source
from worldmodel_v.progress import Progress
from worldmodel_v.records import NO_SEED, Episode
from worldmodel_v.schema import ActionSpace
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage.hdf5_file import EVERYWHERE, add_column, create_hdf5
from worldmodel_v.surface import option

MINARI_VERSION = "0.5.4"
"""The version with this layout, and the first that reads it."""

DATASET_ID = re.compile(r"([-\w]+/([-\w]+/)+|[-\w]{2,}/)?[-\w]+-v\d+")
"""As Minari's own, which takes no namespace of a single letter."""


@dataclass(frozen=True, kw_only=True)
class MinariConfig(ExportConfig):
    """Frames as a Minari dataset (0.5.4 or newer), lossless, with the ground truth and further columns in infos.

    Minari looks for a dataset in the folder of its id below MINARI_DATASETS_PATH (~/.minari/datasets): give
    ~/.minari/datasets/NAME-v0 as --out. recover_environment() gives the environment, whose frames are not cropped or resized.
    """

    dataset_id: str | None = None
    """Minari's name for the dataset, NAME-v0 or NAMESPACE/NAME-v0; --out must end with it. Default: the last part of --out."""

    name: ClassVar[str] = "minari"
    reads: ClassVar[tuple[type[Any], ...]] = (RolloutSpec,)
    alignment: ClassVar[str] = (
        "observations and infos have a row more than the rest: actions[t] was chosen on observations[t] and led to "
        "observations[t + 1], with rewards[t], terminations[t] and truncations[t]"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not DATASET_ID.fullmatch(self.resolved_id):
            raise ConfigError(
                field="out" if self.dataset_id is None else "dataset_id",
                expected="NAME-v0 or NAMESPACE/NAME-v0, as Minari calls its datasets, its namespaces with two letters or more",
                got=self.resolved_id,
            )
        if not f"/{Path(self.out).absolute().as_posix()}".endswith(f"/{self.resolved_id}"):
            raise ConfigError(
                "Minari finds a dataset in a folder of its id",
                field="dataset_id",
                got=self.dataset_id,
                expected=f"an {option('out')} that ends with it",
            )

    @property
    def resolved_id(self) -> str:
        return Path(self.out).absolute().name if self.dataset_id is None else self.dataset_id

    def check(self, source: Source[RolloutSpec]) -> None:
        names = [*source.schema.state_names, *(column.name for column in source.schema.by_role("extra"))]
        if taken := [name for name in names if names.count(name) > 1 or "/" in name or name == "."]:
            what = f"{taken[0]!r} is the name of two of the dataset's columns and factors, or none that HDF5 takes in infos"
            raise ConfigError(what, where=self.name)

    def write(self, source: Source[RolloutSpec], folder: Path, progress: Progress) -> Written:
        from worldmodel_v.envs.record import env_spec_json

        data = folder / "data"
        data.mkdir()
        task = progress.task("export", source.num_episodes, "episodes")
        with create_hdf5(data / "main_data.hdf5") as (file, check):
            for number, episode in enumerate(source.episodes()):
                _write_episode(file.create_group(f"episode_{number}"), number, episode)
                check()
                task.advance()
        task.close()
        env_spec = env_spec_json(source.dataset.spec)
        metadata = {
            "dataset_id": self.resolved_id,
            "minari_version": MINARI_VERSION,
            "data_format": "hdf5",
            "jpeg_encoding": False,
            "total_episodes": source.num_episodes,
            "total_steps": int(source.num_steps.sum()),
            "dataset_size": round((data / "main_data.hdf5").stat().st_size / 1e6, 1),
            "observation_space": json.dumps(_box(0, 255, source.schema["pixels"].row_shape, "uint8")),
            "action_space": json.dumps(_action_space(source.schema.actions)),
            "algorithm_name": source.dataset.spec.policy.replace("*", r"\*"),
            "description": f"{source.dataset.spec.env}, frames as the VAE sees them; made by worldmodel_v",
        } | ({"env_spec": env_spec} if env_spec else {})
        (data / "metadata.json").write_text(json.dumps(metadata))
        why = "is not registered here, or was recorded with something around it"
        lacks = [] if env_spec else [f"env_spec: not held, because {source.dataset.spec.env} {why}"]
        return Written(source.num_rows, lacks, source.episode_ids.tolist())


def _write_episode(group: Any, number: int, episode: Episode) -> None:
    group.attrs["id"] = number
    if episode.seed != NO_SEED:
        group.attrs["seed"] = episode.seed
    group.attrs["total_steps"] = episode.num_steps
    group.attrs["policy"] = episode.policy
    columns = {
        "observations": episode.pixels,
        "actions": episode.action[:-1],
        "rewards": episode.reward[:-1],
        "terminations": episode.terminated[:-1],
        "truncations": episode.truncated[:-1],
    }
    infos = group.create_group("infos")
    for name, data in columns.items():
        add_column(group, name, data.shape, data.dtype, EVERYWHERE)[:] = data
    for factor, name in enumerate(episode.state_names):
        add_column(infos, name, (episode.num_rows,), np.float32, EVERYWHERE)[:] = episode.state[:, factor]
    for column in episode.schema.by_role("extra"):
        rows = episode.columns[column.name]
        add_column(infos, column.name, rows.shape, rows.dtype, EVERYWHERE)[:] = rows


def _action_space(space: ActionSpace) -> dict[str, Any]:
    """The space of the recorded actions, which are vectors, in Minari's JSON."""
    if space.num_actions is not None:
        return {"type": "Discrete", "dtype": "int64", "start": int(space.low), "n": space.num_actions}
    if space.kind == "continuous":
        low, high = (np.array(space.record[bound], np.float64) for bound in ("low", "high"))
        return _box(low, high, space.row_shape, "float32")
    if space.kind == "discrete":
        nvec, start = (values.ravel().tolist() for values in (space.high - space.low + 1, space.low))
        return {"type": "MultiDiscrete", "dtype": "int64", "nvec": nvec, "start": start}
    if space.record["type"] == "MultiBinary":
        return {"type": "MultiBinary", "n": math.prod(space.shape)}
    return _box(space.low, space.high, space.row_shape, "int64")


def _box(low: Any, high: Any, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    """A Box of `shape`; a bound that is a single number applies to all values."""
    bounds = {name: np.broadcast_to(np.ravel(bound), math.prod(shape)) for name, bound in {"low": low, "high": high}.items()}
    lists = {name: bound.astype(dtype).reshape(shape).tolist() for name, bound in bounds.items()}
    return {"type": "Box", "dtype": dtype, "shape": list(shape), **lists}
