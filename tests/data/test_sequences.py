"""Windows of latents: exact alignment from the environment to the MDN-RNN, sampling, splits, refusals, DataLoader.

Legend: B windows, L window length, Z latent.
"""

import math
import pickle
import re
import shutil
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.builders import make_latents
from tests.data.made_latents import assert_same_windows, expected_windows, write_latents
from worldmodel_v.data import LatentSequences, LatentStream
from worldmodel_v.envs.stamp import action_stamp
from worldmodel_v.errors import ConfigError, DatasetNotUsable, ShardDamaged
from worldmodel_v.storage import DatasetWriter, build_shard, open_dataset
from worldmodel_v.storage.dataset import read_spec

EPISODES = range(8)
LENGTH = 6
HELD_OUT = {"train": [0, 1, 2, 4, 5, 6], "held-out": [3, 7]}
"""The episodes of each split with every fourth held out."""


def all_windows(data: LatentSequences) -> dict[str, np.ndarray]:
    return {name: column.numpy() for name, column in data.batch(np.arange(len(data))).items()}


# Alignment


@pytest.mark.parametrize("length", [1, 6, 20])
def test_the_windows_are_exactly_those_inside_one_episode(stamp_latents: Path, length: int) -> None:
    data = LatentSequences(stamp_latents, length=length, sample=False)
    steps = [open_dataset(stamp_latents).episode(episode).num_steps for episode in EPISODES]
    assert len(data) == sum(max(0, count - length + 1) for count in steps)
    assert_same_windows(all_windows(data), expected_windows(stamp_latents, EPISODES, length))


def test_every_window_holds_consecutive_steps_of_one_rollout_episode(stamp_latents: Path, stamp_rollouts: Path) -> None:
    data = LatentSequences(stamp_latents, length=LENGTH, sample=False)
    rollouts, latents = open_dataset(stamp_rollouts), open_dataset(stamp_latents)
    index = 0
    for episode_id in EPISODES:
        frames, encoded = rollouts.episode(episode_id), latents.episode(episode_id)
        names = frames.state_names
        step, came_from = (frames.state[:, names.index(name)] for name in ("step", "action_stamp"))
        np.testing.assert_array_equal(step, np.arange(frames.num_rows))
        for first in range(frames.num_steps - LENGTH + 1):
            window = data[index]
            stamps = [action_stamp(action) for action in window["action"].numpy()]
            assert stamps == came_from[first + 1 : first + 1 + LENGTH].tolist()
            assert (window["reward"].numpy() - stamps).tolist() == step[first : first + LENGTH].tolist()
            np.testing.assert_array_equal(window["action"], frames.action[first : first + LENGTH])
            np.testing.assert_array_equal(window["z"], encoded.mu[first : first + LENGTH])
            np.testing.assert_array_equal(window["next_z"], encoded.mu[first + 1 : first + 1 + LENGTH])
            index += 1
    assert index == len(data)


def test_the_last_transition_of_every_episode_is_there_and_no_window_reaches_past_it(stamp_latents: Path) -> None:
    windows = all_windows(LatentSequences(stamp_latents, length=LENGTH, sample=False))
    last = np.flatnonzero(windows["terminated"][:, -1])
    final_latents = [open_dataset(stamp_latents).episode(episode).mu[-1] for episode in EPISODES]
    np.testing.assert_array_equal(windows["next_z"][last, -1], np.stack(final_latents))
    assert not windows["terminated"][:, :-1].any()
    assert np.isfinite(windows["action"]).all()
    assert np.isfinite(windows["reward"]).all()


