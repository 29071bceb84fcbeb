"""Every place to read from, under one suite: a local directory, `memory://`, and a server of HTTP range requests."""

import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.builders import assert_same_record, files_in, make_episode, rollout_spec
from tests.serving import Served, served
from worldmodel_v import LatentSequences, LatentStream, load_vae, open_dataset, verify
from worldmodel_v.cli.inspect import InspectConfig
from worldmodel_v.collection import CollectConfig
from worldmodel_v.data import FrameStream, read_frames
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.errors import (
    ConfigError,
    DatasetNotUsable,
    ModelNotUsable,
    NotReadable,
    PackageMissing,
    RemoteFailed,
    ShardDamaged,
    WorldModelError,
)
from worldmodel_v.evaluation import EvalConfig, evaluate
from worldmodel_v.export import FORMATS, export
from worldmodel_v.export.hub import HubConfig
from worldmodel_v.inspection import describe, describe_run, preview, require_binding
from worldmodel_v.settings import local_path
from worldmodel_v.storage import Dataset, DatasetWriter, Location, build_shard, remote, to_place
from worldmodel_v.training import TrainConfig, train
from worldmodel_v.view.config import ViewConfig

SHARD_BYTES = 1_580_000
"""What a shard of `large` has, and a little more."""


@pytest.fixture(scope="module")
def stamp(stamp_rollouts: Path, stamp_latents: Path) -> Path:
    """The folder of the toy world's datasets."""
    assert stamp_latents.parent == stamp_rollouts.parent
    return stamp_rollouts.parent


@pytest.fixture(scope="module")
def server(stamp: Path) -> Iterator[Served]:
    with served(stamp) as files:
        yield files


@pytest.fixture(params=["local", "memory", "http"])
def folder(request: pytest.FixtureRequest, stamp: Path) -> Iterator[Location]:
    """The same, in each kind of place."""
    if request.param == "local":
        yield str(stamp)
    elif request.param == "http":
        yield request.getfixturevalue("server").url
    else:
        memory = fsspec.filesystem("memory")
        for name in ("rollouts", "latents"):
            memory.put(f"{stamp / name}/", f"/stamp/{name}/", recursive=True)
        yield "memory://stamp"
        memory.rm("/stamp", recursive=True)


def training(data: Location, out: Path) -> TrainConfig:
    """Five steps of a conditional VAE."""
    settings = {"steps": 5, "batch_size": 16, "latent_dim": 8, "holdout_every": 4, "device": "cpu"}
    return TrainConfig(data=data, out=out, condition=("action",), **settings)


