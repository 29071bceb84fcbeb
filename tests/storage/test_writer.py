"""The committer: what it begins, continues, mends and refuses, and what a failing disk leaves."""

import json
import pickle
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import (
    FullDisk,
    assert_same_record,
    files_in,
    latent_spec,
    make_episode,
    make_latents,
    make_shard,
    rollout_spec,
    run_python,
)
from worldmodel_v.errors import DatasetBusy, DatasetNotUsable, NotAFile, OutputNotUsable, ShardDamaged, WriteFailed
from worldmodel_v.storage import Dataset, DatasetWriter, build_shard, open_dataset, verify

SPEC = rollout_spec()
IMAGES = [make_shard(first=2 * number, num_steps=4) for number in range(3)]


def write_all(path: Path) -> None:
    """What a run does: commit whatever is not committed yet, in order."""
    with DatasetWriter(path, SPEC) as writer:
        committed = {entry.shard for entry in writer.entries}
        for number, image in enumerate(IMAGES):
            if number not in committed:
                writer.commit(number, image)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three committed shards of two episodes."""
    write_all(tmp_path / "data")
    return tmp_path / "data"


def index_lines(path: Path) -> list[bytes]:
    return (path / "index.jsonl").read_bytes().splitlines(keepends=True)


def reopen(path: Path) -> None:
    DatasetWriter(path, SPEC).close()


class TestCommit:
    def test_what_is_committed_is_what_is_read(self, dataset: Path) -> None:
        found = open_dataset(dataset)
        assert (found.num_episodes, found.num_rows, found.format) == (6, 30, "worldmodel_v/rollouts")
        assert [found.shard_path(entry).read_bytes() for entry in found.entries] == IMAGES
        for episode_id in range(6):
            assert_same_record(found.episode(episode_id), make_episode(episode_id, 4))

    def test_the_directory_holds_what_the_format_says_and_nothing_else(self, dataset: Path) -> None:
        shards = [f"shards/{number:06d}.h5" for number in range(3)]
        assert sorted(files_in(dataset)) == [".lock", "dataset.json", "index.jsonl", *shards]
        assert json.loads((dataset / "dataset.json").read_text()) == SPEC.to_json()

    def test_the_order_of_commits_changes_only_the_order_of_lines(self, dataset: Path, tmp_path: Path) -> None:
        with DatasetWriter(tmp_path / "other", SPEC) as writer:
            for number in (2, 0, 1):
                writer.commit(number, IMAGES[number])
            assert [entry.shard for entry in writer.entries] == [0, 1, 2]
        one, other = files_in(dataset), files_in(tmp_path / "other")
        assert sorted(one.pop("index.jsonl").splitlines()) == sorted(other.pop("index.jsonl").splitlines())
        assert one == other
        assert open_dataset(tmp_path / "other").entries == open_dataset(dataset).entries

    def test_a_shard_that_is_there_is_not_overwritten(self, dataset: Path) -> None:
        with DatasetWriter(dataset, SPEC) as writer, pytest.raises(FileExistsError):
            writer.commit(0, IMAGES[1])
        assert (dataset / "shards/000000.h5").read_bytes() == IMAGES[0]

    def test_a_latent_shards_line_names_its_source(self, tmp_path: Path) -> None:
        spec = latent_spec()
        image = build_shard([make_latents()], spec_hash=spec.hash, attributes={"source_sha256": "d" * 64})
        with DatasetWriter(tmp_path / "latents", spec) as writer:
            assert writer.commit(0, image).source_sha256 == "d" * 64

    def test_a_writer_refuses_to_be_pickled(self, dataset: Path) -> None:
        text = "a DatasetWriter cannot be pickled; workers return the bytes of a shard and the driver commits them"
        with DatasetWriter(dataset, SPEC) as writer, pytest.raises(TypeError, match=f"^{text}$"):
            pickle.dumps(writer)

    def test_what_was_read_can_be_pickled(self, dataset: Path) -> None:
        found = open_dataset(dataset)
        assert pickle.loads(pickle.dumps(found)) == found
        assert isinstance(found, Dataset)


class TestContinuing:
    def test_opening_a_complete_dataset_changes_no_byte(self, dataset: Path) -> None:
        before = files_in(dataset)
        write_all(dataset)
        assert files_in(dataset) == before

    def test_an_interrupted_run_continues_to_the_same_bytes(self, dataset: Path, tmp_path: Path) -> None:
        with DatasetWriter(tmp_path / "other", SPEC) as writer:
            writer.commit(0, IMAGES[0])
        write_all(tmp_path / "other")
        assert files_in(tmp_path / "other") == files_in(dataset)

    def test_a_torn_last_line_is_truncated_and_its_shard_adopted(self, dataset: Path) -> None:
        before = files_in(dataset)
        index = dataset / "index.jsonl"
        for torn in (1, 2, 40, len(index_lines(dataset)[-1]) - 1):
            index.write_bytes(before["index.jsonl"][:-torn])
            reopen(dataset)
            assert files_in(dataset) == before

    def test_a_malformed_line_in_the_middle_is_refused_with_file_and_line(self, dataset: Path) -> None:
        lines = index_lines(dataset)
        (dataset / "index.jsonl").write_bytes(lines[0] + b"nonsense\n" + lines[2])
        before = files_in(dataset)
        with pytest.raises(ShardDamaged, match=re.escape(f"{dataset / 'index.jsonl'}:2: not a line of an index")):
            reopen(dataset)
        assert files_in(dataset) == before

    @settings(max_examples=8, deadline=None)
    @given(missing=st.sets(st.integers(0, 2), min_size=1))
    def test_finished_shards_without_a_line_are_adopted(
        self, tmp_path_factory: pytest.TempPathFactory, missing: set[int]
    ) -> None:
        path = tmp_path_factory.mktemp("adopt") / "data"
        write_all(path)
        before, entries = files_in(path), open_dataset(path).entries
        (path / "index.jsonl").write_bytes(b"".join(line for i, line in enumerate(index_lines(path)) if i not in missing))
        reopen(path)
        after = files_in(path)
        assert sorted(after.pop("index.jsonl").splitlines()) == sorted(before.pop("index.jsonl").splitlines())
        assert after == before
        assert open_dataset(path).entries == entries

    def test_a_damaged_shard_without_a_line_is_removed_and_made_again(self, dataset: Path) -> None:
        before = files_in(dataset)
        positions = random.Random(0).sample(range(len(IMAGES[2])), 20)
        pixels = positions_of_pixels(IMAGES[2])
        for position in [*positions, *pixels]:
            damaged = bytearray(IMAGES[2])
            damaged[position] ^= 0x40
            (dataset / "shards/000002.h5").write_bytes(damaged)
            (dataset / "index.jsonl").write_bytes(b"".join(index_lines(dataset)[:2]))
            reopen(dataset)
            adopted = (dataset / "shards/000002.h5").exists()
            assert not (adopted and position in pixels)
            if adopted:
                assert_same_record(open_dataset(dataset).episode(5), make_episode(5, 4))
                (dataset / "shards/000002.h5").unlink()
                (dataset / "index.jsonl").write_bytes(b"".join(index_lines(dataset)[:2]))
            write_all(dataset)
            assert files_in(dataset) == before

    @pytest.mark.parametrize("length", [0, 1, 2000])
    def test_a_truncated_shard_without_a_line_is_removed(self, dataset: Path, length: int) -> None:
        (dataset / "shards/000002.h5").write_bytes(IMAGES[2][:length])
        (dataset / "index.jsonl").write_bytes(b"".join(index_lines(dataset)[:2]))
        reopen(dataset)
        assert not (dataset / "shards/000002.h5").exists()
        assert open_dataset(dataset).num_episodes == 4

    def test_a_shard_of_other_settings_is_removed_and_not_adopted(self, dataset: Path) -> None:
        other = make_shard(first=6, spec=rollout_spec(seed=8))
        (dataset / "shards/000003.h5").write_bytes(other)
        reopen(dataset)
        assert not (dataset / "shards/000003.h5").exists()
        assert open_dataset(dataset).num_episodes == 6

    @pytest.mark.parametrize("first", [0, 1, 4, 5])
    def test_a_shard_of_episodes_that_are_committed_is_removed_and_never_counted_twice(self, dataset: Path, first: int) -> None:
        (dataset / "shards/000003.h5").write_bytes(make_shard(first=first))
        reopen(dataset)
        assert not (dataset / "shards/000003.h5").exists()
        assert open_dataset(dataset).num_episodes == 6

    def test_temporaries_of_a_killed_run_are_removed(self, dataset: Path) -> None:
        before = files_in(dataset)
        (dataset / ".tmp-1-dataset.json").write_bytes(b"half")
        (dataset / "shards/.tmp-1-000003.h5").write_bytes(IMAGES[0][:100])
        reopen(dataset)
        assert files_in(dataset) == before

    def test_a_run_that_was_killed_before_it_wrote_its_settings_is_continued(self, tmp_path: Path) -> None:
        (tmp_path / "data/shards").mkdir(parents=True)
        (tmp_path / "data/.lock").touch()
        (tmp_path / "data/.tmp-1-dataset.json").write_bytes(b"half")
        write_all(tmp_path / "data")
        assert open_dataset(tmp_path / "data").num_episodes == 6

    def test_a_committed_shard_that_is_gone_is_an_error(self, dataset: Path) -> None:
        (dataset / "shards/000001.h5").unlink()
        before = files_in(dataset)
        with pytest.raises(ShardDamaged, match=re.escape(f"{dataset / 'shards/000001.h5'}: the shard is missing")):
            reopen(dataset)
        assert files_in(dataset) == before

    def test_a_committed_shard_of_another_size_is_an_error(self, dataset: Path) -> None:
        (dataset / "shards/000001.h5").write_bytes(IMAGES[1][:-1])
        with pytest.raises(ShardDamaged, match=f"expected {len(IMAGES[1])} bytes as the index says, got {len(IMAGES[1]) - 1}"):
            reopen(dataset)

    def test_a_committed_shard_that_holds_other_episodes_is_an_error(self, dataset: Path) -> None:
        lines = [json.loads(line) for line in index_lines(dataset)]
        lines[2]["first_episode"] = 7
        (dataset / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(
            ShardDamaged, match=r"000002\.h5: spec_hash, episodes, rows, first episode are \('[0-9a-f]{64}', 2, 10, 4\)"
        ):
            reopen(dataset)

    def test_a_writer_that_refused_leaves_the_dataset_free_for_the_next(self, dataset: Path) -> None:
        (dataset / "shards/000001.h5").rename(dataset / "aside")
        with pytest.raises(ShardDamaged):
            reopen(dataset)
        (dataset / "aside").rename(dataset / "shards/000001.h5")
        reopen(dataset)


def positions_of_pixels(image: bytes) -> list[int]:
    """Some positions within the compressed frames: zstd's magic number and the bytes after it."""
    start = image.index(b"\x28\xb5\x2f\xfd")
    return [start, start + 4, start + 20, start + 200, start + 800]