def test_an_episode_as_long_as_the_window_holds_exactly_one_and_shorter_ones_are_counted(tmp_path: Path) -> None:
    write_latents(tmp_path / "latents", [4, 5, 6, 1])
    data = LatentSequences(tmp_path / "latents", length=5, sample=False)
    assert (len(data), data.num_short_episodes) == (3, 2)
    assert all_windows(data)["z"][:, 0, 0].tolist() == [100, 200, 201]


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 5, 9, 50])
@pytest.mark.parametrize("length", [1, 5, 21, 22])
def test_strided_and_padded_windows_are_those_cut_by_hand(stamp_latents: Path, length: int, stride: int, pad: bool) -> None:
    """Lengths of the toy episodes are 20 to 23, so the longer windows meet episodes that end before them."""
    data = LatentSequences(stamp_latents, length=length, stride=stride, pad=pad, sample=False)
    assert_same_windows(all_windows(data), expected_windows(stamp_latents, EPISODES, length, stride=stride, pad=pad))


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("sample", [False, True])
def test_beyond_an_episodes_end_all_is_zero_and_never_nan(tmp_path: Path, sample: bool, discrete: bool) -> None:
    data = LatentSequences(write_latents(tmp_path / "latents", [2, 3, 4], discrete=discrete), length=3, pad=True, sample=sample)
    batch = data.batch(np.arange(len(data)))
    assert batch["mask"].tolist() == [[True, True, False], [True] * 3, [True] * 3, [True] * 3]
    assert batch["is_first"].tolist() == [[True, False, False], [True, False, False], [True, False, False], [False] * 3]
    assert batch["truncated"].tolist() == [[False] * 3, [False, False, True], [False] * 3, [False] * 3]
    assert batch["terminated"].tolist() == [[False, True, False], [False] * 3, [False] * 3, [False, False, True]]
    for name, column in batch.items():
        assert not column[0, 2].any(), name
        assert torch.isfinite(column).all(), name
    if not sample:
        assert batch["next_z"][:, :, 0].tolist() == [[1, 2, 0], [101, 102, 103], [201, 202, 203], [202, 203, 204]]


def test_with_pad_no_episode_is_too_short(tmp_path: Path) -> None:
    data = LatentSequences(write_latents(tmp_path / "latents", [4, 5, 6, 1]), length=5, pad=True, sample=False)
    assert (len(data), data.num_short_episodes) == (5, 0)
    assert all_windows(data)["mask"].sum(axis=1).tolist() == [4, 5, 5, 5, 1]


@pytest.mark.parametrize("windows", [LatentSequences, LatentStream])
def test_what_is_no_dataset_or_no_truth_value_is_refused(windows: Any, stamp_latents: Path) -> None:
    with pytest.raises(ConfigError, match=r"sample: expected True or False, got 'no'"):
        windows(stamp_latents, length=2, sample="no")
    message = r"expected the path or URL of a dataset, got \[.*\]; make one of several with wm-select"
    with pytest.raises(ConfigError, match=message):
        windows([stamp_latents, stamp_latents], length=2)


def test_windows_that_fill_the_memory_are_refused(stamp_latents: Path) -> None:
    pattern = r"windows of 1,000,000,000,000 transitions; expected at most [\d,]+ rows .*; ask for windows of at most \d+, "
    for windows in (LatentSequences, LatentStream):
        with pytest.raises(DatasetNotUsable, match=pattern):
            next(windows(stamp_latents, length=10**12, pad=True).batches(2))


def test_a_whole_episode_is_one_item_and_a_batch_as_long_as_its_longest(stamp_latents: Path) -> None:
    data = LatentSequences(stamp_latents, length=None, sample=False)
    records = [open_dataset(stamp_latents).episode(episode) for episode in EPISODES]
    steps = [record.num_steps for record in records]
    assert (len(data), data.length) == (len(records), max(steps))
    for index, count in enumerate(steps):
        expected = expected_windows(stamp_latents, [index], count)
        assert_same_windows({name: column.numpy()[None] for name, column in data[index].items()}, expected)
    shortest, second = np.argsort(steps)[:2]
    batch = data.batch(np.array([shortest, second]))
    expected = expected_windows(stamp_latents, [shortest, second], steps[second], pad=True)
    assert_same_windows({name: column.numpy() for name, column in batch.items()}, expected)
    np.testing.assert_array_equal(batch["mask"].sum(dim=1), [steps[shortest], steps[second]])


@pytest.mark.parametrize("settings", [{"length": None}, {"length": 9, "stride": 9, "pad": True}, {"length": 30, "pad": True}])
def test_in_these_ways_every_transition_comes_once_an_epoch(stamp_latents: Path, settings: dict[str, object]) -> None:
    data = LatentSequences(stamp_latents, sample=False, **settings)
    records = [open_dataset(stamp_latents).episode(episode) for episode in EPISODES]
    batches = list(data.batches(3))
    came = [z.tobytes() for batch in batches for z in batch["z"][batch["mask"]].numpy()]
    assert sorted(came) == sorted(mu.tobytes() for record in records for mu in record.mu[:-1])
    assert sum(int(batch["is_first"].sum()) for batch in batches) == len(records)
    assert sum(int((batch["terminated"] | batch["truncated"]).sum()) for batch in batches) == len(records)
    assert data.sample_batch(5)["mask"][:, 0].tolist() == [True] * 5


