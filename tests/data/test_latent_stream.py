"""Windows from disk: the same windows as from memory, each once an epoch, in bounded memory, also in a DataLoader's workers.

Sections are made small here (`small_sections`), so that a dataset of a few hundred rows has many of them and the pool is
filled again and again.
"""

import pickle
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.data.made_latents import assert_same_windows, expected_windows, write_latents
from worldmodel_v.data import LatentSequences, LatentStream, latent_stream, sections
from worldmodel_v.data.sections import find_sections
from worldmodel_v.data.windows import WindowSettings, find_windows
from worldmodel_v.envs.stamp import action_stamp
from worldmodel_v.errors import ConfigError, DatasetNotUsable, ShardDamaged
from worldmodel_v.storage import open_dataset

LENGTH = 6
STEPS = [31, 4, 17, 6, 40, 5, 23, 8, 90, 12, 7, 33]


@pytest.fixture
def small_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections of about 8 rows, and a pool of 16 and one of them."""
    monkeypatch.setattr(sections, "SECTION_ROWS", 8)
    monkeypatch.setattr(latent_stream, "POOL_BYTES", 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up latents of 12 episodes in 4 shards, read-only; every mu says its episode and row."""
    return write_latents(tmp_path_factory.mktemp("made") / "latents", STEPS, per_shard=3)


def joined(batches: list[dict[str, torch.Tensor]]) -> dict[str, np.ndarray]:
    return {name: torch.cat([batch[name] for batch in batches]).numpy() for name in batches[0]}