@pytest.fixture(scope="module")
def trained(stamp: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of that training on the local files."""
    out = tmp_path_factory.mktemp("trained") / "vae"
    train(training(stamp / "rollouts", out))
    return (out / "vae.safetensors").read_bytes()


class TestEveryPlace:
    def test_every_episode_and_column_is_read(self, folder: Location, stamp: Path) -> None:
        for name in ("rollouts", "latents"):
            found, expected = open_dataset(f"{folder}/{name}"), open_dataset(stamp / name)
            assert (found.spec, found.schema, found.entries) == (expected.spec, expected.schema, expected.entries)
            for number in range(expected.num_episodes):
                assert_same_record(found.episode(number), expected.episode(number))
            for (_, shard), (_, other) in zip(found.shards(), expected.shards(), strict=True):
                for column in other.columns:
                    np.testing.assert_array_equal(shard.rows(column), other.rows(column), strict=True)

    def test_every_byte_can_be_verified(self, folder: Location) -> None:
        assert verify(open_dataset(f"{folder}/rollouts")) == []
        assert verify(open_dataset(f"{folder}/latents")) == []

    def test_a_dataset_can_be_sent_to_another_process(self, folder: Location, stamp: Path) -> None:
        sent = pickle.loads(pickle.dumps(open_dataset(f"{folder}/rollouts")))
        assert str(sent.path) == f"{folder}/rollouts"
        assert_same_record(sent.episode(5), open_dataset(stamp / "rollouts").episode(5))

    def test_frames_come_in_the_same_order(self, folder: Location, stamp: Path) -> None:
        found, expected = open_dataset(f"{folder}/rollouts"), open_dataset(stamp / "rollouts")

        def batches(dataset: Dataset) -> list[np.ndarray]:
            stream = iter(FrameStream(dataset, lambda episode: episode != 3, batch_size=50, seed=1))
            return [next(stream).frames for _ in range(8)]

        np.testing.assert_array_equal(batches(found), batches(expected))
        np.testing.assert_array_equal(read_frames(found, lambda _: True, 30), read_frames(expected, lambda _: True, 30))

    def test_windows_are_the_same(self, folder: Location, stamp: Path) -> None:
        for kind in (LatentSequences, LatentStream):
            found, expected = kind(f"{folder}/latents", length=4), kind(stamp / "latents", length=4)
            for batch, other in zip(found.batches(16), expected.batches(16), strict=True):
                assert {name: column.tolist() for name, column in batch.items()} == {
                    name: column.tolist() for name, column in other.items()
                }

    def test_windows_are_read_in_the_workers_of_a_loader(self, folder: Location) -> None:
        stream = LatentStream(f"{folder}/latents", length=4, sample=False)
        windows = [item["z"] for item in DataLoader(stream, batch_size=None, num_workers=2)]
        alone = torch.cat([batch["z"] for batch in stream.batches(16)])
        assert sorted(window.sum().item() for window in windows) == sorted(window.sum().item() for window in alone)

    @pytest.mark.parametrize("folder", ["memory", "http"], indirect=True)
    def test_training_gives_the_same_weights(self, folder: Location, trained: bytes, tmp_path: Path) -> None:
        train(training(f"{folder}/rollouts", tmp_path / "vae"))
        assert (tmp_path / "vae/vae.safetensors").read_bytes() == trained

    def test_latents_are_the_same_bytes(self, folder: Location, stamp: Path, tmp_path: Path) -> None:
        encode(EncodeConfig(data=f"{folder}/rollouts", vae=stamp / "vae", out=tmp_path / "latents", device="cpu"))
        found, expected = files_in(tmp_path / "latents"), files_in(stamp / "latents")
        assert {name: found[name] for name in found if name != ".lock"} == {
            name: expected[name] for name in expected if name != ".lock"
        }
        require_binding(f"{folder}/latents", data=f"{folder}/rollouts", vae=stamp / "vae")

    @pytest.mark.usefixtures("short_search")
    @pytest.mark.parametrize("folder", ["http"], indirect=True)
    def test_an_evaluation_has_the_same_figures(self, folder: Location, stamp: Path, tmp_path: Path) -> None:
        summaries = [
            evaluate(EvalConfig(vae=stamp / "vae", data=data, out=tmp_path / str(i), frames=30, device="cpu")).summary
            for i, data in enumerate([f"{folder}/rollouts", stamp / "rollouts"])
        ]
        assert summaries[0] == summaries[1]

    def test_its_description_is_the_same_but_for_who_works_there(self, folder: Location, stamp: Path) -> None:
        for name in ("rollouts", "latents"):
            for facts in (describe, describe_run):
                found, expected = facts(f"{folder}/{name}"), facts(stamp / name)
                assert found.pop("path") == f"{folder}/{name}"
                assert (found.pop("run") is None) == ("://" in str(folder))
                expected.pop("path"), expected.pop("run")
                assert found == expected
        np.testing.assert_array_equal(preview(f"{folder}/rollouts"), preview(stamp / "rollouts"))

    def test_exports_are_the_same_files(self, folder: Location, stamp: Path, tmp_path: Path) -> None:
        for name, data in {"found": f"{folder}/latents", "expected": stamp / "latents"}.items():
            export(FORMATS["npz"](data=data, out=tmp_path / name))
        assert files_in(tmp_path / "found") == files_in(tmp_path / "expected")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shards of two episodes of 64 frames each that do not compress, 64x64."""
    path = tmp_path_factory.mktemp("large") / "rollouts"
    spec = rollout_spec(frame_height=64, frame_width=64)
    with DatasetWriter(path, spec) as writer:
        for number in range(4):
            episodes = [make_episode(2 * number + i, 63, size=64) for i in range(2)]
            assert writer.commit(number, build_shard(episodes, spec_hash=spec.hash)).bytes > SHARD_BYTES
    return path


@pytest.fixture
def copy(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A copy that may be damaged, behind a server that may fail; requests are made again at once."""
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    shutil.copytree(large, tmp_path / "rollouts")
    with served(tmp_path) as files:
        yield files


class TestOnlyWhatIsNeeded:
    def test_opening_a_dataset_reads_no_shard(self, copy: Served) -> None:
        assert open_dataset(f"{copy.url}/rollouts").num_episodes == 8
        assert copy.bytes_sent(".h5") == 0

    def test_opening_a_shard_reads_its_metadata(self, copy: Served) -> None:
        dataset = open_dataset(f"{copy.url}/rollouts")
        assert [shard.num_rows for _, shard in dataset.shards()] == [128] * 4
        assert copy.bytes_sent(".h5") < 4 * 110_000
        assert len([path for method, path, _ in copy.requests if method == "GET" and path.endswith("000000.h5")]) <= 3

    def test_an_episode_reads_its_own_chunks(self, copy: Served) -> None:
        open_dataset(f"{copy.url}/rollouts").episode(2)
        assert copy.bytes_sent(".h5") == copy.bytes_sent("000001.h5")
        assert SHARD_BYTES // 2 - 50_000 < copy.bytes_sent("000001.h5") < SHARD_BYTES // 2 + 150_000

    def test_neighbouring_chunks_come_in_one_request(self, copy: Served) -> None:
        dataset = open_dataset(f"{copy.url}/rollouts")
        with dataset.open_shard(dataset.entries[0]) as shard:
            copy.requests.clear()
            shard.rows("pixels")
        assert [method for method, _, _ in copy.requests] == ["GET"]

    def test_frames_are_read_once_an_epoch(self, copy: Served) -> None:
        dataset = open_dataset(f"{copy.url}/rollouts")
        stream = iter(FrameStream(dataset, lambda episode: episode < 4, batch_size=32, seed=0))
        for _ in range(16):
            next(stream)
        assert copy.bytes_sent("000003.h5") == copy.bytes_sent("000002.h5") == 0
        assert copy.bytes_sent("000000.h5") < SHARD_BYTES + 200_000

    def test_a_shard_that_is_verified_is_read_once(self, copy: Served) -> None:
        dataset = open_dataset(f"{copy.url}/rollouts")
        assert verify(dataset) == []
        assert copy.bytes_sent(".h5") == sum(entry.bytes for entry in dataset.entries)

    def test_a_large_file_comes_in_pieces(self, copy: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(remote, "PIECE_BYTES", 100_000)
        dataset = open_dataset(f"{copy.url}/rollouts")
        image = dataset.image(dataset.entries[0])
        assert image == (copy.folder / "rollouts/shards/000000.h5").read_bytes()
        assert max(size for _, _, size in copy.requests) == 100_000


class TestDamage:
    def change(self, copy: Served, place: int, content: bytes) -> str:
        file = copy.folder / "rollouts/shards/000001.h5"
        with file.open("r+b") as opened:
            opened.seek(place)
            opened.write(content)
        return f"{copy.url}/rollouts/shards/000001.h5"

    def test_flipped_frames_are_found(self, copy: Served) -> None:
        dataset = open_dataset(f"{copy.url}/rollouts")
        with dataset.open_shard(dataset.entries[1]) as shard:
            place = int(shard.pixel_places()[1, 0])
        url = self.change(copy, place + 1000, b"changed")
        assert dataset.episode(2).num_steps == 63
        with pytest.raises(ShardDamaged, match=f"^{url}: pixel chunk 1 .* fails its checksum"):
            dataset.episode(3)
        with pytest.raises(ShardDamaged, match=f"^{url}: pixel chunk 1"):
            read_frames(dataset, lambda _: True, 1000)
        (finding,) = verify(dataset)
        assert finding.startswith(f"{url}: SHA-256 is ")

    def test_flipped_metadata_are_found(self, copy: Served) -> None:
        url = self.change(copy, 60, b"\1")
        with pytest.raises(ShardDamaged, match=f"^{url}: "):
            open_dataset(f"{copy.url}/rollouts").episode(2)

    def test_a_shard_of_another_size_or_none_is_found(self, copy: Served) -> None:
        dataset, file = open_dataset(f"{copy.url}/rollouts"), copy.folder / "rollouts/shards/000001.h5"
        file.write_bytes(file.read_bytes()[:-1])
        for read in (lambda: dataset.episode(2), lambda: dataset.image(dataset.entries[1])):
            with pytest.raises(ShardDamaged, match=r"000001\.h5: expected \d+ bytes as the index says, got \d+; restore"):
                read()
        file.unlink()
        with pytest.raises(ShardDamaged, match=rf"^{copy.url}/rollouts/shards/000001\.h5: the shard is missing; restore it"):
            dataset.episode(2)

    def test_a_shard_that_shrinks_or_goes_while_it_is_open_is_found(self, copy: Served) -> None:
        dataset, file = open_dataset(f"{copy.url}/rollouts"), copy.folder / "rollouts/shards/000001.h5"
        with dataset.open_shard(dataset.entries[1]) as shard:
            file.write_bytes(file.read_bytes()[:20_000])
            with pytest.raises(ShardDamaged, match=r"000001\.h5: ends before the bytes that were asked for"):
                shard.episode(1)
            file.unlink()
            with pytest.raises(ShardDamaged, match=r"000001\.h5: the shard is missing"):
                shard.episode(0)


class TestFailures:
    def refused(self, kind: type[WorldModelError], location: Location, message: str) -> None:
        with pytest.raises(kind, match=message):
            open_dataset(location)

    def test_a_server_that_is_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(remote, "PAUSES", ())
        with served(tmp_path) as files:
            url = files.url
        self.refused(
            RemoteFailed, f"{url}/data", rf"^{url}/data/dataset\.json: cannot be reached \(ClientConnector.*run again$"
        )
        assert RemoteFailed.exit_code == 1

    def test_a_server_that_fails_is_asked_again(self, copy: Served) -> None:
        copy.failures_left = 3  # fsspec asks for a size in two ways
        dataset = open_dataset(f"{copy.url}/rollouts")
        copy.failures_left = 2
        assert dataset.episode(0).num_steps == 63
        assert copy.failures_left == 0
        copy.status = 500
        with pytest.raises(RemoteFailed, match=r"000000\.h5: cannot be reached \(ClientResponseError: 500"):
            dataset.episode(0)

    def test_a_connection_that_breaks_in_the_middle(self, copy: Served) -> None:
        dataset = open_dataset(f"{copy.url}/rollouts")
        stream = FrameStream(dataset, lambda _: True, batch_size=32, seed=0)
        copy.breaks_after = 100_000
        with pytest.raises(RemoteFailed, match=r"/rollouts/shards/00000\d\.h5: cannot be reached \(Client"):
            next(iter(stream))
        with pytest.raises(RemoteFailed, match=r"/rollouts/shards/000000\.h5: cannot be reached"):
            verify(dataset)

    def test_a_server_without_range_requests(self, copy: Served) -> None:
        copy.knows_ranges = False
        dataset = open_dataset(f"{copy.url}/rollouts")
        with pytest.raises(RemoteFailed, match=r"gave \d+ bytes where 16384 from 0 on were asked for; .* with range requests"):
            dataset.episode(0)

    def test_what_is_withheld(self, copy: Served) -> None:
        copy.status = 403
        self.refused(NotReadable, f"{copy.url}/rollouts", r"dataset\.json: cannot be read \(ClientResponseError: 403")

    def test_what_is_no_dataset(self, copy: Served, stamp_rollouts: Path) -> None:
        for url in (f"{copy.url}/absent", "memory://absent"):
            self.refused(
                DatasetNotUsable, url, rf"^{url}: holds no dataset\.json; give a directory that wm-collect or wm-encode wrote"
            )
        with pytest.raises(DatasetNotUsable, match="expected a dataset of worldmodel_v/latents"):
            LatentSequences(f"{copy.url}/rollouts", length=2)

    def test_protocols_that_are_unknown_or_need_a_package(self) -> None:
        self.refused(ConfigError, "nonsense://x/data", r"^nonsense://x/data/dataset\.json: unknown protocol 'nonsense'")
        self.refused(PackageMissing, "s3://bucket/data", r"s3:// needs a package that is not installed: .*; pip install s3fs$")

    def test_urls_that_name_nothing_or_too_much(self) -> None:
        self.refused(ConfigError, "memory://", "^memory://: names no directory")
        self.refused(ConfigError, "ftp://me:secret@host/data", "^ftp://…: has a password in it")
        self.refused(ConfigError, "zip://data::https://me:secret@host/file.zip", "^zip://…: has a password in it")
        self.refused(ConfigError, Path("memory://x/data"), "^memory:/x/data: is a URL that has lost a slash")

    def test_a_url_of_a_file_is_its_path(self, stamp_rollouts: Path) -> None:
        assert open_dataset(f"file://{stamp_rollouts}").path == stamp_rollouts

    def test_a_dataset_in_an_archive_is_read(self, stamp_rollouts: Path, tmp_path: Path) -> None:
        shutil.make_archive(str(tmp_path / "here"), "zip", stamp_rollouts.parent, stamp_rollouts.name)
        shutil.make_archive(str(tmp_path / "alone"), "zip", stamp_rollouts)
        there = open_dataset(stamp_rollouts).episode(1).pixels
        for url in (f"zip://{stamp_rollouts.name}/::{tmp_path}/here.zip", f"zip://::file://{tmp_path}/alone.zip"):
            np.testing.assert_array_equal(open_dataset(url).episode(1).pixels, there)

    def test_a_cache_of_fsspecs_may_stand_before_a_url(
        self, copy: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(fsspec.config.conf, "simplecache", {"cache_storage": str(tmp_path / "cache")})
        dataset = open_dataset(f"simplecache::{copy.url}/rollouts")
        copied = dataset.episode(2)
        copy.requests.clear()
        assert_same_record(dataset.episode(2), copied)
        assert copy.bytes_sent() == 0

    def test_nothing_is_written_to_a_url(self, tmp_path: Path) -> None:
        for config in (TrainConfig, FORMATS["npz"]):
            with pytest.raises(ConfigError, match=r"^out='memory:/x': is a URL, and only data may be one"):
                config(data="memory://data", out=Path("memory://x"))
        for config in (EncodeConfig, EvalConfig):
            with pytest.raises(ConfigError, match=r"^out='memory:/x': is a URL"):
                config(data="memory://data", vae=tmp_path, out=Path("memory://x"))


def test_the_home_directory_may_be_written_as_shells_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("~/runs", Path("~/runs")):
        assert to_place(path) == local_path(path) == CollectConfig(out=path).out == tmp_path / "runs"
    assert local_path("./~/runs") == Path("~/runs")
    assert local_path("~runs") == Path("~runs")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)
    with pytest.raises(ConfigError, match=r"~/runs: begins with ~, and your home directory is not known; give all of it"):
        CollectConfig(out="~/runs")


def test_so_may_every_other_file_and_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shown = InspectConfig(path="x", video=Path("~/a.gif"), preview=Path("~/a.png"), vae=Path("~/vae"))
    assert (shown.video, shown.preview, shown.vae) == (tmp_path / "a.gif", tmp_path / "a.png", tmp_path / "vae")
    assert ViewConfig(vae="~/v", data="x", out=tmp_path / "a.html", rnn=Path("~/rnn")).rnn == tmp_path / "rnn"
    assert HubConfig(repo="me/x", vae="~/v", out=tmp_path / "hub").vae == tmp_path / "v"
    with pytest.raises(ModelNotUsable, match=re.escape(f"{tmp_path / 'v'}: holds no vae.safetensors")):
        load_vae("~/v")
