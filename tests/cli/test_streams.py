"""Commands whose standard streams are full, closed, or read by nobody; and what a terminal shows at their end."""

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.commands import BIN, environment_here, options

STAMP = options({"env": "worldmodel_v/Stamp-v0", "episodes": 2, "max_steps": 5, "policy": "random"})
TRAINING = options({"steps": 2, "batch_size": 4, "latent_dim": 2, "architecture": "mlp", "holdout_every": 2, "device": "cpu"})
NOWHERE = ("--address", "http://127.0.0.1:1")

FULL, CLOSED = "No space left on device", "Bad file descriptor"
STREAMS = {
    ">/dev/full": (1, FULL),
    ">&-": (1, CLOSED),
    "2>/dev/full": (0, None),
    "2>&-": (0, None),
    ">/dev/full 2>/dev/full": (1, None),
    "<&- >&- 2>&-": (1, None),
    "2>/dev/full | true": (0, None),
    "2>&1 | true": (0, None),
}
"""What a shell does with the streams -> the exit code of a command that does its work, and why the result is not there."""


def shell(folder: Path, streams: str, *words: object) -> tuple[int, str, str]:
    """The exit code of a command and both outputs; it begins with no module imported and only those streams open."""
    script = f'"$@" {streams}; echo "${{PIPESTATUS[0]}}" > {folder}/code'
    command = ["bash", "-c", script, "bash", str(BIN / str(words[0])), *map(str, words[1:])]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment_here(), stdin=subprocess.DEVNULL)
    return int((folder / "code").read_text()), ran.stdout, ran.stderr


def assert_honest(folder: Path, streams: str, *words: object) -> None:
    expected, reason = STREAMS[streams]
    code, output, errors = shell(folder, streams, *words)
    assert code == expected, errors
    assert "Traceback" not in output + errors
    assert "Exception ignored" not in errors
    if reason:
        lost = f"{words[0]}: standard output: cannot be written ({reason}); all else is done"
        assert [line for line in errors.splitlines() if "standard output" in line] == [lost]
        assert errors.splitlines()[-1] == lost
    if ">" not in streams.replace("2>", "") and "|" not in streams:
        assert output


@pytest.mark.parametrize("streams", [">/dev/full", ">&-", "2>&-"])
def test_an_inspection(stamp_rollouts: Path, tmp_path: Path, streams: str) -> None:
    assert_honest(tmp_path, streams, "wm-inspect", stamp_rollouts)


@pytest.mark.parametrize(("streams", "code"), [(">/dev/full", 1), ("| true", 0)])
def test_help(tmp_path: Path, streams: str, code: int) -> None:
    found, output, errors = shell(tmp_path, streams, "wm-inspect", "--help")
    assert found == code
    assert "Traceback" not in output + errors
    assert len(errors.splitlines()) == code


@pytest.mark.parametrize("streams", [">&-", "2>&-"])
def test_a_refusal_keeps_its_exit_code(tmp_path: Path, streams: str) -> None:
    code, output, errors = shell(tmp_path, streams, "wm-inspect", "absent", "--json")
    assert code == 2
    assert "Traceback" not in output + errors
    assert ("absent: no such directory" in errors) == ("2>" not in streams)


def test_an_environment_may_print_where_there_is_no_room(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import os, sys, warnings\nfrom worldmodel_v.envs.stamp import StampEnv\nimport gymnasium\n"
        "class Env(StampEnv):\n    def step(self, action):\n"
        "        print('out')\n        print('err', file=sys.stderr, flush=True)\n        warnings.warn('w')\n"
        "        os.system('echo child')\n        return super().step(action)\n"
        "gymnasium.register('Own-v0', entry_point=Env)\n"
    )
    words = ("wm-collect", *STAMP[2:], "--env", "own:Own-v0", "--workers", 0, "--out", "out")
    code, output, _ = shell(tmp_path, "2>/dev/full", *words)
    assert code == 0
    assert output.split() == ["out", "out", "episodes", "2", "frames", "12", "new_episodes", "2"]


def test_no_file_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """Otherwise what is printed would be written into it."""
    (tmp_path / "own.py").write_text(
        "import os\nfrom worldmodel_v.envs.stamp import StampEnv\nimport gymnasium\n"
        "assert [os.readlink(f'/proc/self/fd/{number}') for number in range(3)] == ['/dev/null'] * 3\n"
        "gymnasium.register('Own-v0', entry_point=StampEnv)\n"
    )
    words = ("wm-collect", *STAMP[2:], "--env", "own:Own-v0", "--workers", 0, "--out", "out")
    assert shell(tmp_path, "<&- >&- 2>&-", *words)[0] == 1
    assert (tmp_path / "out" / "index.jsonl").read_text().count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("streams", STREAMS)
def test_every_other_command(stamp_rollouts: Path, stamp_vae: Path, tmp_path: Path, streams: str) -> None:
    data, both = ("--data", stamp_rollouts), ("--data", stamp_rollouts, "--vae", stamp_vae)
    assert_honest(tmp_path, streams, "wm-inspect", stamp_rollouts)
    assert_honest(tmp_path, streams, "wm-collect", *STAMP, "--workers", 0, "--out", "alone")
    assert_honest(tmp_path, streams, "wm-collect", *STAMP, "--workers", 1, "--out", "rollouts")
    assert_honest(tmp_path, streams, "wm-train", *data, *TRAINING, "--out", "vae")
    assert_honest(tmp_path, streams, "wm-encode", *both, "--workers", 0, "--out", "latents")
    assert_honest(tmp_path, streams, "wm-eval", *both, "--out", "evaluation")
    assert_honest(tmp_path, streams, "wm-export", "npz", *data, "--out", "npz")
    (tmp_path / "pipeline.yaml").write_text(
        "collect: {env: worldmodel_v/Stamp-v0, episodes: 2, max_steps: 5, policy: random, workers: 0}\n"
        "train: {steps: 2, batch_size: 4, latent_dim: 2, architecture: mlp, holdout_every: 2, device: cpu}\n"
        "encode: {workers: 0}\n"
    )
    assert_honest(tmp_path, streams, "wm-pipeline", "run", "pipeline.yaml", "--out", "all")
    assert shell(tmp_path, streams, "wm-pipeline", "status", *NOWHERE)[0] == 2


# On a terminal


def shown(folder: Path, *words: object) -> str:
    """What a terminal on both outputs is sent."""
    ours, its = pty.openpty()
    command = [str(BIN / str(words[0])), *map(str, words[1:])]
    process = subprocess.Popen(command, stdout=its, stderr=its, cwd=folder, env=environment_here())
    os.close(its)
    sent = b""
    try:
        while piece := os.read(ours, 65536):
            sent += piece
    except OSError:  # the terminal is gone: all has been read
        os.close(ours)
    process.wait()
    return sent.decode()


def test_asking_for_jobs_ends_with_its_answer(tmp_path: Path) -> None:
    assert shown(tmp_path, "wm-pipeline", "status", *NOWHERE).endswith("`ray start --head --dashboard-host 0.0.0.0`\r\n")


@pytest.mark.slow
def test_a_collection_by_workers_ends_with_its_result(tmp_path: Path) -> None:
    result, suggestion = shown(tmp_path, "wm-collect", *STAMP, "--workers", 1, "--out", "out").splitlines()[-2:]
    assert "new_episodes" in result
    assert suggestion == "next: wm-train --data out --out out-vae --holdout-every 2"
