"""What a command tells of itself while it runs: events as text, as JSON, beside bars, and not at all."""

import datetime
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import BIN, committed, options, run, start, wait_until
from worldmodel_v.cli.progress import open_progress
from worldmodel_v.storage import open_dataset
from worldmodel_v.words import counted

STAMP = {"env": "worldmodel_v/Stamp-v0", "episodes": 5, "episodes_per_shard": 2, "seed": 7, "policy": "random"}
JSON = ("--log-format", "json")

pytestmark = pytest.mark.usefixtures("stamp_rollouts")  # so that what these commands run is compiled already


def collecting(out: Path, *words: object, **changes: object) -> tuple[object, ...]:
    return ("wm-collect", "--out", out, "--workers", 0, *options({**STAMP, **changes}), *words)


def events(errors: str) -> list[dict[str, Any]]:
    """The lines of standard error, each of which must be an event."""
    found = [json.loads(line) for line in errors.splitlines()]
    for event in found:
        moment = datetime.datetime.fromisoformat(event["time"])
        assert moment.utcoffset() == datetime.timedelta(0)
        assert {"level", "program", "event", "message"} <= event.keys()
    assert sorted(event["time"] for event in found) == [event["time"] for event in found]
    return found


def test_a_collection_in_json_tells_every_shard_as_the_index_has_it(tmp_path: Path) -> None:
    out = tmp_path / "rollouts"
    output, errors = run(*collecting(out, *JSON, "--json"))
    found, dataset = events(errors), open_dataset(out)
    assert [event["event"] for event in found] == ["started", *["shard_committed"] * 3, "progress", "finished"]
    assert {(event["program"], event["stage"], event["level"]) for event in found} == {("wm-collect", "collect", "info")}
    begun, *shards, progress, finished = found
    expected = {"out": str(out), "spec_hash": dataset.spec_hash, "done": 0, "total": 5, "unit": "episodes"}
    assert {name: begun[name] for name in expected} == expected
    for event, entry in zip(shards, dataset.entries, strict=True):
        told = [event[name] for name in ("shard", "episodes", "rows", "bytes", "sha256")]
        assert told == [entry.shard, entry.num_episodes, entry.num_rows, entry.bytes, entry.sha256]
    num_bytes = sum(entry.bytes for entry in dataset.entries)
    expected = {"done": 5, "total": 5, "frames": dataset.num_rows, "bytes": num_bytes, "shards_left": 0, "retries": 0}
    assert {name: progress[name] for name in expected} == expected
    for report in (finished, json.loads(output)):
        assert (report["episodes"], report["frames"], report["new_episodes"]) == (5, dataset.num_rows, 5)


def test_the_same_in_text_is_one_line_for_each_and_quiet_is_none(tmp_path: Path) -> None:
    out = tmp_path / "rollouts"
    _, errors = run(*collecting(out))
    lines = errors.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ collect: ", line) for line in lines)
    entries, rows = open_dataset(out).entries, open_dataset(out).num_rows
    told = [line.partition("collect: ")[2] for line in lines]
    assert told[0] == f"5 of 5 episodes to come into {out} (spec_hash {open_dataset(out).spec_hash[:12]}…)"
    assert told[1:4] == [
        f"shard {entry.shard} committed: {counted(entry.num_episodes, 'episode')}, {entry.num_rows} rows, {entry.bytes} bytes, "
        f"{entry.sha256[:12]}…"
        for entry in entries
    ]
    assert told[4].startswith("5/5 episodes, ")
    assert told[5:] == [f"5 episodes, {rows} frames (5 new episodes)"]
    for words in (("--quiet",), ("--quiet", *JSON)):
        assert run(*collecting(out, *words, episodes=6))[1] == ""


def test_on_a_terminal_shards_are_counted_by_the_bar_and_the_end_is_told_once(tmp_path: Path) -> None:
    ours, its = pty.openpty()
    command = [str(BIN / "wm-collect"), *map(str, collecting(tmp_path / "rollouts")[1:])]
    with subprocess.Popen(command, stderr=its, stdout=subprocess.PIPE, env=os.environ | {"COLUMNS": "200"}) as process:
        os.close(its)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # the terminal is gone: all has been read
            os.close(ours)
        process.communicate()
    assert process.returncode == 0, shown
    rows = open_dataset(tmp_path / "rollouts").num_rows
    assert shown.count(f"collect: 5 episodes, {rows} frames (5 new episodes)".encode()) == 1
    assert b"5/5" in shown
    assert f"frames={rows}".encode() in shown
    assert b"committed" not in shown


def test_brackets_in_an_event_are_no_markup(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with open_progress("wm-collect", quiet=False, log_format="text") as progress:
        progress.say("task [3] of [bold]x[/bold]")
    assert "task [3] of [bold]x[/bold]" in capsys.readouterr().err


def test_a_failure_and_an_interruption_are_the_last_event(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "note.txt").touch()
    for words in (JSON, (*JSON, "--quiet")):
        (failed,) = events(run(*collecting(foreign, *words), code=2)[1])
        assert (failed["event"], failed["level"]) == ("failed", "error")
        assert (failed["error"], failed["exit_code"]) == ("OutputNotUsable", 2)
        assert failed["message"].startswith(f"{foreign}: holds 'note.txt' but no dataset.json")
    out = tmp_path / "rollouts"
    process = start(*collecting(out, *JSON, episodes=100_000))
    wait_until(lambda: committed(out) >= 2, process)
    process.send_signal(signal.SIGTERM)
    *before, last = events(process.communicate()[1])
    assert process.returncode == 130
    assert before[0]["event"] == "started"
    assert (last["event"], last["level"], last["exit_code"]) == ("interrupted", "error", 130)
    assert last["message"] == "interrupted; what is committed is kept, and the same command continues"
    told = [event["shard"] for event in before if event["event"] == "shard_committed"]
    assert told == list(range(len(told)))
    assert committed(out) - len(told) in (0, 1)  # the interruption may fall between a commit and its event


def test_a_training_tells_of_its_checkpoints_and_evaluations(stamp_rollouts: Path, tmp_path: Path) -> None:
    settings = {"steps": 5, "batch_size": 8, "latent_dim": 4, "holdout_every": 4, "architecture": "mlp", "checkpoint_every": 2}
    _, errors = run("wm-train", "--data", stamp_rollouts, "--out", tmp_path / "vae", *options(settings), *JSON)
    found = [event for event in events(errors) if event["event"] != "progress"]
    steps = [(event["event"], event.get("step")) for event in found]
    saved = [(name, step) for step in (2, 4, 5) for name in ("evaluated", "checkpoint_written")]
    assert steps == [("started", None), *saved, ("finished", None)]
    assert re.fullmatch("[0-9a-f]{64}", found[0]["spec_hash"])
    lines = [json.loads(line) for line in (tmp_path / "vae" / "metrics.jsonl").read_text().splitlines()]
    recorded = [line["elbo_nats"] for line in lines if line["group"] == "held-out"]
    assert [event["elbo_nats"] for event in found if event["event"] == "evaluated"] == recorded
    assert (found[-1]["steps"], found[-1]["new_steps"]) == (5, 5)
