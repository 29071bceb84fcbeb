"""A block of consecutive episodes: the unit of work of collection, and one shard."""

import faulthandler
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from worldmodel_v.records import Episode
from worldmodel_v.sources import Source
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import IndexEntry, Shard, build_shard

STANDARD_ERROR = 2


@dataclass(frozen=True)
class Block:
    """Episodes `first` to `first + num_episodes - 1`, which become shard `shard`."""

    shard: int
    first: int
    num_episodes: int

    def __str__(self) -> str:
        if self.num_episodes == 1:
            return f"shard {self.shard} (episode {self.first})"
        return f"shard {self.shard} (episodes {self.first} to {self.first + self.num_episodes - 1})"

    def apart(self) -> list["Block"]:
        """Its episodes, each as a block of its own."""
        return [Block(self.shard, self.first + i, 1) for i in range(self.num_episodes)]


@dataclass(frozen=True)
class Replay(Block):
    """The first episode of a block once more, or its first `num_steps` actions."""

    num_steps: int

    def __str__(self) -> str:
        return f"the second play of episode {self.first}"


def missing_blocks(committed: Sequence[IndexEntry], episodes: int, episodes_per_shard: int) -> list[Block]:
    """The blocks that are missing so that episodes 0 to `episodes - 1` exist, given shards in order of number.

    Fills the gaps that an interrupted run left, then continues after the last shard. The result does not depend on the
    order in which shards were committed, so an interrupted and continued run plans the same shards as an unbroken one.
    """
    blocks: list[Block] = []
    shard, episode = 0, 0

    def fill(until: int) -> None:
        nonlocal shard, episode
        while episode < until:
            count = min(episodes_per_shard, until - episode)
            blocks.append(Block(shard, episode, count))
            shard, episode = shard + 1, episode + count

    for entry in committed:
        fill(entry.first_episode)
        shard, episode = entry.shard + 1, entry.end_episode
    fill(episodes)
    return blocks


def block_collector(source: Source, episode_timeout: float = 0.0) -> Callable[[Block], bytes]:
    """What a worker does: a block in, the bytes of its shard out. The bytes depend on the source's `spec` and the block alone.

    Raises EnvironmentNotUsable if this machine would make other episodes than `spec` says. An episode that takes more than
    `episode_timeout` seconds (0: no limit) ends this process, so set a limit only in a process that will be replaced.
    """
    spec_hash = source.spec.hash
    with ended_after(episode_timeout):
        source.check()

    def collect_block(block: Block) -> bytes:
        if isinstance(block, Replay):
            with ended_after(episode_timeout), suppress(Exception):  # so that the second play is not this process's first
                source.beginning(block.first + 1, 1)
            with ended_after(episode_timeout):
                played = source.beginning(block.first, block.num_steps)
            return build_shard([played], spec_hash=spec_hash)
        episodes = [collect_episode(block.first + i) for i in range(block.num_episodes)]
        return build_shard(episodes, spec_hash=spec_hash)

    def collect_episode(episode_id: int) -> Episode:
        with ended_after(episode_timeout):
            return source.episode(episode_id)

    return collect_block


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer, and print its threads' stacks on standard error.

    A C thread does this, because an environment that hangs in native code may hold the GIL, and then no Python code runs.
    """
    if not seconds:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True, file=STANDARD_ERROR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def merge_shards(images: Sequence[bytes], spec: RolloutSpec) -> bytes:
    """One shard with all episodes of some shards, in their order: the same bytes as if they had been collected together."""
    episodes: list[Episode] = []
    for image in images:
        with Shard.from_bytes(image, spec.schema) as shard:
            episodes += [shard.episode(position) for position in range(shard.num_episodes)]
    return build_shard(episodes, spec_hash=spec.hash)
