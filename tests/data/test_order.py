"""The order of the frames, without any pixels: once an epoch, from any position, in little memory, well mixed."""

from itertools import islice
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel_v.data.chunks import ROWS, ChunkTable
from worldmodel_v.data.order import PARTS, Stretch, stretches


def table_of(counts: list[int]) -> ChunkTable:
    """Chunks of which the first `counts` rows are wanted."""
    wanted = np.arange(ROWS) < np.array(counts)[:, None]
    nothing = np.zeros(len(counts), np.int32)
    return ChunkTable(None, (), nothing, nothing, nothing, np.packbits(wanted, axis=1), wanted.sum(axis=1))  # type: ignore[arg-type]


def frames(stream: list[Stretch], number: int) -> list[int]:
    return np.concatenate([stretch.addresses for stretch in stream])[:number].tolist()


def take(table: ChunkTable, num_frames: int, *, seed: int = 0, position: int = 0, num_chunks: int = 320) -> list[Stretch]:
    """As many stretches as hold so many frames."""
    stream, taken = stretches(table, seed, position, num_chunks), []
    while sum(len(stretch.addresses) for stretch in taken) < num_frames:
        taken.append(next(stream))
    return taken


COUNTS = st.lists(st.integers(1, ROWS), min_size=1, max_size=60)
NUM_CHUNKS = st.integers(1, 70)


@settings(max_examples=60, deadline=None)
@given(counts=COUNTS, num_chunks=NUM_CHUNKS, seed=st.integers(0, 2**63 - 1))
def test_every_frame_comes_once_in_each_epoch(counts: list[int], num_chunks: int, seed: int) -> None:
    table = table_of(counts)
    expected = [chunk * ROWS + row for chunk, count in enumerate(counts) for row in range(count)]
    order = frames(take(table, 3 * len(expected), seed=seed, num_chunks=num_chunks), 3 * len(expected))
    for epoch in range(3):
        assert sorted(order[epoch * len(expected) : (epoch + 1) * len(expected)]) == expected


@settings(max_examples=60, deadline=None)
@given(counts=COUNTS, num_chunks=NUM_CHUNKS, data=st.data())
def test_from_any_position_it_goes_on_as_from_the_start(counts: list[int], num_chunks: int, data: st.DataObject) -> None:
    table, number = table_of(counts), 2 * sum(counts)
    position = data.draw(st.integers(0, number - 1))
    whole = frames(take(table, number, num_chunks=num_chunks), number)
    rest = frames(take(table, number - position, position=position, num_chunks=num_chunks), number - position)
    assert rest == whole[position:]


@settings(max_examples=60, deadline=None)
@given(counts=COUNTS, num_chunks=NUM_CHUNKS)
def test_a_stretch_needs_no_more_chunks_than_asked_and_names_all_that_it_uses(counts: list[int], num_chunks: int) -> None:
    for stretch in take(table_of(counts), 2 * sum(counts), num_chunks=num_chunks):
        assert len(stretch.chunks) == len(set(stretch.chunks.tolist())) <= num_chunks
        assert set(stretch.addresses // ROWS) <= set(stretch.chunks.tolist())


def test_inside_an_epoch_chunks_come_and_go_a_sixteenth_at_a_time() -> None:
    table = table_of([ROWS] * 1000)
    first, *inside, last = take(table, table.num_frames, num_chunks=320)
    present, num_read = set(first.chunks.tolist()), 320
    for stretch in (*inside, last):
        coming = set(stretch.chunks.tolist()) - present
        assert len(coming) == 320 // PARTS
        present, num_read = set(stretch.chunks.tolist()), num_read + len(coming)
    assert num_read == 1000
    assert {len(stretch.addresses) for stretch in inside} == {320 * ROWS // PARTS}


def test_two_seeds_and_two_epochs_have_other_orders() -> None:
    table = table_of([ROWS] * 10)
    orders = [frames(take(table, 640, seed=seed, position=640 * epoch), 640) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize(("num_episodes", "mean", "worst"), [(40, 0.96, 0.85), (1000, 0.7, 0.58)])
def test_a_batch_holds_most_of_the_episodes_that_uniform_sampling_would(num_episodes: int, mean: float, worst: float) -> None:
    """Episodes of 640 frames, batches of 256; uniform sampling's expectation is E (1 - (1 - 1/E)^256)."""
    table = table_of([ROWS] * (10 * num_episodes))
    batches = np.array(frames(take(table, table.num_frames), table.num_frames)).reshape(-1, 256) // ROWS // 10
    expected = num_episodes * (1 - (1 - 1 / num_episodes) ** 256)
    found = np.array([len(np.unique(batch)) for batch in batches]) / expected
    assert found.mean() > mean
    assert found.min() > worst


def test_a_position_far_on_costs_no_replay() -> None:
    """The first stretch from a position deep in a later epoch takes down the addresses of the chunks that it needs only."""
    table = table_of([ROWS] * 2000)
    asked: list[int] = []
    real = ChunkTable.addresses

    def addresses(self: ChunkTable, chunks: np.ndarray) -> np.ndarray:
        asked.append(len(chunks))
        return real(self, chunks)

    with patch.object(ChunkTable, "addresses", addresses):
        list(islice(stretches(table, 0, 100 * table.num_frames + 60_000, 320), 1))
    assert sum(asked) == 320
