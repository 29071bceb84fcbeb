"""Which of the listed episodes are chosen: by number, by a condition, a share of each dataset, a random draw. In this order.

A share is cut by exact fractions, so `0:0.9` and `0.9:1` have no episode in common and leave none out. It is a share of each
dataset, so that the parts of a merge hold all of them alike.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from worldmodel_v.errors import ConfigError, DatasetNotUsable
from worldmodel_v.selection.condition import Condition
from worldmodel_v.selection.episodes import EpisodeTable
from worldmodel_v.surface import option

_ITEM = re.compile(r"(\d{1,15})(?:-(\d{1,15}))?")
_FRACTION = re.compile(r"\d{1,20}(\.\d{1,20})?|\.\d{1,20}|\d{1,20}/\d{1,20}")

Ranges = tuple[tuple[int, int], ...]
"""First and last numbers."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was asked for; None chooses all."""

    episodes: Ranges | None = None
    drop: Ranges | None = None
    condition: Condition | None = None
    share: tuple[Fraction, Fraction] | None = None
    sample: int | None = None
    seed: int | None = None


def parse_ranges(name: str, text: str) -> Ranges:
    """`0,3,10-20` as sorted ranges that do not touch; raises ConfigError, which names the option `name`."""
    ranges: list[tuple[int, int]] = []
    for item in text.split(","):
        found = _ITEM.fullmatch(item.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last:
            raise ConfigError(field=name, expected="numbers and ranges such as 0,3,10-20", got=text)
        ranges.append((first, last))
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return tuple(joined)


def ranges_text(ranges: Ranges) -> str:
    """As `parse_ranges` reads it."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def parse_share(text: str) -> tuple[Fraction, Fraction]:
    """`0.2:0.9`, or `0.9` for `0:0.9`; raises ConfigError."""
    begin, end = ["0", text] if ":" not in text else text.split(":", 1)
    try:
        share = _fraction(begin), _fraction(end)
    except (ValueError, ZeroDivisionError):
        share = Fraction(1), Fraction(0)
    if not 0 <= share[0] < share[1] <= 1:
        raise ConfigError(field="share", expected="a part of 0 to 1, such as 0.9, 0:0.9 or 0.9:1", got=text)
    return share


def choose(table: EpisodeTable, choice: Choice) -> np.ndarray:
    """int64 (n,): the places in the table of the chosen episodes, in its order.

    Raises DatasetNotUsable if there is none, or fewer than are to be drawn; ConfigError for numbers that no dataset has.
    """
    keep = np.ones(len(table.episode), np.bool_)
    if choice.episodes is not None:
        keep &= _listed(table, "episodes", choice.episodes)
    if choice.drop is not None:
        keep &= ~_listed(table, "drop", choice.drop)
    if choice.condition is not None:
        facts = table.facts(choice.condition.names)
        keep &= np.fromiter(map(choice.condition.holds, facts), np.bool_, len(keep))
    places = np.flatnonzero(keep)
    if choice.share is not None:
        places = np.concatenate([*_shares(places, table, choice.share, choice.seed)])
    if choice.sample is not None:
        places = _drawn(places, choice.sample, choice.seed or 0)
    if not len(places):
        raise DatasetNotUsable(f"no episode of {len(keep)} is selected", remedy="select others, or more")
    return places


def _listed(table: EpisodeTable, name: str, ranges: Ranges) -> np.ndarray:
    """bool (E,): whether an episode's number is in the ranges; raises ConfigError for a range that begins before the first one,
    ends after the last one, or has none."""
    found = np.zeros(len(table.episode), np.bool_)
    lowest, highest = int(table.episode.min()), int(table.episode.max())
    for first, last in ranges:
        inside = (first <= table.episode) & (table.episode <= last)
        if first < lowest or last > highest or not inside.any():
            asked = ranges_text(((first, last),))
            raise ConfigError(
                f"not all of {asked} are there" if inside.any() else f"there is no episode {asked}",
                field=name,
                got=ranges_text(ranges),
                remedy=f"they are {lowest} to {highest}",
            )
        found |= inside
    return found


def _shares(
    places: np.ndarray, table: EpisodeTable, share: tuple[Fraction, Fraction], seed: int | None
) -> Iterator[np.ndarray]:
    """Of each dataset, its share of the places; with a seed, which of them is drawn."""
    for source in range(table.num_sources):
        own = places[table.source[places] == source]
        begin, end = (int(bound * len(own)) for bound in share)
        order = np.arange(len(own)) if seed is None else _generator(seed, source).permutation(len(own))
        yield own[np.sort(order[begin:end])]


def _drawn(places: np.ndarray, number: int, seed: int) -> np.ndarray:
    if number > len(places):
        raise DatasetNotUsable(
            f"{len(places)} episodes are left to draw {number} from", remedy=f"lower {option('sample')}, or select more"
        )
    return places[np.sort(_generator(seed).permutation(len(places))[:number])]


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _fraction(text: str) -> Fraction:
    if not _FRACTION.fullmatch(text.strip()):
        raise ValueError
    return Fraction(text.strip())
