"""The settings of `wm-select`."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from annotated_types import Ge

from worldmodel_v.errors import ConfigError
from worldmodel_v.selection.choice import Choice, parse_ranges, parse_share, ranges_text
from worldmodel_v.selection.condition import parse_condition
from worldmodel_v.settings import require_settings
from worldmodel_v.storage import LocalPath, Locations
from worldmodel_v.storage.directory import require_outside
from worldmodel_v.surface import option


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """Choose episodes of one or several datasets into a new one: merge, filter, split, drop. Rollouts or latents.

    The options narrow the choice in the order --episodes, --drop, --where, --share, --sample; without them, all are chosen.
    Nothing is changed in the datasets. The new one says of each episode what made it.
    """

    data: Locations = Locations()
    """The datasets, of one kind and schema, which wm-collect, wm-encode or wm-select wrote; directories or URLs."""

    out: LocalPath = LocalPath()
    """Where the chosen episodes go: a new or empty directory, or one of the same selection to continue."""

    where: str | None = None
    """A condition on episode, return, length, seed, policy, terminated, truncated, source: "return > 100 and length < 50"."""

    episodes: str | None = None
    """Only these numbers, in each dataset: 0,3,10-20."""

    drop: str | None = None
    """Not these numbers, in each dataset: 0,3,10-20."""

    share: str | None = None
    """A part of each dataset: 0.9, or two that make up the whole, 0:0.9 and 0.9:1."""

    sample: Annotated[int | None, Ge(1)] = None
    """Draw so many episodes at random."""

    seed: Annotated[int | None, Ge(0)] = None
    """What --sample draws (0 if none is given); with --share, draw which episodes are in the part."""

    @cached_property
    def choice(self) -> Choice:
        """What is asked for; raises ConfigError."""
        return Choice(
            episodes=None if self.episodes is None else parse_ranges("episodes", self.episodes),
            drop=None if self.drop is None else parse_ranges("drop", self.drop),
            condition=None if self.where is None else parse_condition(self.where),
            share=None if self.share is None else parse_share(self.share),
            sample=self.sample,
            seed=self.seed,
        )

    def record(self) -> dict[str, Any]:
        """What is asked for, as `dataset.json` has it."""
        choice = self.choice
        asked = {
            "episodes": None if choice.episodes is None else ranges_text(choice.episodes),
            "drop": None if choice.drop is None else ranges_text(choice.drop),
            "where": choice.condition and choice.condition.text,
            "share": choice.share and ":".join(map(str, choice.share)),
            "sample": choice.sample,
            "seed": 0 if choice.sample and choice.seed is None else choice.seed,
        }
        return {name: value for name, value in asked.items() if value is not None}

    def __post_init__(self) -> None:
        require_settings(self)
        _ = self.choice
        if self.seed is not None and self.share is self.sample is None:
            raise ConfigError(
                "draws nothing", field="seed", got=self.seed, remedy=f"give {option('share')} or {option('sample')}"
            )
        for place in self.data:
            require_outside(self.out, place, f"lies in {place}, which is only read")
