"""What a directory is while work on it is under way or was broken off, read without a lock."""

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.builders import files_in
from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.errors import DatasetNotUsable, ModelNotUsable
from worldmodel_v.inspection import describe, describe_run
from worldmodel_v.storage.lock import LOCK_NAME, locked_directory

HERE = {"pid": os.getpid(), "host": socket.gethostname()}


@pytest.fixture
def dataset(tmp_path: Path, stamp_rollouts: Path) -> Path:
    """A copy of the toy rollouts, to be written to."""
    return shutil.copytree(stamp_rollouts, tmp_path / "rollouts")


def say(folder: Path, **said: Any) -> None:
    """Put a holder's words into a lock's file, as `announce` does."""
    (folder / LOCK_NAME).write_text(f"process {said.get('pid')} on {said.get('host')}\n{json.dumps(said)}\n")


def test_a_complete_dataset_says_when_and_how_fast_it_was_made(dataset: Path) -> None:
    before = files_in(dataset)
    facts = describe_run(dataset)
    run = facts.pop("run")
    assert list(facts) == ["kind", "path", "episodes", "rows", "shards", "set_aside", "bytes"]
    assert facts == {name: describe(dataset)[name] for name in facts}
    assert (facts["kind"], facts["episodes"], facts["shards"]) == ("rollouts", 8, 3)
    assert run == describe(dataset)["run"]
    assert {name: run[name] for name in ("state", "process", "stage", "done", "wanted", "temporaries")} == {
        **{"state": "complete", "process": f"{os.getpid()} on {socket.gethostname()}", "stage": "collect"},
        **{"done": 8, "wanted": 8, "temporaries": []},
    }
    os.utime(dataset / LOCK_NAME, (1000, 1000))
    for name in before:
        if name.startswith("shards/"):
            os.utime(dataset / name, (1016, 1016))
    run = describe_run(dataset)["run"]
    assert (run["started"], run["latest"], run["per_second"]) == ("1970-01-01T00:16:40+00:00", "1970-01-01T00:16:56+00:00", 0.5)
    assert files_in(dataset) == before


def test_columns_are_those_of_the_schema(stamp_rollouts: Path, stamp_latents: Path) -> None:
    by_row = {"action": "float32 (rows, 2)", "reward": "float32 (rows)", "terminated": "bool (rows)"}
    for path, observation in (
        (stamp_rollouts, {"pixels": "uint8 (rows, 64, 64, 3)"}),
        (stamp_latents, {"mu": "float32 (rows, 8)"}),
    ):
        assert describe(path)["columns"].items() >= (observation | by_row).items()


def test_a_dataset_that_nobody_is_at_is_stopped_and_with_a_holder_of_its_lock_running(dataset: Path) -> None:
    say(dataset, **HERE, stage="collect", goal=20, done=5)
    assert describe_run(dataset)["run"]["state"] == "stopped"
    with locked_directory(dataset) as lock:
        lock.announce(stage="collect", goal=20, done=5)
        (dataset / "shards" / ".tmp-1-000003.h5").write_bytes(b"half")
        run = describe_run(dataset)["run"]
        assert (run["state"], run["done"], run["wanted"]) == ("running", 8, 20)
        assert run["temporaries"] == [".tmp-1-000003.h5"]
    assert describe_run(dataset)["run"]["state"] == "stopped"


def test_a_process_on_another_machine_can_only_be_looked_at_there(dataset: Path) -> None:
    say(dataset, pid=1, host="elsewhere", stage="collect", goal=20, done=0)
    assert describe_run(dataset)["run"]["state"] == "not known here: look on elsewhere"