def test_whole_episodes_come_through_a_data_loader(stamp_latents: Path) -> None:
    data = LatentSequences(stamp_latents, length=None, sample=False)
    for first, batch in zip(range(0, 8, 3), DataLoader(data, batch_size=3), strict=True):
        expected = data.batch(np.arange(first, min(first + 3, 8)))
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[name], expected[name]) for name in batch)


@pytest.mark.parametrize("kind", [LatentSequences, LatentStream])
def test_a_reward_that_nobody_recorded_is_left_out(kind: Any, tmp_path: Path) -> None:
    path = write_latents(tmp_path / "latents", [4, 2], has_reward=False)
    batch = next(kind(path, length=3, pad=True, sample=False).batches(3))
    assert "reward" not in batch
    assert all(bool(column.isfinite().all()) for column in batch.values())
    assert batch["action"][batch["mask"]].sum() == sum([0, 1, 2, 3, 0, 1]) + sum([1, 2])


def test_discrete_actions_come_as_whole_numbers(tmp_path: Path) -> None:
    write_latents(tmp_path / "latents", [4, 3], discrete=True)
    data = LatentSequences(tmp_path / "latents", length=2)
    assert data.action_space.num_actions == 10**6
    window = data.batch(np.arange(len(data)))
    assert window["action"].dtype == torch.int64
    assert window["action"].tolist() == [[0, 1], [1, 2], [2, 3], [0, 1], [1, 2]]


# Items and batches


def test_the_sizes_and_items_are_those_of_the_dataset(stamp_latents: Path) -> None:
    data = LatentSequences(str(stamp_latents), length=LENGTH, sample=False)
    assert (data.schema["mu"].row_shape, data.action_space.vector_size) == ((8,), 2)
    batch = data.batch(np.array([0, len(data) - 1]))
    for index, row in ((0, 0), (-1, 1), (len(data) - 1, 1), (-len(data), 0)):
        for name, column in data[index].items():
            assert torch.equal(column, batch[name][row])
    for index in (len(data), -len(data) - 1):
        with pytest.raises(IndexError, match=f"window {index} of {len(data)}"):
            data[index]


def test_a_sampled_batch_has_the_documented_shapes_and_dtypes(stamp_latents: Path) -> None:
    batch = LatentSequences(stamp_latents, length=LENGTH).sample_batch(5)
    assert {name: (column.dtype, tuple(column.shape)) for name, column in batch.items()} == {
        "z": (torch.float32, (5, LENGTH, 8)),
        "next_z": (torch.float32, (5, LENGTH, 8)),
        "action": (torch.float32, (5, LENGTH, 2)),
        "reward": (torch.float32, (5, LENGTH)),
        **dict.fromkeys(("terminated", "truncated", "mask", "is_first"), (torch.bool, (5, LENGTH))),
    }


def test_a_sampled_batch_holds_whole_windows_of_the_dataset_and_in_time_all_of_them(stamp_latents: Path) -> None:
    data = LatentSequences(stamp_latents, length=LENGTH, sample=False)
    known = {row.tobytes(): index for index, row in enumerate(all_windows(data)["z"])}
    assert len(known) == len(data)
    drawn = data.sample_batch(4000)
    indices = np.array([known[row.tobytes()] for row in drawn["z"].numpy()])
    assert set(indices.tolist()) == set(range(len(data)))
    for name, column in data.batch(indices).items():
        assert torch.equal(column, drawn[name]), name


# Sampling


