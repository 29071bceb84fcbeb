"""A block of consecutive episodes: the unit of work of collection, and one shard."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worldmodel_v.collect.rollout import rollout
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage import IndexEntry, build_shard


@dataclass(frozen=True)
class Block:
    """Episodes `first` to `first + num_episodes - 1`, to become shard `shard`."""

    shard: int
    first: int
    num_episodes: int

    def __str__(self) -> str:
        return f"shard {self.shard} (episodes {self.first} to {self.first + self.num_episodes - 1})"


def missing_blocks(committed: Sequence[IndexEntry], episodes: int, episodes_per_shard: int) -> list[Block]:
    """What is still to be collected so that episodes 0 to `episodes - 1` exist, given shards in order of number.

    Fills the gaps that an interrupted run left, then goes on behind the last shard. The result does not depend on the
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


def block_collector(spec: RolloutSpec) -> Callable[[Block], bytes]:
    """What a worker does: a block in, the bytes of its shard out. The bytes depend on `spec` and the block alone."""
    spec_hash = spec.hash

    def collect_block(block: Block) -> bytes:
        episodes = [rollout(spec, block.first + i) for i in range(block.num_episodes)]
        return build_shard(episodes, spec_hash=spec_hash)

    return collect_block