@pytest.mark.parametrize(
    "left",
    [
        *(b"", b"process 1 on old\n", b"\xff\x00" * 4000, b"x\n[]\n", b"x\n{}\n", b'x\n{"pid": "1", "host": "h"}\n'),
        *(b'x\n{"pid": 1, "host": "h", "more": 1}\n', b'x\n{"pid": 1, "host": "\\u001b[2J"}\n'),
    ],
)
def test_a_lock_file_of_anything_says_nothing(dataset: Path, left: bytes) -> None:
    (dataset / LOCK_NAME).write_bytes(left)
    assert describe_run(dataset)["run"] is None
    assert describe(dataset)["episodes"] == 8


def test_a_directory_where_nothing_but_the_beginning_stands_is_known(tmp_path: Path) -> None:
    with locked_directory(tmp_path) as lock:
        with pytest.raises(DatasetNotUsable, match=r"neither dataset.json nor vae.safetensors is in it"):
            describe_run(tmp_path)
        for stage, kind in (("collect", "rollouts"), ("encode", "latents"), ("train", "vae")):
            lock.announce(stage=stage, goal=6, done=0)
            for facts in (describe(tmp_path), describe_run(tmp_path)):
                assert (facts["kind"], facts["run"]["state"]) == (kind, "running")
                assert (facts["run"]["done"], facts["run"]["wanted"], facts["run"]["per_second"]) == (0, 6, None)


def test_an_index_line_that_is_being_written_is_not_there_yet(dataset: Path) -> None:
    """At every byte of the last line."""
    index = dataset / "index.jsonl"
    whole = index.read_bytes()
    before = whole[: whole[:-1].rfind(b"\n") + 1]
    last = json.loads(whole[len(before) :])["num_episodes"]
    for length in range(len(before), len(whole)):
        index.write_bytes(whole[:length])
        assert describe_run(dataset)["episodes"] == 8 - last
        assert describe_run(dataset)["run"]["done"] == 8 - last
    assert describe(dataset)["shards"] == 2
    index.write_bytes(whole)
    assert describe_run(dataset)["episodes"] == 8


def test_a_training_shows_its_checkpoint_and_its_latest_complete_lines(stamp_vae: Path, tmp_path: Path) -> None:
    out = tmp_path / "vae"
    out.mkdir()
    for name in ("checkpoint.safetensors", "metrics.jsonl"):
        (out / name).write_bytes((stamp_vae / name).read_bytes())
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "group": "train", "loss": 2.5, "list": [1.0]}\n{"step": 6, "group": "train", "lo')
    say(out, **HERE, stage="train", goal=9, done=3)
    facts = describe_run(out)
    assert (facts["kind"], facts["checkpoint_step"]) == ("vae", 3)
    assert facts["latest"]["train"] == {"step": 5, "loss": 2.5}
    assert facts["latest"]["held-out"]["step"] == 3
    assert (facts["run"]["state"], facts["run"]["done"], facts["run"]["wanted"]) == ("stopped", 5, 9)
    everything = describe(out)
    assert everything["finished"] is False
    assert {name: everything[name] for name in facts} == facts
    (out / "metrics.jsonl").write_text("no record\n")
    with pytest.raises(ModelNotUsable, match=r"metrics.jsonl: not a record of a training"):
        describe_run(out)


def test_only_the_end_of_a_long_record_is_read(stamp_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from worldmodel_v.training import metrics

    lines = [json.dumps({"step": step, "group": "train", "loss": step / 2}) + "\n" for step in range(1, 500)]
    (tmp_path / "metrics.jsonl").write_text("garbage\n" + "".join(lines))
    monkeypatch.setattr(metrics, "TAIL_BYTES", 1000)
    assert metrics.last_records(tmp_path) == {"train": {"step": 499, "loss": 249.5}}


def test_a_rerun_that_finds_everything_done_leaves_the_dataset_complete(dataset: Path) -> None:
    report = collect(stamp_config(dataset))
    assert report.new_episodes == 0
    run = describe_run(dataset)["run"]
    assert (run["state"], run["done"], run["wanted"], run["per_second"]) == ("complete", 8, 8, None)
