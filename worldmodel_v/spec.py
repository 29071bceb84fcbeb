"""What determines a dataset's content: its settings and its schema, their hash, and the comparison that names what differs.

Two runs with the same spec write the same bytes, with any number of workers. A dataset is continued only with the spec that
it was begun with. Settings that do not change the content (workers, episodes, paths) are not in the spec.
"""

import hashlib
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from worldmodel_v.preprocessing import Preprocessing
from worldmodel_v.schema import LATENTS, ROLLOUTS, Schema
from worldmodel_v.untrusted import canonical_json, require_types

FORMAT_VERSION = 1

AnySpec = TypeVar("AnySpec", bound="Spec")

UNSAID = {"recorded": "only where it is not the default"}
"""Marks a setting that was added later. At its default it is not recorded, so that older datasets keep their hash and bytes."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Base class: a flat record of JSON values, and the schema of the dataset."""

    format: ClassVar[str]

    schema: Schema

    def settings(self) -> dict[str, Any]:
        """The settings as they are recorded: without the schema, and without `UNSAID` settings at their default."""
        unsaid = {each.name: each for each in fields(self) if each.metadata == UNSAID}
        return {
            name: value for name, value in self.all_settings().items() if name not in unsaid or value != _default(unsaid[name])
        }

    def all_settings(self) -> dict[str, Any]:
        """All settings, including those that are not recorded, as JSON values."""
        return {each.name: _listed(getattr(self, each.name)) for each in fields(self) if each.name != "schema"}

    def to_json(self) -> dict[str, Any]:
        """The content of `dataset.json`."""
        return {**self._content(), "spec_hash": self.hash}

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hexadecimal) of the canonical JSON of format, version, settings and schema."""
        return hashlib.sha256(canonical_json(self._content()).encode()).hexdigest()

    def _content(self) -> dict[str, Any]:
        described = {"spec": self.settings(), "schema": self.schema.to_json()}
        return {"format": self.format, "format_version": FORMAT_VERSION, **described}

    def __post_init__(self) -> None:
        if self.schema.format != self.format:
            raise ValueError(f"the schema is of {self.schema.format}, expected one of {self.format}")
        _require_selection(vars(self).get("selection", {}))
        _require_imported(vars(self).get("imported", {}))


def _default(setting: Field) -> Any:
    return _listed(setting.default if setting.default_factory is MISSING else setting.default_factory())


def _listed(value: Any) -> Any:
    return [*value] if isinstance(value, tuple) else value


@dataclass
class _Selection:
    """The JSON types of what `worldmodel_v.selection` records in `dataset.json`."""

    datasets: tuple[dict[str, Any], ...]
    """What was selected from: `spec_hash`, `index_sha256` and `episodes` of each, and the `selection` that made it, if any."""

    origins: tuple[dict[str, Any], ...]
    """The collections that made the episodes: `spec_hash` and `settings` of each, which an episode's `Origin` points into."""

    differ: tuple[str, ...]
    """The settings in which these differ: beside them, `dataset.json` has those of the first."""


@dataclass
class _Original:
    spec_hash: str
    settings: dict[str, Any]


def _require_selection(selection: Any) -> None:
    """Raise ValueError unless it is empty, or the record of a selection."""
    if selection == {}:
        return
    _require_record("selection", selection, _Selection)
    for original in selection["origins"]:
        _require_record("selection.origins", original, _Original)


@dataclass
class _Imported:
    """The JSON types of what `worldmodel_v.importing` records in `dataset.json`."""

    format: str
    """The name of the format."""

    options: dict[str, Any]
    """How the format was read."""

    num_files: int
    files_sha256: str
    """Of the list of all files that were read, with their names and hashes."""

    files: dict[str, str]
    """SHA-256 of each file by its name; empty if there are too many, which `files.jsonl` beside `dataset.json` lists."""

    licence: str | None
    """As the recording names it."""

    lacks: tuple[str, ...]
    """What nobody recorded."""


def _require_imported(imported: Any) -> None:
    """Raise ValueError unless it is empty, or the record of an import."""
    if imported != {}:
        _require_record("imported", imported, _Imported)


def _require_record(name: str, value: Any, record: type) -> None:
    wanted = {each.name for each in fields(record)}
    if not isinstance(value, dict) or not wanted <= value.keys():
        raise ValueError(f"{name}: expected an object with {', '.join(sorted(wanted))}")
    require_types(value, record)