def test_latents_are_mu_plus_sigma_times_standard_normal_noise(tmp_path: Path) -> None:
    write_latents(tmp_path / "latents", [12, 9])
    data = LatentSequences(tmp_path / "latents", length=LENGTH)
    mu = expected_windows(tmp_path / "latents", range(2), LENGTH)["z"]
    draws = np.stack([data.batch(np.arange(len(data)))["z"].numpy() for _ in range(2000)])
    noise = (draws - mu) / np.exp(0.5 * np.array([-6.0, 0.0, 2.0]))
    per_latent = noise.reshape(-1, 3)
    five_standard_errors = 5 / math.sqrt(len(per_latent))
    np.testing.assert_allclose(per_latent.mean(axis=0), 0, atol=five_standard_errors)
    np.testing.assert_allclose(per_latent.std(axis=0), 1, atol=five_standard_errors)
    np.testing.assert_allclose(np.corrcoef(per_latent.T), np.eye(3), atol=five_standard_errors)


def test_the_same_generator_gives_the_posterior_sample_exactly(stamp_latents: Path) -> None:
    data = LatentSequences(stamp_latents, length=LENGTH)
    episode = open_dataset(stamp_latents).episode(0)
    mu, logvar = (torch.from_numpy(column[: LENGTH + 1]) for column in (episode.mu, episode.logvar))
    noise = torch.randn((1, *mu.shape), generator=torch.Generator().manual_seed(3))[0]
    drawn = data.batch(np.array([0]), torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn["z"][0], (mu + torch.exp(0.5 * logvar) * noise)[:-1])
    torch.testing.assert_close(drawn["next_z"][0], (mu + torch.exp(0.5 * logvar) * noise)[1:])


@pytest.mark.parametrize("sample", [False, True])
def test_a_latent_and_its_predecessors_successor_are_the_same_draw(stamp_latents: Path, sample: bool) -> None:
    batch = LatentSequences(stamp_latents, length=LENGTH, sample=sample).sample_batch(16)
    assert torch.equal(batch["z"][:, 1:], batch["next_z"][:, :-1])


def test_every_visit_draws_anew_and_the_seed_determines_all_draws(stamp_latents: Path) -> None:
    def draws(seed: int) -> list[torch.Tensor]:
        data = LatentSequences(stamp_latents, length=LENGTH, seed=seed)
        return [data[0]["z"], data[0]["z"], data.sample_batch(3)["z"], data.batch(np.array([0]))["z"][0]]

    first, second, other = draws(1), draws(1), draws(2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[3])


def test_without_sampling_every_visit_gives_mu(stamp_latents: Path) -> None:
    data = LatentSequences(stamp_latents, length=LENGTH, sample=False)
    mu = open_dataset(stamp_latents).episode(0).mu
    for _ in range(2):
        np.testing.assert_array_equal(data[0]["z"], mu[:LENGTH])


def test_latents_stored_in_half_precision_come_out_in_single(tmp_path: Path) -> None:
    write_latents(tmp_path / "latents", [4], dtype="float16")
    for sample in (False, True):
        window = LatentSequences(tmp_path / "latents", length=2, sample=sample)[0]
        assert (window["z"].dtype, window["next_z"].dtype) == (torch.float32, torch.float32)
    assert LatentSequences(tmp_path / "latents", length=2, sample=False)[1]["z"][:, 0].tolist() == [1.0, 2.0]


# Epochs


