"""Plays one episode twice, to warn if a dataset cannot be made again, or is continued with a world that has changed.

It is the dataset's first episode. Where an earlier run has recorded it, the second play also shows what changes a world and is
not recorded, such as a file that it reads.

The second play of the first episode is a task like the blocks: a crash or a hang in it costs no more than one in a block, and
two processes may do the two plays. Just before it, its process plays the next episode's first step, because a world that keeps
something from episode to episode repeats in a fresh process. In a long collection the second play is of the whole episode, in a
short one only of its beginning, so that it costs about 3% of a collection; a user's own source cannot be cut. Environments of
Gymnasium and of this package, with policies of this package, are known to repeat and are not played twice. Shards hold the
first play.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from worldmodel_v.collection.block import Block, Replay
from worldmodel_v.execution import Failure
from worldmodel_v.progress import Progress
from worldmodel_v.records import Episode
from worldmodel_v.sources import Source
from worldmodel_v.storage import IndexEntry, Shard

EPISODES_FOR_A_WHOLE_ONE = 33
STEPS_OF_A_BEGINNING = 30


def replay_of(source: Source, entries: Sequence[IndexEntry], blocks: Sequence[Block]) -> Replay | None:
    """The task to play the first episode once more, of what is committed or else of `blocks`; None if the source is known to
    repeat."""
    if source.repeats:
        return None
    is_long = sum(block.num_episodes for block in blocks) >= EPISODES_FOR_A_WHOLE_ONE
    shard, first = (entries[0].shard, entries[0].first_episode) if entries else (blocks[0].shard, blocks[0].first)
    return Replay(shard, first, 1, source.spec.max_steps if is_long else STEPS_OF_A_BEGINNING)


@dataclass
class TwoPlays:
    """Compares the two plays when it has both."""

    source: Source
    progress: Progress
    cut_after: int
    """Actions after which the second play may be cut."""

    earlier: Episode | None = None
    """The first play, if an earlier run has recorded it."""

    _first: Episode | None = None
    _second: Episode | Failure | None = None

    def __post_init__(self) -> None:
        self._first = self.earlier

    def committed(self, image: bytes) -> None:
        """Take the shard that begins with the episode."""
        self._first = self._episode(image)
        self._compare()

    def replayed(self, outcome: bytes | Failure) -> None:
        """Take the second play."""
        self._second = self._episode(outcome) if isinstance(outcome, bytes) else outcome
        self._compare()

    def _episode(self, image: bytes) -> Episode:
        with Shard.from_bytes(image, self.source.spec.schema) as shard:
            return shard.episode(0)

    def _compare(self) -> None:
        if self._first is None or self._second is None:
            return
        number, steps = self._first.episode_id, dict[str, int]()
        remedy = "have environment and policy draw all that is random from the seeds they are given"
        if isinstance(self._second, Failure):
            found = f"fails when it is played again: {self._second.reason}"
            remedy = "unless it repeats, this dataset cannot be made again"
        else:
            steps = dict(differences(self._first, self._second, self.cut_after))
            if not steps:
                return
            where = ", ".join(f"{name} from step {step} on" for name, step in steps.items())
            found = f"does not repeat: played again, it differs: {where}; this dataset cannot be made again"
            if self.earlier:
                remedy += ", or put back what they read and has changed since an earlier run"
        message = f"collect: episode {number} (seed {self._first.seed}) of {self.source.spec.env} {found}; {remedy}"
        facts = {"episode": number, "seed": self._first.seed, "steps": steps}
        self.progress.event("not_reproducible", message, warning=True, stage="collect", **facts)


def differences(first: Episode, second: Episode, cut_after: int) -> Iterator[tuple[str, int]]:
    """The columns that differ, each with the first step that differs; `second` may be cut after so many actions."""
    num_steps, is_cut = min(first.num_steps, second.num_steps), second.num_steps == cut_after
    for name, column in first.columns.items():
        is_of_a_step = first.schema[name].role in ("action", "reward", "terminated", "truncated")
        rows = slice(num_steps if is_of_a_step else num_steps + 1)
        if name == "truncated" and is_cut:  # the cut sets it
            continue
        one, other = (rows_of[rows].reshape(len(rows_of[rows]), -1) for rows_of in (column, second.columns[name]))
        equal = (one == other) | ((one != one) & (other != other))
        if not equal.all():
            yield name, int(np.argmin(equal.all(axis=1)))
    if second.num_steps > first.num_steps or (second.num_steps < first.num_steps and not is_cut):
        yield "the end", num_steps
