"""The settings of an environment: how it is played, and what is recorded of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from worldmodel_v.envs.picture import AUTO, Layout
from worldmodel_v.settings import require_settings


@dataclass(frozen=True, kw_only=True)
class EnvOptions:
    """The options of `wm-collect` with the same names; `CollectConfig` explains each."""

    frames: str = AUTO
    layout: Layout = AUTO
    record: tuple[str, ...] = ()
    wrap: tuple[str, ...] = ()
    frame_skip: int = 1
    frame_skip_pool: str = "last"
    reset_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_settings(self)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """The part of a dataset's settings that says how its environment is played."""
        values = {each.name: settings[each.name] for each in fields(cls)}
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})