def test_an_epoch_holds_every_window_once_and_shuffled(stamp_latents: Path) -> None:
    data = LatentSequences(stamp_latents, length=LENGTH, sample=False)
    batches = list(data.batches(10))
    assert [len(batch["z"]) for batch in batches] == [10] * (len(data) // 10) + [len(data) % 10]
    found = {name: torch.cat([batch[name] for batch in batches]).numpy() for name in batches[0]}
    known = {row.tobytes(): index for index, row in enumerate(all_windows(data)["z"])}
    order = [known[row.tobytes()] for row in found["z"]]
    assert sorted(order) == list(range(len(data)))
    assert np.mean(np.diff(order) == 1) < 0.1
    assert_same_windows(found, {name: column[order] for name, column in all_windows(data).items()})


def test_the_seed_and_the_epoch_determine_order_and_draws(stamp_latents: Path) -> None:
    def epoch(seed: int, number: int) -> list[bytes]:
        data = LatentSequences(stamp_latents, length=LENGTH, seed=seed)
        return [window.numpy().tobytes() for batch in data.batches(10, epoch=number) for window in batch["z"]]

    first = epoch(1, 0)
    assert first == epoch(1, 0)
    assert not set(first) & {*epoch(1, 1), *epoch(2, 0)}


def test_an_epoch_does_not_depend_on_what_was_drawn_before(stamp_latents: Path) -> None:
    data = LatentSequences(stamp_latents, length=LENGTH)
    first = next(iter(data.batches(4)))["z"]
    data.sample_batch(3)
    assert torch.equal(next(iter(data.batches(4)))["z"], first)


# Splits


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_a_split_holds_the_windows_of_its_episodes(stamp_latents: Path, split: str) -> None:
    data = LatentSequences(stamp_latents, length=LENGTH, sample=False, split=split, holdout_every=4)
    assert_same_windows(all_windows(data), expected_windows(stamp_latents, HELD_OUT[split], LENGTH))


def test_the_splits_are_disjoint_and_complete(stamp_latents: Path) -> None:
    def windows(split: str) -> list[bytes]:
        data = LatentSequences(stamp_latents, length=LENGTH, sample=False, split=split, holdout_every=4)
        return [row.tobytes() for row in all_windows(data)["z"]]

    train, heldout, everything = windows("train"), windows("held-out"), windows("all")
    assert len(set(everything)) == len(everything)
    assert not set(train) & set(heldout)
    assert sorted(train + heldout) == sorted(everything)


# Refusals


@pytest.mark.parametrize(("split", "episodes"), [("held-out", [3, 7]), ("train", [0, 1, 2, 4, 5, 6])])
def test_a_window_longer_than_every_episode_is_refused(stamp_latents: Path, split: str, episodes: list[int]) -> None:
    longest = max(open_dataset(stamp_latents).episode(episode).num_steps for episode in episodes)
    assert len(LatentSequences(stamp_latents, length=longest, split=split, holdout_every=4)) >= 1
    with pytest.raises(DatasetNotUsable) as caught:
        LatentSequences(stamp_latents, length=longest + 1, split=split, holdout_every=4)
    assert str(caught.value) == (
        f"{stamp_latents}: no episode ({split}) has {longest + 1} actions (the longest has {longest}); "
        "ask for a shorter window, set pad, or collect longer episodes"
    )


def test_a_split_without_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotUsable, match="no episode is in the split 'held-out'"):
        LatentSequences(write_latents(tmp_path / "made", [3] * 8), length=1, split="held-out", holdout_every=9)


def test_an_unknown_split_is_refused(stamp_latents: Path) -> None:
    with pytest.raises(ConfigError, match=r"^split: expected one of all, train, held-out, got 'test'$"):
        LatentSequences(stamp_latents, length=LENGTH, split="test")


