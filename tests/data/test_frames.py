"""Frames for training: what an epoch holds, that order is a function of seed and position, damage, clean ends."""

import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from itertools import islice
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers the zstd filter with HDF5)
import numpy as np
import pytest

from tests.builders import make_shard, rollout_spec
from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.data import FrameBatch, FrameStream, read_frames
from worldmodel_v.data.prefetch import prefetch
from worldmodel_v.envs.stamp import read_stamps
from worldmodel_v.errors import ShardDamaged
from worldmodel_v.storage import Dataset, DatasetWriter, Shard, open_dataset

Stamps = tuple[int, int, int, int]
"""(step, action, episode, return): enough to tell every frame of the toy dataset from every other."""


def every_episode(_: int) -> bool:
    return True


def even_episode(episode_id: int) -> bool:
    return episode_id % 2 == 0


def stamps_of(frames_NHWC: Iterable[np.ndarray]) -> list[Stamps]:
    return [read_stamps(frame) for frame in frames_NHWC]


def wanted_frames(dataset: Dataset, wanted: Callable[[int], bool]) -> list[Stamps]:
    """The stamps of every wanted frame, in the order of episodes and rows."""
    episodes = [episode for episode in range(dataset.num_episodes) if wanted(episode)]
    return [stamps for episode in episodes for stamps in stamps_of(dataset.episode(episode).pixels)]


def take(stream: FrameStream, num_batches: int) -> list[np.ndarray]:
    batches = iter(stream)
    taken = [batch.frames for batch in islice(batches, num_batches)]
    batches.close()  # type: ignore[attr-defined]
    return taken


def threads_of_streams() -> set[threading.Thread]:
    """What reads and decodes for streams; servers and Ray of other tests have threads of their own."""
    return {thread for thread in threading.enumerate() if thread.name.startswith(("prefetch", "chunks"))}