def sorted_windows(windows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Windows in the order of their first latent, which for made-up latents without noise is that of the dataset."""
    order = np.argsort(windows["z"][:, 0, 0], kind="stable")
    return {name: column[order] for name, column in windows.items()}


def means(windows: dict[str, np.ndarray]) -> np.ndarray:
    """(B, L): mu of the made-up latents that noisy windows were drawn from; the first latent is at most half a row off."""
    row = windows["action"][:, :, 0]
    return 100 * np.round((windows["z"][:, :, 0] - row) / 100) + row


# The same windows


@pytest.mark.usefixtures("small_sections")
@pytest.mark.parametrize(("stride", "pad"), [(1, False), (3, False), (1, True), (4, True), (11, True)])
@pytest.mark.parametrize("length", [1, LENGTH, 25])
def test_an_epoch_is_exactly_the_windows_cut_by_hand(made: Path, length: int, stride: int, pad: bool) -> None:
    stream = LatentStream(made, length=length, stride=stride, pad=pad, sample=False)
    expected = expected_windows(made, range(len(STEPS)), length, stride=stride, pad=pad)
    found = joined(list(stream.batches(7)))
    assert stream.num_windows == len(expected["z"]) == len(found["z"])
    assert_same_windows(sorted_windows(found), expected)


@pytest.mark.usefixtures("small_sections")
@pytest.mark.parametrize("split", ["train", "held-out"])
def test_a_split_holds_the_windows_of_its_episodes(made: Path, split: str) -> None:
    stream = LatentStream(made, length=LENGTH, sample=False, split=split, holdout_every=4)
    episodes = [episode for episode in range(12) if (episode % 4 == 3) == (split == "held-out")]
    assert_same_windows(sorted_windows(joined(list(stream.batches(5)))), expected_windows(made, episodes, LENGTH))


@pytest.mark.usefixtures("small_sections")
def test_actions_and_rewards_stand_beside_the_latent_they_belong_to(stamp_latents: Path, stamp_rollouts: Path) -> None:
    """By the toy world's stamps: which step each row is, and which action led to it."""
    rollouts, latents = open_dataset(stamp_rollouts), open_dataset(stamp_latents)
    rows = {}
    for episode_id in range(8):
        frames, encoded = rollouts.episode(episode_id), latents.episode(episode_id)
        step, came_from = (frames.state[:, frames.state_names.index(name)] for name in ("step", "action_stamp"))
        rows |= {mu.tobytes(): stamps for mu, *stamps in zip(encoded.mu, step, came_from, strict=True)}
    count = 0
    for batch in LatentStream(stamp_latents, length=LENGTH, sample=False).batches(16):
        for window in range(len(batch["z"])):
            z, next_z = (batch[name][window].numpy() for name in ("z", "next_z"))
            for t in range(LENGTH):
                stamp = action_stamp(batch["action"][window, t].numpy())
                (step, _), (next_step, came_from) = rows[z[t].tobytes()], rows[next_z[t].tobytes()]
                assert (next_step, came_from, float(batch["reward"][window, t])) == (step + 1, stamp, stamp + step)
                assert bool(batch["is_first"][window, t]) == (step == 0)
            count += 1
    assert count == len(LatentSequences(stamp_latents, length=LENGTH))


def test_discrete_actions_and_half_precision_come_as_from_memory(tmp_path: Path) -> None:
    path = write_latents(tmp_path / "latents", [9, 12], discrete=True, dtype="float16")
    stream = LatentStream(path, length=LENGTH, sample=False)
    assert (stream.schema["mu"].row_shape, stream.action_space.kind, stream.num_short_episodes) == ((3,), "discrete", 0)
    everything = LatentSequences(path, length=LENGTH, sample=False)
    expected = {name: column.numpy() for name, column in everything.batch(np.arange(len(everything))).items()}
    assert_same_windows(sorted_windows(joined(list(stream.batches(4)))), expected)


# Order and memory


@pytest.mark.usefixtures("small_sections")
def test_sections_hold_every_window_once_and_all_of_its_rows(made: Path) -> None:
    windows = find_windows(made, WindowSettings(length=LENGTH, stride=1, pad=True, split="train", holdout_every=4))
    table = find_sections(windows)
    assert len(table.counts) > 20
    np.testing.assert_array_equal(table.addresses(np.arange(len(table.counts))), np.arange(len(windows)))
    for section in range(len(table.counts)):
        places = windows.places(table.addresses(np.array([section])))
        first = windows.offsets[places.episode] + places.t
        assert (windows.shards[places.episode] == table.shards[section]).all()
        assert (first.min(), (first + places.num_steps).max() + 1) == (table.starts[section], table.stops[section])
    assert table.place_rows <= 8 + LENGTH


@pytest.mark.usefixtures("small_sections")
def test_batches_mix_the_pool_and_all_but_the_last_are_full(made: Path) -> None:
    batches = list(LatentStream(made, length=LENGTH, sample=False).batches(16))
    assert [len(batch["z"]) for batch in batches[:-1]] == [16] * (len(batches) - 1)
    num_episodes = [len({int(z) // 100 for z in batch["z"][:, 0, 0]}) for batch in batches[:-1]]
    assert np.mean(num_episodes) > 4


@pytest.mark.usefixtures("small_sections")
def test_the_seed_and_the_epoch_determine_order_and_draws(made: Path) -> None:
    def epoch(seed: int, number: int) -> torch.Tensor:
        return torch.cat([batch["z"] for batch in LatentStream(made, length=LENGTH, seed=seed).batches(10, epoch=number)])

    first = epoch(1, 0)
    assert torch.equal(first, epoch(1, 0))
    assert first.shape == epoch(1, 1).shape == epoch(2, 0).shape
    for other in (epoch(1, 1), epoch(2, 0)):
        assert not torch.isclose(other, first).all(dim=-1).any()
        assert not torch.equal(other.round(), first.round())


@pytest.mark.usefixtures("small_sections")
def test_latents_are_drawn_from_the_posterior(made: Path) -> None:
    noise = []
    for epoch in range(20):
        drawn = joined(list(LatentStream(made, length=1).batches(64, epoch)))
        noise.append((drawn["z"] - means(drawn)[:, :, None]) / np.exp(0.5 * np.array([-6.0, 0.0, 2.0])))
    per_latent = np.concatenate(noise).reshape(-1, 3)
    five_standard_errors = 5 / np.sqrt(len(per_latent))
    np.testing.assert_allclose(per_latent.mean(axis=0), 0, atol=five_standard_errors)
    np.testing.assert_allclose(per_latent.std(axis=0), 1, atol=five_standard_errors)


@pytest.mark.usefixtures("small_sections")
def test_the_pool_has_room_for_17_sections_and_no_more(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_pools = []
    real = sections.SectionPool.__init__

    def watched(pool: sections.SectionPool, table: sections.SectionTable, num_places: int) -> None:
        made_pools.append(num_places)
        real(pool, table, num_places)

    monkeypatch.setattr(sections.SectionPool, "__init__", watched)
    stream = LatentStream(made, length=LENGTH)
    assert len(list(stream.batches(50))) == -(-stream.num_windows // 50)
    assert made_pools == [17]


# DataLoader and other processes


def test_each_pass_over_its_items_is_another_epoch(made: Path) -> None:
    stream = LatentStream(made, length=LENGTH, seed=3)
    first, second = (torch.stack([item["z"] for item in stream]) for _ in range(2))
    assert len(first) == len(second) == stream.num_windows
    assert not torch.equal(first, second)
    again = torch.stack([item["z"] for item in LatentStream(made, length=LENGTH, seed=3)])
    assert torch.equal(first, again)


@pytest.mark.usefixtures("small_sections")
@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_workers_of_a_data_loader_share_an_epoch_and_draw_apart(made: Path, context: str) -> None:
    stream = LatentStream(made, length=LENGTH)
    list(stream.batches(64))  # threads and files have been used here before
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(stream, batch_size=8, num_workers=2, multiprocessing_context=context, generator=generator, timeout=120)
    first, second = list(loader), list(loader)
    expected = expected_windows(made, range(len(STEPS)), LENGTH)["z"]
    for batches in (first, second):
        assert sorted(means(joined(batches)).tolist()) == sorted(expected[:, :, 0].tolist())
    from_first_worker, from_second_worker, in_second_epoch = (
        batch["z"].numpy() - means({name: column.numpy() for name, column in batch.items()})[:, :, None]
        for batch in (first[0], first[1], second[0])
    )
    assert not np.isclose(from_first_worker, from_second_worker, atol=1e-3).all(axis=-1).any()
    assert not np.isclose(from_first_worker, in_second_epoch, atol=1e-3).all(axis=-1).any()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create 5 worker processes:UserWarning")
def test_more_workers_than_sections_come_to_the_same(made: Path) -> None:
    stream = LatentStream(made, length=LENGTH, sample=False)
    found = joined(list(DataLoader(stream, batch_size=100, num_workers=5, multiprocessing_context="fork", timeout=120)))
    assert_same_windows(sorted_windows(found), expected_windows(made, range(len(STEPS)), LENGTH))


def test_a_stream_is_sent_without_rows_or_files(made: Path) -> None:
    stream = LatentStream(made, length=LENGTH)
    next(iter(stream))
    assert len(pickle.dumps(stream)) < 10_000


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "length=0: a window needs at least one transition"),
        ({"stride": 0}, "stride: expected at least 1, got 0"),
        ({"seed": -2}, "seed: expected at least 0, got -2"),
        ({"holdout_every": 0}, "holdout_every: expected at least 2, got 0"),
        ({"split": "test"}, "split: expected one of all, train, held-out, got 'test'"),
        ({"length": None}, "length: windows from disk need one; LatentSequences has whole episodes"),
    ],
)
def test_settings_that_make_no_sense_are_refused(made: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        LatentStream(made, **{"length": LENGTH, **settings})


def test_batches_that_make_no_sense_are_refused_before_anything_is_read(made: Path) -> None:
    stream = LatentStream(made, length=LENGTH)
    with pytest.raises(ConfigError, match=r"^batch_size: expected at least 1, got -1$"):
        stream.batches(-1)
    with pytest.raises(ConfigError, match=r"^epoch: expected at least 0, got -3$"):
        stream.batches(4, epoch=-3)


def test_a_split_without_episodes_or_windows_is_refused(made: Path) -> None:
    with pytest.raises(DatasetNotUsable, match=r"no episode is in the split 'held-out'; collect more, or lower holdout_every$"):
        LatentStream(made, length=LENGTH, split="held-out", holdout_every=13)
    with pytest.raises(DatasetNotUsable, match=r"no episode \(all\) has 91 actions \(the longest has 90\)"):
        LatentStream(made, length=91)


def test_rollouts_are_refused(stamp_rollouts: Path) -> None:
    with pytest.raises(DatasetNotUsable, match="expected a dataset of worldmodel_v/latents"):
        LatentStream(stamp_rollouts, length=LENGTH)


@pytest.mark.usefixtures("small_sections")
@pytest.mark.parametrize("what", ["changed", "removed", "nan"])
def test_damage_in_the_middle_of_an_epoch_is_an_error_and_never_zeros(made: Path, tmp_path: Path, what: str) -> None:
    path = Path(shutil.copytree(made, tmp_path / "latents"))
    shard = path / "shards" / "000002.h5"
    stream = LatentStream(path, length=LENGTH)
    batches = stream.batches(4)
    next(batches)
    if what == "removed":
        shard.unlink()
        message = "the shard is missing; restore it from a copy, or delete its line in the index"
    elif what == "nan":
        with h5py.File(shard, "r+") as file:
            file["mu"][...] = np.nan
        message = "mu is NaN or infinite where data should be; restore it, or encode again"
    else:
        with h5py.File(shard) as file:
            place = file["mu"].id.get_chunk_info(0)
        content = bytearray(shard.read_bytes())
        content[place.byte_offset + 5] ^= 1
        shard.write_bytes(content)
        message = "fails its checksum"
    with pytest.raises(ShardDamaged, match=f"^{re.escape(str(shard))}: .*{message}"):
        list(stream.batches(4, epoch=1))
    batches.close()
