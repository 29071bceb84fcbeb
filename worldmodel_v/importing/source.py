"""A recording as a source of collection: episodes by number, each a function of the files and the settings alone."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.importing.columns import columns_of, require_frames
from worldmodel_v.importing.config import ImportConfig
from worldmodel_v.importing.recording import LACKS, Recorded, Recording, named, reading
from worldmodel_v.importing.source_files import SourceFiles
from worldmodel_v.importing.spaces import space_of
from worldmodel_v.records import MAX_SEED, NO_SEED, Episode
from worldmodel_v.schema import OWN_NAMES, Column, rollout_schema, space_record
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage.layout import MAX_ROWS_PER_EPISODE
from worldmodel_v.surface import option


@dataclass(frozen=True)
class ImportSource:
    """A `Recording` as a `Source`."""

    recording: Recording
    spec: RolloutSpec
    raw_shape: tuple[int, ...]
    """Of a frame as it was recorded."""

    skip: tuple[int, ...]
    """The recording's episodes that are left out, in order."""

    left_out: dict[str, str]
    """Further columns that the user leaves out, or that no dataset can hold, and why."""

    @classmethod
    def of(cls, config: ImportConfig, recording: Recording, files: SourceFiles) -> "ImportSource":
        """Read the first episode, to know what they hold; raises UsageError if a dataset cannot hold them."""
        skip = tuple(sorted({*config.skip}))
        number = _number(0, skip)
        where = recording.where(number)
        first = _read(recording, number)
        with named(where):
            require_frames(first.frames)
        raw_shape = first.frames.shape[1:]
        preprocessing = config.preprocessing(raw_shape)
        extras, unfit = _extras(first.extras)
        left_out = dict.fromkeys(config.without, "as asked") | unfit
        lacks = [*recording.lacks, *(["reward"] if _is_nan(first.reward) else [])]
        space = space_of(config.action_space, recording.action_space, first.action, where)
        raw_space = {"type": "Box", "dtype": "uint8", "shape": [*raw_shape], "low": 0, "high": 255}
        seen = recording.observation_space
        try:
            schema = rollout_schema(
                frame_shape=preprocessing.frame_shape,
                action_space=space.record,
                observation_space=raw_space if seen is None else space_record(seen),
                state_names=recording.state_names,
                extras=extras,
                has_reward="reward" not in lacks,
            )
        except ValueError as error:
            raise DatasetNotUsable(str(error), where=where, remedy=f"leave some out with {option('without')}") from None
        spec = RolloutSpec(
            schema=schema,
            env=config.env or recording.env or f"imported/{config.name}",
            policy=recording.policy,
            seed=NO_SEED,
            max_steps=MAX_ROWS_PER_EPISODE - 1,
            **vars(preprocessing),
            episodes_per_shard=config.episodes_per_shard,
            frames=recording.frames,
            gymnasium="",
            imported={
                "format": config.name,
                "options": {**config.options, **({"skip": [*skip]} if skip else {}), **recording.settings},
                "licence": recording.licence,
                "lacks": lacks,
                **files.record(),
            },
        )
        return cls(recording, spec, raw_shape, skip, left_out)

    @property
    def notes(self) -> list[str]:
        """What the recording lacks, and what of it is left out: a sentence each."""
        lacks = [f"{lack}: {LACKS[lack]}" for lack in (self.spec.imported or {})["lacks"]]
        left_out = [f"{name or repr(name)}: left out ({why})" for name, why in self.left_out.items()]
        return [*lacks, *self.recording.notes, *left_out]

    def check(self) -> None:
        """Raise DatasetNotUsable if the files are not here."""
        if not self.recording.root.exists():
            raise DatasetNotUsable("is not there", where=self.recording.root, remedy="have every node see it")

    def episode(self, episode_id: int) -> Episode:
        """Read it; raises UsageError, naming file or episode, if it is damaged or not what the first one was."""
        number = _number(episode_id, self.skip)
        recorded = _read(self.recording, number)
        extras = {name: rows for name, rows in recorded.extras.items() if name not in self.left_out}
        recorded = dataclasses.replace(recorded, extras=extras)
        with named(self.recording.where(number)):
            columns = columns_of(recorded, self.spec.schema, self.spec.preprocessing, self.raw_shape)
            return Episode(
                schema=self.spec.schema,
                episode_id=episode_id,
                seed=NO_SEED if recorded.seed is None or not 0 <= recorded.seed <= MAX_SEED else recorded.seed,
                policy=recorded.policy or self.recording.policy,
                columns=columns,
            )

    def beginning(self, episode_id: int, num_steps: int) -> Episode:
        """The whole episode."""
        return self.episode(episode_id)

    @property
    def repeats(self) -> bool:
        """True: files are the same when they are read again."""
        return True


def _number(episode_id: int, skip: tuple[int, ...]) -> int:
    """The number in the recording of the dataset's episode."""
    for skipped in skip:
        episode_id += skipped <= episode_id
    return episode_id


def _is_nan(rewards: np.ndarray | None) -> bool:
    """Whether there are rewards, of which none is a number."""
    return rewards is not None and rewards.dtype.kind == "f" and bool(np.isnan(rewards).all())


def _read(recording: Recording, number: int) -> Recorded:
    with named(recording.where(number)), reading(recording.where(number)):
        return recording.episode(number)


def _extras(found: Mapping[str, np.ndarray]) -> tuple[tuple[Column, ...], dict[str, str]]:
    """The further columns, and why others are none."""
    columns, left_out = list[Column](), dict[str, str]()
    for name, rows in found.items():
        try:
            column = Column(name=name, dtype=rows.dtype.name, row_shape=rows.shape[1:], role="extra")
        except ValueError as error:
            left_out[name] = str(error)
            continue
        if name in OWN_NAMES:
            left_out[name] = "datasets and windows of latents have something else of this name"
        else:
            columns.append(column)
    return tuple(columns), left_out
