"""The settings that determine a dataset's content, their hash, and the comparison that names what differs.

Two runs with the same spec write the same bytes, whatever the number of workers, and a dataset is continued only under
the spec that it was begun with. Settings that change nothing in the content (workers, episodes, paths) stay out.
"""

import hashlib
import json
import types
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, get_args, get_origin

from worldmodel_v.errors import ConfigError
from worldmodel_v.preprocessing import Preprocessing

FORMAT_VERSION = 1
MAX_NUMBER = 1e30
"""Of a config: leaves room for sums and products in float32."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Base class: a flat record of JSON values with a hash."""

    format: ClassVar[str]
    absent_if_empty: ClassVar[tuple[str, ...]] = ()
    """Settings that came later: where they say nothing, a dataset is what it was before."""

    def settings(self) -> dict[str, Any]:
        """The settings as they are recorded."""
        return {name: value for name, value in asdict(self).items() if value or name not in self.absent_if_empty}

    def to_json(self) -> dict[str, Any]:
        """The content of `dataset.json`."""
        return {"format": self.format, "format_version": FORMAT_VERSION, "spec": self.settings(), "spec_hash": self.hash}

    @property
    def hash(self) -> str:
        """SHA-256 (hexadecimal) of the canonical JSON of format, version and settings."""
        content = {"format": self.format, "format_version": FORMAT_VERSION, "spec": self.settings()}
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class RolloutSpec(Spec):
    """What determines the frames, actions and rewards of every episode."""

    format: ClassVar[str] = "worldmodel_v/rollouts"
    absent_if_empty: ClassVar[tuple[str, ...]] = ("env_source",)

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
    gymnasium: str
    """Gymnasium's version, since another version may be another environment."""

    policy_weights: dict[str, str] = field(default_factory=dict)
    """The SHA-256 of every file of weights that the policy reads, by its path."""

    env_source: dict[str, str] = field(default_factory=dict)
    """Where the environment comes from beside Gymnasium and this package: see `worldmodel_v.envs.source`."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How raw frames become the recorded ones; raises ConfigError if there is no such way."""
        return Preprocessing.of(vars(self))


@dataclass(frozen=True, kw_only=True)
class LatentSpec(Spec):
    """What determines a latent dataset: which VAE, over which rollouts, in which arithmetic."""

    format: ClassVar[str] = "worldmodel_v/latents"

    vae_sha256: str
    source_spec_hash: str
    latent_dim: int
    dtype: str
    precision: str
    source: dict[str, Any]
    """The settings of the rollouts, so that latents alone still tell where they come from."""


SPEC_CLASSES: dict[str, type[Spec]] = {cls.format: cls for cls in (RolloutSpec, LatentSpec)}


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def parse_object(text: str | bytes) -> dict[str, Any]:
    """The JSON object in a text that may come from a stranger; raises ValueError, and nothing else, if it is none.

    Refused beside malformed JSON: a name that stands twice or is not printable, a whole number of more than 20 digits,
    deep nesting.
    """
    try:
        content = json.loads(text, object_pairs_hook=_without_doubles, parse_int=_whole_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"expected an object (name: value), found {type(content).__name__}")
    return content


def is_name(text: str) -> bool:
    """Whether a stranger's text may stand in a message as it is: one line, not long, and nothing that a terminal would obey."""
    return len(text) <= 200 and text.isprintable()


def require_recordable(config: Any) -> None:
    """Raise ConfigError unless all numbers of a config can be recorded and read again: whole ones below 2^63, others finite."""
    for name, value in vars(config).items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, int) and value >= 2**63:
            raise ConfigError(f"{option} must be below 2^63, got {value}")
        if isinstance(value, float) and not abs(value) <= MAX_NUMBER:
            raise ConfigError(f"{option} must be a finite number, at most {MAX_NUMBER:g}, got {value}")


def require_types(values: dict[str, Any], record: type) -> None:
    """Raise ValueError unless each value that parsed JSON holds is of the type that the dataclass `record` declares for it."""
    for each in fields(record):
        if each.name in values and not _is_of(values[each.name], each.type):
            expected = getattr(each.type, "__name__", each.type)
            raise ValueError(f"{each.name}: expected {expected}, found {type(values[each.name]).__name__}")


def differences(recorded: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """Name every field in which two specs differ, with both values: `seed is 1 there, 2 asked`."""
    missing = "not set"
    return [
        f"{name} is {recorded.get(name, missing)!r} there, {asked.get(name, missing)!r} asked"
        for name in sorted(recorded.keys() | asked.keys())
        if recorded.get(name, missing) != asked.get(name, missing)
    ]


def _is_of(value: Any, expected: Any) -> bool:
    kind, members = get_origin(expected) or expected, get_args(expected)
    if kind is Literal:
        return isinstance(value, str)  # whoever takes it says which are there
    if kind is types.UnionType:
        return any(_is_of(value, member) for member in members)
    if kind is tuple:
        return isinstance(value, list) and all(_is_of(item, members[0]) for item in value)
    if kind is dict:
        return isinstance(value, dict) and (members[1] is Any or all(_is_of(item, members[1]) for item in value.values()))
    return type(value) is kind or (kind is float and type(value) is int)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name stands twice")
    if not all(is_name(name) for name in content):
        raise ValueError("a name is longer than 200 characters, or not printable")
    return content


def _whole_number(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)