@dataclass(frozen=True, kw_only=True)
class RolloutSpec(Spec):
    """What determines the frames, actions and rewards of every episode."""

    format: ClassVar[str] = ROLLOUTS

    env: str
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    policy: str
    seed: int
    max_steps: int
    crop: str
    frame_height: int
    frame_width: int
    resize: str
    fit: str
    episodes_per_shard: int
    frames: str
    """What the frames are: `observation`, a part of it by its path (`observation.image`), or `render`."""

    layout: str = field(default="HWC", metadata=UNSAID)
    """The axes of the picture as the environment gives it: see `worldmodel_v.envs.picture`."""

    render_shape: tuple[int, ...] = field(default=(), metadata=UNSAID)
    """The shape of what `render()` gives, if that is the frames, in every episode."""

    record: tuple[str, ...] = ()
    """The paths of what is recorded beside the frames: see `worldmodel_v.envs.parts`."""

    wrap: tuple[str, ...] = field(default=(), metadata=UNSAID)
    """The wrappers around the environment, `module:Class`, the innermost first."""

    frame_skip: int = field(default=1, metadata=UNSAID)
    """How often the environment receives each action."""

    frame_skip_pool: str = field(default="last", metadata=UNSAID)
    """What is recorded of the frames of a skip: the `last`, or the `max` of the last two."""

    reset_options: dict[str, Any] = field(default_factory=dict, metadata=UNSAID)
    """The `options` of every reset."""

    gymnasium: str
    """Gymnasium's version, since another version may be another environment."""

    policy_weights: dict[str, str] = field(default_factory=dict)
    """The SHA-256 of every file of weights that the policy reads, by its path."""

    env_source: dict[str, str] = field(default_factory=dict)
    """Where the environment's code comes from, besides Gymnasium and this package: see `worldmodel_v.envs.source`."""

    policy_source: dict[str, str] = field(default_factory=dict, metadata=UNSAID)
    """Where the policy comes from, in the same way."""

    selection: dict[str, Any] = field(default_factory=dict, metadata=UNSAID)
    """Which episodes of which datasets these are, if they were selected (`worldmodel_v.selection`). Nothing extends them."""

    imported: dict[str, Any] = field(default_factory=dict, metadata=UNSAID)
    """Whose recording these episodes are, if they were imported (`worldmodel_v.importing`)."""

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """How raw frames become the recorded ones; raises ConfigError if these settings are not possible."""
        return Preprocessing.of(vars(self))


@dataclass(frozen=True, kw_only=True)
class LatentSpec(Spec):
    """What determines a latent dataset: which VAE, over which rollouts, in which arithmetic."""

    format: ClassVar[str] = LATENTS

    vae_sha256: str
    source_spec_hash: str
    dtype: str
    precision: str
    source: dict[str, Any]
    """The settings of the rollouts, so that latents alone still tell where they come from."""

    selection: dict[str, Any] = field(default_factory=dict, metadata=UNSAID)
    """As in `RolloutSpec`, if these latents were selected. If their rollouts were, that stands in `source`."""

    holdout_every: int | None = field(default=None, metadata=UNSAID)
    """The k of "every k-th episode of a collection was held out" from the VAE's training; None if the VAE does not say."""

    trained_on: tuple[str, ...] = field(default=(), metadata=UNSAID)
    """The `spec_hash` of each collection that the VAE was trained on."""

    autoencoder_sha256: str = field(default="", metadata=UNSAID)
    """SHA-256 of the code of a user's own autoencoder; empty for those of this package."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.holdout_every is not None and self.holdout_every < 2:
            raise ValueError(f"holdout_every: expected at least 2, got {self.holdout_every}")
        _require_selection(self.source.get("selection", {}))
        _require_imported(self.source.get("imported", {}))


def read_settings(spec_class: type[AnySpec], settings: dict[str, Any], schema: Schema) -> AnySpec:
    """The spec with these settings, as JSON has them; raises ValueError or TypeError if they are none."""
    require_types(settings, spec_class)
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    return spec_class(**values, schema=schema)


SPEC_CLASSES: dict[str, type[Spec]] = {cls.format: cls for cls in (RolloutSpec, LatentSpec)}


def differences(recorded: dict[str, Any], asked: dict[str, Any], words: tuple[str, str] = ("there", "asked")) -> list[str]:
    """Name every field in which two specs differ, with both values: `seed is 1 there, 2 asked`; of a dictionary, its parts."""
    missing = "not set"
    pairs = [(name, recorded.get(name, missing), asked.get(name, missing)) for name in sorted(recorded.keys() | asked.keys())]
    return [
        f"{name} is {_beside(there, here)!r} {words[0]}, {_beside(here, there)!r} {words[1]}"
        for name, there, here in pairs
        if there != here
    ]


def _beside(value: Any, other: Any) -> Any:
    """A value, or of a dictionary what another one has not."""
    if not (isinstance(value, dict) and isinstance(other, dict)):
        return value
    return {name: part for name, part in value.items() if name not in other or other[name] != part}


def schema_differences(recorded: Schema, asked: Schema, words: tuple[str, str] = ("there", "asked")) -> list[str]:
    """Name every part in which two schemas differ: `the dtype of column state is … there, … asked`."""
    common = {column.name for column in recorded.columns} & {column.name for column in asked.columns}
    return differences(_parts(recorded, common), _parts(asked, common), words)


def _parts(schema: Schema, common: set[str]) -> dict[str, Any]:
    """By name: of a column that both have (`common`) its parts, of others what they are."""
    parts: dict[str, Any] = {"observation_space": schema.observation_space, "action_space": schema.action_space}
    parts |= {f"the draw {draw.name}": asdict(draw) for draw in schema.draws}
    for column in schema.columns:
        if column.name in common:
            parts |= {f"the {part} of column {column.name}": value for part, value in asdict(column).items()}
        else:
            parts[f"column {column.name}"] = f"{column.dtype} {[*column.row_shape]}"
    return parts