class TestRefusing:
    @pytest.mark.parametrize("content", [["notes.txt"], ["a", "b"], ["index.jsonl"], ["shards/000000.h5"], ["shards"]])
    def test_a_foreign_directory_is_refused_and_nothing_is_written_into_it(self, tmp_path: Path, content: list[str]) -> None:
        for name in content:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("mine")
        first = sorted(name.split("/")[0] for name in content)[0]
        more = " and more" if len(content) > 1 else ""
        with pytest.raises(OutputNotUsable) as caught:
            DatasetWriter(tmp_path, SPEC)
        assert str(caught.value) == (
            f"{tmp_path}: holds {first!r}{more} but no dataset.json; "
            "give a directory that is empty, new, or a dataset to continue"
        )
        assert files_in(tmp_path) == dict.fromkeys(content, b"mine")

    def test_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(OutputNotUsable, match="is a file; give a directory that is empty, new, or a dataset to continue"):
            DatasetWriter(tmp_path / "file", SPEC)
        assert (tmp_path / "file").read_text() == "mine"

    def test_other_settings_are_refused_naming_the_fields_with_both_values(self, dataset: Path) -> None:
        before = files_in(dataset)
        with pytest.raises(OutputNotUsable) as caught:
            DatasetWriter(dataset, rollout_spec(seed=8, crop="0:4,0:4"))
        assert str(caught.value) == (
            f"{dataset}: was made with other settings: crop is 'full' there, '0:4,0:4' asked; seed is 7 there, 8 asked; "
            "use those settings, or another directory"
        )
        assert files_in(dataset) == before

    @pytest.mark.parametrize("name", ["dataset.json", "index.jsonl", "shards"])
    def test_a_dataset_that_links_elsewhere_is_not_continued(self, dataset: Path, tmp_path: Path, name: str) -> None:
        (dataset / name).rename(tmp_path / "elsewhere")
        (dataset / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises((NotAFile, OutputNotUsable), match=f"{name}: is a symbolic link; expected the (file|folder) itself"):
            write_all(dataset)

    def test_a_dataset_of_the_other_format_is_refused(self, dataset: Path) -> None:
        before = files_in(dataset)
        with pytest.raises(OutputNotUsable) as caught:
            DatasetWriter(dataset, latent_spec())
        assert str(caught.value) == (
            f"{dataset}: holds a dataset of worldmodel_v/rollouts, this command writes worldmodel_v/latents; "
            "give another directory"
        )
        assert files_in(dataset) == before

    DAMAGED_SETTINGS = {
        "not JSON": "{",
        "a list": "[]",
        "no spec": '{"format": "worldmodel_v/rollouts", "format_version": 1}',
        "other format": json.dumps({**SPEC.to_json(), "format": "other"}),
        "later version": json.dumps({**SPEC.to_json(), "format_version": 2}),
        "changed setting": json.dumps({**SPEC.to_json(), "spec": {**SPEC.to_json()["spec"], "seed": 8}}),
        "unknown setting": json.dumps({**SPEC.to_json(), "spec": {**SPEC.to_json()["spec"], "more": 8}}),
        "not UTF-8": "\udcff",
    }

    @pytest.mark.parametrize("what", DAMAGED_SETTINGS)
    def test_damaged_settings_are_refused(self, dataset: Path, what: str) -> None:
        (dataset / "dataset.json").write_bytes(self.DAMAGED_SETTINGS[what].encode(errors="surrogateescape"))
        before = files_in(dataset)
        for attempt in (lambda: DatasetWriter(dataset, SPEC), lambda: open_dataset(dataset)):
            with pytest.raises(
                DatasetNotUsable, match=re.escape(f"{dataset / 'dataset.json'}: not a valid description of a dataset")
            ):
                attempt()
        assert files_in(dataset) == before

    def test_a_second_writer_at_the_same_time_is_refused(self, dataset: Path) -> None:
        text = f"{dataset}: this process is writing there already; close what writes there, then run again"
        with DatasetWriter(dataset, SPEC), pytest.raises(DatasetBusy, match=f"^{re.escape(text)}$"):
            DatasetWriter(dataset, SPEC)
        reopen(dataset)

    def test_a_writer_in_another_process_is_refused_too(self, dataset: Path) -> None:
        code = (
            "import sys\nfrom pathlib import Path\nfrom tests.builders import rollout_spec\n"
            "from worldmodel_v.storage import DatasetWriter\n"
            "try:\n    DatasetWriter(Path(sys.argv[1]), rollout_spec())\n"
            "except Exception as error:\n    print(type(error).__name__)\n"
            "else:\n    print('opened')\n"
        )
        with DatasetWriter(dataset, SPEC):
            assert run_python(code, dataset) == "DatasetBusy"
        assert run_python(code, dataset) == "opened"

    def test_reading_needs_no_lock(self, dataset: Path) -> None:
        with DatasetWriter(dataset, SPEC) as writer:
            assert open_dataset(dataset) == writer.dataset()


class TestFullDisk:
    @pytest.mark.parametrize("kind", FullDisk.KINDS)
    def test_a_run_that_fails_at_any_call_leaves_whole_files_and_a_rerun_completes_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Path, kind: str
    ) -> None:
        complete = files_in(dataset)
        for fail_at in range(1, 100):
            path = tmp_path / f"fail-{fail_at}"
            with monkeypatch.context() as patch:
                disk = FullDisk(patch, kind, fail_at)
                failure = failure_of_a_run(path)
            if failure is None:
                assert not disk.failed
                break
            assert "No space left on device" in failure
            assert "free some space and run the same command again" in failure
            assert_only_whole_files(path, complete)
            write_all(path)
            assert files_in(path) == complete
        assert fail_at > 1

    def test_a_run_that_fails_again_and_again_completes_when_the_disk_is_free(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Path
    ) -> None:
        path = tmp_path / "again"
        for fail_at in (1, 2, 1, 3, 2, 1):
            with monkeypatch.context() as patch:
                FullDisk(patch, "write", fail_at)
                assert failure_of_a_run(path) is not None
            assert_only_whole_files(path, files_in(dataset))
        write_all(path)
        assert files_in(path) == files_in(dataset)


def failure_of_a_run(path: Path) -> str | None:
    """What a run says that cannot write, or None if it came to its end."""
    try:
        write_all(path)
    except WriteFailed as error:
        return str(error)
    return None


def assert_only_whole_files(path: Path, complete: dict[str, bytes]) -> None:
    """Every visible file is as in the complete dataset, the index is a beginning of it, and what is committed is sound."""
    for name, content in files_in(path).items():
        if name == "index.jsonl":
            assert complete[name].startswith(content)
        elif not Path(name).name.startswith(".tmp-"):
            assert content == complete[name]
    if (path / "dataset.json").exists():
        assert [line for line in verify(open_dataset(path)) if "is not in the index" not in line] == []
