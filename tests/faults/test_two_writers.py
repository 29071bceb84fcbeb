"""Two commands on one directory: one winner, and the other is told who it is; a lock that nobody holds holds nobody up."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.commands import committed, finish, options, start, wait_until
from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.storage import open_dataset, verify
from worldmodel_v.storage.lock import LOCK_NAME

MANY = {"env": "worldmodel_v/Stamp-v0", "env_kwargs": '{"length": 100}', "episodes": 150, "episodes_per_shard": 5, "seed": 7}
FEW = {**MANY, "episodes": 10}
WAITING_STAMP = """
import time
from pathlib import Path

import gymnasium

from worldmodel_v.envs.stamp import StampEnv


class WaitingStamp(StampEnv):
    def step(self, action):
        while not Path("go").exists():
            time.sleep(0.02)
        return super().step(action)


gymnasium.register("WaitingStamp-v0", entry_point="waiting_stamp:WaitingStamp")
"""


def test_of_two_collectors_that_start_together_one_wins_and_the_other_is_told_who(tmp_path: Path) -> None:
    """The winner's world stands still until the other has left."""
    out = tmp_path / "rollouts"
    (tmp_path / "waiting_stamp.py").write_text(WAITING_STAMP)
    command = ("wm-collect", "--out", out, "--workers", 0, *options({**FEW, "env": "waiting_stamp:WaitingStamp-v0"}))
    both = [start(*command, folder=tmp_path, PYTHONPATH=str(tmp_path)) for _ in range(2)]
    give_up = time.monotonic() + 300
    while all(process.poll() is None for process in both) and time.monotonic() < give_up:
        time.sleep(0.02)
    (tmp_path / "go").touch()
    errors = {process.pid: process.communicate()[1] for process in both}
    winner, loser = sorted(both, key=lambda process: process.returncode)
    assert (winner.returncode, loser.returncode) == (0, 2), errors
    assert f"{out}: another process (process {winner.pid} on " in errors[loser.pid]
    assert "is writing there; wait for it or stop it, then run again" in errors[loser.pid]
    assert verify(open_dataset(out)) == []
    assert open_dataset(out).num_episodes == 10


@pytest.mark.parametrize("stage", ["train", "encode"])
def test_of_two_commands_that_write_into_one_new_directory_one_wins(
    tmp_path: Path, stamp_rollouts: Path, stamp_vae: Path, stage: str
) -> None:
    """The other is refused, or finds all done if it began too late."""
    out = tmp_path / stage
    more = {
        "train": {"steps": 20, "checkpoint_every": 5, "latent_dim": 4, "batch_size": 16, "holdout_every": 4}
        | {"architecture": "conv"},
        "encode": {"vae": stamp_vae},
    }
    command = (f"wm-{stage}", *options({"data": stamp_rollouts, "out": out, "device": "cpu", **more[stage]}))
    both = [start(*command), start(*command)]
    errors = {process.pid: process.communicate()[1] for process in both}
    winner, loser = sorted(both, key=lambda process: process.returncode)
    assert winner.returncode == 0, errors
    if loser.returncode:
        assert loser.returncode == 2, errors
        assert f"{out}: another process (process {winner.pid} on " in errors[loser.pid]
    alone = tmp_path / "alone"
    finish(f"wm-{stage}", *options({"data": stamp_rollouts, "out": alone, "device": "cpu", **more[stage]}))
    made = {"train": ["vae.safetensors"], "encode": ["index.jsonl", "shards/000000.h5"]}[stage]
    assert [(out / name).read_bytes() for name in made] == [(alone / name).read_bytes() for name in made]


def test_a_live_collector_is_left_alone_and_a_killed_ones_lock_holds_nobody_up(tmp_path: Path) -> None:
    out = tmp_path / "rollouts"
    command = ("wm-collect", "--out", out, "--workers", 0, *options(MANY))
    first = start(*command)
    wait_until(lambda: committed(out) >= 1, first)
    second = start(*command)
    assert f"another process (process {first.pid} on " in second.communicate()[1]
    assert second.returncode == 2
    assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert f"process {first.pid} on" in (out / LOCK_NAME).read_text()
    finish(*command)
    assert verify(open_dataset(out)) == []


def test_a_lock_file_of_another_host_or_of_anything_holds_nobody_up(tmp_path: Path) -> None:
    for number, left in enumerate([b"process 1 on elsewhere\n", b"\xff\x00" * 4000, json.dumps({}).encode()]):
        out = tmp_path / str(number)
        out.mkdir()
        (out / LOCK_NAME).write_bytes(left)
        assert collect(stamp_config(out, **FEW)).new_episodes == 10
        assert verify(open_dataset(out)) == []