@pytest.mark.parametrize("length", [0, -1])
def test_a_window_without_a_transition_is_refused(stamp_latents: Path, length: int) -> None:
    with pytest.raises(ConfigError, match=f"^length={length}: a window needs at least one transition$"):
        LatentSequences(stamp_latents, length=length)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride": 0}, "stride: expected at least 1, got 0"),
        ({"holdout_every": 1}, "holdout_every: expected at least 2, got 1"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"length": None, "pad": True}, "length None means whole episodes, which have no stride and no pad: leave both out"),
        ({"length": None, "stride": 2}, "length None means whole episodes, which have no stride and no pad: leave both out"),
    ],
)
def test_settings_that_make_no_sense_are_refused(stamp_latents: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        LatentSequences(stamp_latents, **{"length": LENGTH, **settings})


def test_batches_that_make_no_sense_are_refused_before_they_are_made(stamp_latents: Path) -> None:
    data = LatentSequences(stamp_latents, length=LENGTH)
    for ask in (data.batches, data.sample_batch):
        with pytest.raises(ConfigError, match=r"^batch_size: expected at least 1, got 0$"):
            ask(0)
    with pytest.raises(ConfigError, match=r"^epoch: expected at least 0, got -1$"):
        data.batches(4, epoch=-1)


def test_a_batch_names_the_window_that_is_not_there(stamp_latents: Path) -> None:
    data = LatentSequences(stamp_latents, length=LENGTH)
    with pytest.raises(IndexError, match=f"^window {len(data)} of {len(data)}$"):
        data.batch(np.array([0, len(data), 1]))


def test_only_whole_numbers_are_numbers_of_windows(stamp_latents: Path) -> None:
    """A mask would be taken for the windows 0 and 1. Numbers of NumPy are whole, too."""
    data = LatentSequences(stamp_latents, length=np.int64(LENGTH), stride=np.int32(2), seed=np.uint8(3))
    for wrong in (np.ones(len(data), np.bool_), np.array([0.0]), np.array([[0, 1]])):
        with pytest.raises(TypeError, match=r"^numbers of windows: expected whole numbers \(B,\), got "):
            data.batch(wrong)
    for index in (slice(0, 2), 1.0, [0, 1]):
        with pytest.raises(TypeError):
            data[index]
    assert torch.equal(data.batch(np.array([1], np.uint64))["action"][0], data[np.int64(1)]["action"])
    assert len(data.batch([])["mask"]) == 0
    for settings in ({"length": 4.0}, {"length": 4, "stride": "2"}, {"length": 4, "seed": 1.5}):
        with pytest.raises(ConfigError, match="expected a whole number, got"):
            LatentSequences(stamp_latents, **settings)


def test_rollouts_are_refused(stamp_rollouts: Path) -> None:
    expected = f"{stamp_rollouts}: expected a dataset of worldmodel_v/latents (made by wm-encode)"
    with pytest.raises(DatasetNotUsable, match=re.escape(expected)):
        LatentSequences(stamp_rollouts, length=LENGTH)


def test_a_shard_that_does_not_fit_to_the_others_is_never_committed(tmp_path: Path) -> None:
    path = write_latents(tmp_path / "latents", [9])
    other = make_latents(1, 9, latent_dim=4)
    refused = r"shards/000001\.h5: mu has rows of float32 \[4\], expected float32 \[3\]"
    with DatasetWriter(path, read_spec(path)) as writer, pytest.raises(ShardDamaged, match=refused):
        writer.commit(1, build_shard([other], spec_hash=writer.spec.hash))
    assert open_dataset(path).num_episodes == 1


# Other processes


def test_a_pickled_copy_starts_its_own_draws_from_the_seed(stamp_latents: Path) -> None:
    data = LatentSequences(stamp_latents, length=LENGTH, seed=5)
    first = data[0]["z"]
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[0]["z"], first)
    assert not torch.equal(data[0]["z"], first)


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_data_loader_with_two_workers_gives_the_same_windows_and_other_noise(stamp_latents: Path, context: str) -> None:
    data = LatentSequences(stamp_latents, length=LENGTH)
    data.sample_batch(1)
    order = [0, 1, 0, 1, len(data) - 2, len(data) - 1]
    loader = DataLoader(data, batch_size=2, sampler=order, num_workers=2, multiprocessing_context=context, timeout=120)
    batches = list(loader)
    expected = data.batch(np.array(order))
    for name in data[0].keys() - {"z", "next_z"}:
        assert torch.equal(torch.cat([batch[name] for batch in batches]), expected[name])
    from_first_worker, from_second_worker, again_from_first = (batch["z"] for batch in batches)
    assert from_first_worker.shape == (2, LENGTH, 8)
    assert not torch.equal(from_first_worker, from_second_worker)
    assert torch.equal(again_from_first[:, 1:], batches[2]["next_z"][:, :-1])


def test_a_spawned_process_shares_the_rows_and_is_sent_none(tmp_path: Path) -> None:
    data = LatentSequences(write_latents(tmp_path / "latents", [9000] * 3), length=LENGTH)
    assert len(pickle.dumps(data)) > 500_000
    assert len(ForkingPickler.dumps(data)) < 10_000


@pytest.mark.parametrize("column", ["mu", "logvar", "action", "reward"])
def test_nan_where_data_should_be_is_refused(stamp_latents: Path, tmp_path: Path, column: str) -> None:
    path = Path(shutil.copytree(stamp_latents, tmp_path / "latents"))
    shard, index = path / "shards" / "000001.h5", path / "index.jsonl"
    num_bytes = shard.stat().st_size
    with h5py.File(shard, "r+") as file:
        file[column][3] = np.nan
    index.write_text(index.read_text().replace(f'"bytes": {num_bytes}', f'"bytes": {shard.stat().st_size}'))
    with pytest.raises(
        ShardDamaged, match=rf"000001.h5: {column} is NaN or infinite where data should be; restore it, or encode"
    ):
        LatentSequences(path, length=4)
