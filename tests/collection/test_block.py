"""Which episodes are still to be collected, and as which shards."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel_v.collection.block import Block, missing_blocks
from worldmodel_v.storage import IndexEntry


def entry(block: Block) -> IndexEntry:
    return IndexEntry(
        shard=block.shard,
        first_episode=block.first,
        num_episodes=block.num_episodes,
        num_rows=10 * block.num_episodes,
        bytes=1000,
        sha256="0" * 64,
    )


def blocks(*triples: tuple[int, int, int]) -> list[Block]:
    return [Block(*triple) for triple in triples]


CASES = {
    "nothing is there": ([], 7, 3, [(0, 0, 3), (1, 3, 3), (2, 6, 1)]),
    "exact multiples": ([], 6, 3, [(0, 0, 3), (1, 3, 3)]),
    "fewer episodes than a shard": ([], 2, 3, [(0, 0, 2)]),
    "everything is there": ([(0, 0, 3), (1, 3, 3)], 6, 3, []),
    "more than asked is there": ([(0, 0, 3), (1, 3, 3)], 4, 3, []),
    "the end is missing": ([(0, 0, 3)], 7, 3, [(1, 3, 3), (2, 6, 1)]),
    "the beginning is missing": ([(1, 3, 3)], 6, 3, [(0, 0, 3)]),
    "a gap": ([(0, 0, 3), (2, 6, 3)], 9, 3, [(1, 3, 3)]),
    "gaps everywhere": ([(1, 3, 3), (3, 9, 3)], 14, 3, [(0, 0, 3), (2, 6, 3), (4, 12, 2)]),
    "extension": ([(0, 0, 3), (1, 3, 3)], 8, 3, [(2, 6, 2)]),
    "extension behind a short last shard": ([(0, 0, 3), (1, 3, 1)], 9, 3, [(2, 4, 3), (3, 7, 2)]),
    "a short shard is missing": ([(0, 0, 3), (2, 4, 3)], 7, 3, [(1, 3, 1)]),
    "short shards are lost in front of a long one": ([(3, 3, 3)], 12, 3, [(0, 0, 3), (4, 6, 3), (5, 9, 3)]),
    "extension of a dataset with a gap": ([(0, 0, 3), (2, 6, 1)], 9, 3, [(1, 3, 3), (3, 7, 2)]),
}


@pytest.mark.parametrize("what", CASES)
def test_what_is_missing_is_planned_exactly(what: str) -> None:
    committed, episodes, episodes_per_shard, expected = CASES[what]
    assert missing_blocks([entry(block) for block in blocks(*committed)], episodes, episodes_per_shard) == blocks(*expected)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_an_interrupted_run_and_its_continuation_make_exactly_the_plan_of_an_unbroken_one(data: st.DataObject) -> None:
    episodes, episodes_per_shard = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 10))
    plan = missing_blocks([], episodes, episodes_per_shard)
    kept = data.draw(st.lists(st.booleans(), min_size=len(plan), max_size=len(plan)))
    committed = [block for block, keep in zip(plan, kept, strict=True) if keep]
    planned = missing_blocks([entry(block) for block in committed], episodes, episodes_per_shard)
    assert sorted([*committed, *planned], key=lambda block: block.shard) == plan


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    targets=st.lists(st.integers(1, 60), min_size=1, max_size=4).map(sorted),
    episodes_per_shard=st.integers(1, 10),
)
def test_after_any_history_of_extensions_and_losses_every_episode_is_there_once(
    data: st.DataObject, targets: list[int], episodes_per_shard: int
) -> None:
    committed: list[Block] = []
    for episodes in targets:
        committed += missing_blocks([entry(block) for block in committed], episodes, episodes_per_shard)
        committed = [block for block in sorted(committed, key=lambda block: block.shard) if data.draw(st.booleans())]
    planned = missing_blocks([entry(block) for block in committed], targets[-1], episodes_per_shard)
    complete = sorted([*committed, *planned], key=lambda block: block.shard)
    assert len({block.shard for block in complete}) == len(complete)
    assert [block.first + i for block in complete for i in range(block.num_episodes)] == list(range(targets[-1]))
    assert all(1 <= block.num_episodes <= episodes_per_shard for block in planned)


def test_a_block_reads_as_its_shard_and_episodes() -> None:
    assert str(Block(2, 6, 3)) == "shard 2 (episodes 6 to 8)"