def order_of(dataset: Dataset, seed: int, num_frames: int, **options: int) -> list[Stamps]:
    """The first frames of a stream, in its order."""
    stream = FrameStream(dataset, every_episode, batch_size=num_frames, seed=seed, **options)
    return stamps_of(take(stream, 1)[0])


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy rollouts in which no two frames are alike (the seed was chosen for it): 8 episodes, 3 shards, 5 pixel chunks."""
    out = tmp_path_factory.mktemp("frames") / "rollouts"
    collect(stamp_config(out, seed=0))
    return out


@pytest.fixture(scope="module")
def dataset(rollouts: Path) -> Dataset:
    dataset = open_dataset(rollouts)
    frames = wanted_frames(dataset, every_episode)
    assert len(set(frames)) == len(frames) == dataset.num_rows
    return dataset


# What an epoch holds


@pytest.mark.parametrize("num_chunks", [1, 2, 20, 128])
@pytest.mark.parametrize("wanted", [every_episode, even_episode, lambda episode: episode == 5])
def test_each_epoch_holds_every_wanted_frame_once_and_no_other(
    dataset: Dataset, wanted: Callable[[int], bool], num_chunks: int
) -> None:
    expected = wanted_frames(dataset, wanted)
    stream = FrameStream(dataset, wanted, batch_size=7, seed=3, num_chunks=num_chunks)
    assert stream.num_frames == len(expected)
    batches = take(stream, -(-3 * len(expected) // 7))
    assert {batch.shape for batch in batches} == {(7, 64, 64, 3)}
    assert {batch.dtype for batch in batches} == {np.dtype(np.uint8)}
    found = stamps_of(np.concatenate(batches))
    for epoch in range(3):
        assert Counter(found[epoch * len(expected) : (epoch + 1) * len(expected)]) == Counter(expected)


def test_a_batch_may_be_larger_than_the_dataset(dataset: Dataset) -> None:
    expected = wanted_frames(dataset, even_episode)
    batch_size = 2 * len(expected) + 5
    (batch,) = take(FrameStream(dataset, even_episode, batch_size=batch_size, seed=0), 1)
    assert len(batch) == batch_size
    assert set(Counter(stamps_of(batch[: 2 * len(expected)])).values()) == {2}


def test_frames_come_as_they_were_recorded(dataset: Dataset) -> None:
    known = {frame.tobytes() for episode in range(8) for frame in dataset.episode(episode).pixels}
    (batch,) = take(FrameStream(dataset, every_episode, batch_size=dataset.num_rows, seed=0), 1)
    assert {frame.tobytes() for frame in batch} == known


# Order


def test_the_order_is_a_function_of_the_seed(dataset: Dataset) -> None:
    rows = dataset.num_rows
    assert order_of(dataset, 1, rows) == order_of(dataset, 1, rows)
    assert order_of(dataset, 1, rows) != order_of(dataset, 2, rows)
    assert order_of(dataset, 1, rows) != wanted_frames(dataset, every_episode)


@pytest.mark.parametrize("num_chunks", [1, 2, 20, 128])
def test_each_epoch_has_an_order_of_its_own(dataset: Dataset, num_chunks: int) -> None:
    rows = dataset.num_rows
    order = order_of(dataset, 1, 3 * rows, num_chunks=num_chunks)
    epochs = [order[epoch * rows : (epoch + 1) * rows] for epoch in range(3)]
    assert epochs[0] != epochs[1]
    assert epochs[1] != epochs[2]
    assert epochs[0] != epochs[2]


def test_the_batch_size_does_not_change_the_order(dataset: Dataset) -> None:
    rows = dataset.num_rows
    small = take(FrameStream(dataset, every_episode, batch_size=5, seed=4, num_chunks=2), rows // 5)
    assert stamps_of(np.concatenate(small)) == order_of(dataset, 4, rows, num_chunks=2)[: rows // 5 * 5]


def test_a_pool_mixes_episodes(dataset: Dataset) -> None:
    episode_stamps = [stamps[2] for stamps in order_of(dataset, 1, 16)]
    assert len(set(episode_stamps)) > 2


# Starting midway


@pytest.mark.parametrize("num_chunks", [1, 2, 20, 128])
@pytest.mark.parametrize("start", [0, 1, 5, 17, 18, 40])
def test_starting_at_a_batch_equals_skipping_those_before(dataset: Dataset, num_chunks: int, start: int) -> None:
    def batches(first: int, number: int) -> list[np.ndarray]:
        stream = FrameStream(dataset, every_episode, batch_size=10, seed=9, start=first, num_chunks=num_chunks)
        return take(stream, number)

    for skipped, started in zip(batches(0, start + 4)[start:], batches(start, 4), strict=True):
        np.testing.assert_array_equal(skipped, started)


def test_starting_on_the_seam_between_two_epochs_begins_the_second(dataset: Dataset) -> None:
    rows = dataset.num_rows
    second = order_of(dataset, 6, 2 * rows, num_chunks=2)[rows:]
    assert order_of(dataset, 6, rows, start=1, num_chunks=2) == second


def test_a_stream_can_be_iterated_again_and_twice_at_once(dataset: Dataset) -> None:
    stream = FrameStream(dataset, every_episode, batch_size=8, seed=0)
    for left, right, again in zip(islice(stream, 3), islice(stream, 3), take(stream, 3), strict=True):
        np.testing.assert_array_equal(left.frames, right.frames)
        np.testing.assert_array_equal(left.frames, again)


# Whose memory it is


@pytest.mark.parametrize("num_chunks", [1, 20])
def test_batches_that_are_kept_are_never_written_again(dataset: Dataset, num_chunks: int) -> None:
    """Two epochs held at once, in views and after a pause for the threads, against a stream that lets go of each batch."""
    number = 2 * dataset.num_rows // 6
    stream = FrameStream(dataset, every_episode, batch_size=6, seed=2, num_chunks=num_chunks)
    with closing(prefetch(iter(stream), depth=4)) as batches:
        held = [batch.frames[1:, ::2] for batch in islice(batches, number)]
    with closing(prefetch(iter(stream), depth=4)) as batches:
        for kept, batch in zip(held, islice(batches, number), strict=True):
            np.testing.assert_array_equal(kept, batch.frames[1:, ::2])


def test_batches_that_are_let_go_share_little_memory(dataset: Dataset) -> None:
    stream = FrameStream(dataset, every_episode, batch_size=6, seed=2)
    addresses = {batch.frames.__array_interface__["data"][0] for batch in islice(stream, 200)}
    assert len(addresses) <= 3


# Conditions


def stamps_in_state(shard: Shard, start: int, stop: int) -> np.ndarray:
    return shard.rows("state", start, stop)


@pytest.mark.parametrize("wanted", [every_episode, even_episode])
@pytest.mark.parametrize("num_chunks", [1, 2, 20])
def test_each_frame_comes_with_its_own_condition(dataset: Dataset, wanted: Callable[[int], bool], num_chunks: int) -> None:
    """The toy world's state is what its frames show."""
    stream = FrameStream(dataset, wanted, batch_size=9, seed=1, num_chunks=num_chunks, condition=stamps_in_state)
    for batch in islice(stream, 2 * dataset.num_rows // 9):
        assert batch.condition is not None
        assert batch.condition.dtype == np.float32
        assert batch.condition.tolist() == [list(map(float, read_stamps(frame))) for frame in batch.frames]


def test_conditions_do_not_change_the_order(dataset: Dataset) -> None:
    with_condition = FrameStream(dataset, every_episode, batch_size=30, seed=1, condition=stamps_in_state)
    without = FrameStream(dataset, every_episode, batch_size=30, seed=1)
    for left, right in zip(islice(with_condition, 5), islice(without, 5), strict=True):
        assert right.condition is None
        np.testing.assert_array_equal(left.frames, right.frames)


def test_an_error_of_a_condition_reaches_the_consumer(dataset: Dataset) -> None:
    def fails_later(shard: Shard, start: int, stop: int) -> np.ndarray:
        if stop - start > 1:
            raise RuntimeError("no such column")
        return np.zeros((stop - start, 2), np.float32)

    before = threads_of_streams()
    with pytest.raises(RuntimeError, match="no such column"):
        take(FrameStream(dataset, every_episode, batch_size=5, seed=0, condition=fails_later), 1)
    assert threads_of_streams() <= before


# read_frames


@pytest.mark.parametrize("limit", [1, 2, 10, 10_000])
@pytest.mark.parametrize("wanted", [every_episode, even_episode])
def test_read_frames_gives_evenly_spaced_frames_in_order(dataset: Dataset, wanted: Callable[[int], bool], limit: int) -> None:
    expected = wanted_frames(dataset, wanted)
    number = min(limit, len(expected))
    frames = read_frames(dataset, wanted, limit)
    assert (frames.dtype, frames.shape) == (np.uint8, (number, 64, 64, 3))
    picked = [round_down * (len(expected) - 1) // max(number - 1, 1) for round_down in range(number)]
    assert stamps_of(frames) == [expected[i] for i in picked]


# Damage


def damaged_copy(source: Path, out: Path, shard: int, chunk: int, offset: int) -> str:
    """Copy a dataset and flip one byte inside a stored pixel chunk (negative offsets count from its end); gives the shard."""
    shutil.copytree(source, out)
    path = out / "shards" / f"{shard:06d}.h5"
    with h5py.File(path) as file:
        stored = file["pixels"].id.get_chunk_info(chunk)
    content = bytearray(path.read_bytes())
    content[stored.byte_offset + offset % stored.size] ^= 0x10
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(("shard", "chunk", "offset"), [(0, 0, 0), (1, 0, 100), (1, 1, 20), (2, 0, -1)])
def test_a_damaged_chunk_is_refused_and_the_shard_named(
    rollouts: Path, tmp_path: Path, shard: int, chunk: int, offset: int
) -> None:
    path = damaged_copy(rollouts, tmp_path / "copy", shard, chunk, offset)
    dataset = open_dataset(tmp_path / "copy")
    expected = f"{path}: pixel chunk {chunk} (rows from {chunk * 64}) fails its checksum; "
    before = threads_of_streams()
    with pytest.raises(ShardDamaged) as from_stream:
        take(FrameStream(dataset, every_episode, batch_size=dataset.num_rows, seed=0, num_chunks=2), 1)
    with pytest.raises(ShardDamaged) as from_reading:
        read_frames(dataset, every_episode, dataset.num_rows)
    assert str(from_stream.value).startswith(expected)
    assert str(from_reading.value) == str(from_stream.value)
    assert threads_of_streams() <= before


def test_damage_in_a_chunk_without_wanted_frames_is_not_met(rollouts: Path, tmp_path: Path) -> None:
    damaged_copy(rollouts, tmp_path / "copy", shard=0, chunk=0, offset=0)
    dataset = open_dataset(tmp_path / "copy")
    expected = wanted_frames(dataset, lambda episode: episode == 7)
    (batch,) = take(FrameStream(dataset, lambda episode: episode == 7, batch_size=len(expected), seed=0), 1)
    assert Counter(stamps_of(batch)) == Counter(expected)


def test_damage_that_comes_later_is_met_when_the_stream_gets_there(rollouts: Path, tmp_path: Path) -> None:
    """Frames before it come as they should, whatever is read ahead; afterwards no thread is left."""
    path = damaged_copy(rollouts, tmp_path / "copy", shard=1, chunk=1, offset=40)
    order = list(islice(FrameStream(open_dataset(rollouts), every_episode, batch_size=1, seed=0, num_chunks=1), 400))
    before = threads_of_streams()
    stream = iter(FrameStream(open_dataset(tmp_path / "copy"), every_episode, batch_size=1, seed=0, num_chunks=1))
    came: list[FrameBatch] = []
    with pytest.raises(ShardDamaged, match=re.escape(f"{path}: pixel chunk 1 (rows from 64) fails its checksum; ")):
        came.extend(iter(lambda: next(stream), None))
    assert 0 < len(came) < 192
    for good, found in zip(order, came, strict=False):
        np.testing.assert_array_equal(good.frames, found.frames)
    assert threads_of_streams() <= before


def test_a_shard_that_vanishes_is_missed(rollouts: Path, tmp_path: Path) -> None:
    shutil.copytree(rollouts, tmp_path / "copy")
    stream = FrameStream(open_dataset(tmp_path / "copy"), every_episode, batch_size=4, seed=0)
    gone = tmp_path / "copy" / "shards" / "000001.h5"
    gone.unlink()
    with pytest.raises(ShardDamaged, match=re.escape(f"{gone}: the shard is missing; restore it from a copy")):
        take(stream, 1)


def test_a_shard_that_is_cut_short_while_it_is_used_is_refused(rollouts: Path, tmp_path: Path) -> None:
    shutil.copytree(rollouts, tmp_path / "copy")
    stream = FrameStream(open_dataset(tmp_path / "copy"), every_episode, batch_size=4, seed=0)
    cut = tmp_path / "copy" / "shards" / "000002.h5"
    os.truncate(cut, 3000)
    with pytest.raises(ShardDamaged, match=re.escape(f"{cut}: pixel chunk 0 (rows from 0) fails its checksum")):
        take(stream, 1)


def test_frames_of_another_size_than_the_dataset_says_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    spec = rollout_spec(frame_height=4, frame_width=4)
    refused = r"000000\.h5: pixels has rows of uint8 \[8, 8, 3\], expected uint8 \[4, 4, 3\]"
    with DatasetWriter(tmp_path / "out", spec) as writer, pytest.raises(ShardDamaged, match=refused):
        writer.commit(0, make_shard(spec=spec, size=8))
    with DatasetWriter(tmp_path / "out", spec):
        assert not any((tmp_path / "out" / "shards").iterdir())


# Ends


@pytest.mark.parametrize("num_batches", [1, 4])
@pytest.mark.parametrize("num_chunks", [1, 128])
def test_closing_the_iterator_leaves_no_thread_behind(dataset: Dataset, num_batches: int, num_chunks: int) -> None:
    before = threads_of_streams()
    batches = iter(FrameStream(dataset, every_episode, batch_size=20, seed=0, num_chunks=num_chunks))
    for _ in range(num_batches):
        next(batches)
    assert threads_of_streams() > before
    batches.close()  # type: ignore[attr-defined]
    assert threads_of_streams() <= before


def test_closing_while_many_shards_are_being_opened_is_no_error(tmp_path: Path) -> None:
    collect(stamp_config(tmp_path / "out", episodes=24, episodes_per_shard=1))
    dataset = open_dataset(tmp_path / "out")
    before = threads_of_streams()
    for seed in range(15):
        take(FrameStream(dataset, every_episode, batch_size=4, seed=seed, num_chunks=8), 1)
    assert threads_of_streams() <= before
