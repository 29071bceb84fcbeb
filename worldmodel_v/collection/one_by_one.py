"""Tries blocks that failed as a whole episode by episode, to find the episodes that fail.

A worker that a segmentation fault or the kernel kills cannot say which episode it was playing, so single tries find it. If all
episodes of a block succeed alone, they make its shard, with the same bytes as a block that succeeds as a whole.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from worldmodel_v.collection.block import Block, merge_shards
from worldmodel_v.collection.config import CollectionConfig
from worldmodel_v.execution import Executor, Failure
from worldmodel_v.progress import Progress
from worldmodel_v.records import NO_SEED
from worldmodel_v.sources.base import episode_seeds
from worldmodel_v.spec import RolloutSpec
from worldmodel_v.storage.set_aside import SetAside, as_reason
from worldmodel_v.surface import option
from worldmodel_v.telemetry import Tally

TRIES_TOGETHER = 2
"""How often a block is tried as a whole, so that one lost worker costs only that work."""

TRIES_ALONE = 2
"""How often each episode of a block is tried after that."""

WHY_A_PROCESS_ENDS = "a crash in native code, an exit of the process, or lack of memory"


def collect_one_by_one(
    setup: Callable[[], Callable[[Block], bytes]],
    blocks: Sequence[Block],
    executor: Executor | None,
    spec: RolloutSpec,
    config: CollectionConfig,
    timeout: float,
    progress: Progress,
    tally: Tally,
) -> Iterator[tuple[Block, bytes | list[SetAside]]]:
    """Yield each of `blocks` with its shard, or with its episodes that are to be set aside; an episode may take `timeout`
    seconds, 0: any time."""
    whole = {episode.first: block for block in blocks for episode in block.apart()}
    workers = executor or config.executor(len(whole), apart=True)
    episodes = (episode for block in blocks for episode in block.apart())
    results: dict[Block, dict[int, bytes | Failure]] = {block: {} for block in blocks}
    with closing(workers.try_tasks(setup, episodes, attempts=TRIES_ALONE, progress=progress, tally=tally)) as tries:
        for episode, outcome in tries:
            block = whole[episode.first]
            results[block][episode.first] = outcome
            if len(results[block]) == block.num_episodes:
                yield block, _outcome(block, results.pop(block), spec, timeout)


def _outcome(block: Block, results: dict[int, bytes | Failure], spec: RolloutSpec, timeout: float) -> bytes | list[SetAside]:
    failures = {episode: result for episode, result in sorted(results.items()) if isinstance(result, Failure)}
    if failures:
        describe = functools.partial(_set_aside, block, spec, timeout)
        return [describe(episode, failure) for episode, failure in failures.items()]
    return merge_shards([result for _, result in sorted(results.items()) if isinstance(result, bytes)], spec)


def too_long(seconds: float, timeout: float) -> str | None:
    """What to say of an episode whose process ended after `seconds`, if it was ended because of its time."""
    return f"it ran longer than the {timeout:g} s of {option('episode_timeout')}" if timeout and seconds >= timeout else None


def _set_aside(block: Block, spec: RolloutSpec, timeout: float, episode: int, failure: Failure) -> SetAside:
    seed = NO_SEED if spec.seed == NO_SEED else episode_seeds(spec.seed, episode)[0]
    reason = failure.reason.removeprefix(f"episode {episode} (seed {seed}) of {spec.env}: ")
    if failure.died:
        reason = too_long(failure.seconds, timeout) or f"{reason}: {WHY_A_PROCESS_ENDS}"
    return SetAside(
        episode=episode,
        seed=seed,
        shard=block.shard,
        first_episode=block.first,
        num_episodes=block.num_episodes,
        tries=TRIES_TOGETHER + failure.attempts,
        reason=as_reason(reason),
    )
