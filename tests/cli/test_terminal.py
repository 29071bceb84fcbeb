"""What reaches a terminal, and what becomes of a command that cannot write to one: full, closed, or read by nobody."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import worldmodel_v.jobs
from tests.commands import run
from tests.evaluation.conftest import write_rollouts
from worldmodel_v.cli import inspect, pipeline
from worldmodel_v.cli.progress import open_progress
from worldmodel_v.errors import ConfigError, VerificationFailed, one_line
from worldmodel_v.untrusted import printable, shortened

HOSTILE = "a\x1b]0;title\x07\x9b2J\r\x7f\u202eb\n\u2028\ud800"
SHOWN = r"a\x1b]0;title\x07\x9b2J\r\x7f\u202eb\n\u2028\ud800"


def assert_printable(text: str) -> None:
    assert printable(text.replace("\n", "")) == text.replace("\n", "")


# Texts


def test_what_a_terminal_would_obey_is_spelled_out() -> None:
    assert printable(HOSTILE) == SHOWN
    assert printable("\t\u2066\u200b\ufeff\U000e0041") == r"\t\u2066\u200b\ufeff\U000e0041"
    assert printable("σ ≤ 3 … 漢字 \N{NO-BREAK SPACE}é 🙂\\x1b") == "σ ≤ 3 … 漢字 \N{NO-BREAK SPACE}é 🙂\\x1b"


def test_a_long_text_says_how_much_of_it_is_left_out() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("x" * 5_000_000, 10) == "xxxxxxxxxx… (4,999,990 more characters)"
    assert one_line(ValueError("\n " + "y" * 5_000_300 + "\nmore")) == f"ValueError: {'y' * 300}… (5,000,000 more characters)"


def test_an_error_whose_message_fails_says_so() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert one_line(Silent()) == "Silent: (its __str__ raises RuntimeError)"


def test_the_message_of_an_error_is_printable_and_its_parts_are_as_they_are() -> None:
    error = ConfigError(HOSTILE, where=HOSTILE, field="data", got=Path(HOSTILE), expected=HOSTILE, remedy=HOSTILE)
    assert_printable(str(error))
    assert "\n" not in str(error)
    assert error.parts["where"] == HOSTILE
    assert len(str(ConfigError("x" * 5_000_000, expected="y" * 5_000_000))) < 5_000
    assert str(VerificationFailed("one\x1b\ntwo")) == "one\\x1b\ntwo"


# Every way out


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """Rollouts whose settings hold what a terminal would obey, in a folder that is called so."""
    return write_rollouts(tmp_path / HOSTILE.replace("\ud800", ""), spec={"env": HOSTILE, "policy": HOSTILE})


def inspected(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> str:
    monkeypatch.setattr(sys, "argv", ["wm-inspect", *map(str, words)])
    inspect.main()
    return capsys.readouterr().out


def test_wm_inspect_shows_settings_and_paths(
    stranger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = inspected(monkeypatch, capsys, stranger)
    assert_printable(table)
    assert table.count(SHOWN) == 2
    assert SHOWN.removesuffix(r"\ud800") in table
    (policy,) = [line for line in table.splitlines() if line.startswith("policy ")]
    assert policy.split() == ["policy", SHOWN]
    assert json.loads(inspected(monkeypatch, capsys, stranger, "--json"))["settings"]["policy"] == HOSTILE


def test_json_on_standard_output_is_ascii(
    stranger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = inspected(monkeypatch, capsys, stranger, "--json")
    assert all(" " <= character <= "~" for character in text.replace("\n", ""))


def test_a_command_line_with_names_of_files_is_refused_with_what_can_be_printed(tmp_path: Path) -> None:
    named = HOSTILE.replace("\ud800", "")
    for words in ([named], [named, named], ["--preview", named, named], ["--data", named]):
        _, errors = run("wm-inspect", *words, code=2, folder=tmp_path)
        assert_printable(errors)
        assert r"\x1b]0;title" in errors or words == ["--data", named]  # where PATH is missing, which tyro says alone


OWN = r"""
import logging
import threading
import warnings
import gymnasium
from worldmodel_v.envs.stamp import StampEnv

class Env(StampEnv):
    def reset(self, **settings):
        gymnasium.logger.warn("gym\x1b[2J")
        warnings.warn("warn\x1b[2J")
        logging.getLogger("stranger").error("log\x1b[2J")
        thread = threading.Thread(target=int, args=("thread\u202e",))
        thread.start()
        thread.join()
        raise ValueError("\x1b]0;x\x07" + "y" * 5_000_000 + "\nmore")

gymnasium.register("Own-v0", entry_point=Env)
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_an_environment_raises_warns_and_logs(tmp_path: Path, form: str) -> None:
    (tmp_path / "own.py").write_text(OWN)
    words = ("--env", "own:Own-v0", "--workers", 0, "--episodes", 1, "--out", "out", "--policy", "random", "--log-format", form)
    _, errors = run("wm-collect", *words, code=2, folder=tmp_path)
    assert_printable(errors)
    assert len(errors) < 10_000
    assert r"\x1b]0;x\x07yyy" in errors.replace("\\\\", "\\")
    assert "more characters)" in errors
    for said in (r"WARN: gym\x1b[2J", r"UserWarning: warn\x1b[2J", r"log\x1b[2J", r"thread\u202e"):
        assert said in errors


def test_an_event_beside_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True, write=sys.stderr.write, flush=sys.stderr.flush))
    with open_progress("wm-collect", quiet=False, log_format="text") as progress:
        progress.say(f"<{HOSTILE}>")
        progress.task("train", 2, "steps").advance(1, loss=HOSTILE)
    assert f"<{SHOWN}>" in capsys.readouterr().err


def test_the_log_of_a_job_keeps_its_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    log = f"one\n{HOSTILE}\n"
    known = SimpleNamespace(
        get_job_info=lambda job: SimpleNamespace(
            submission_id=job, status="RUNNING", message=HOSTILE, metadata={}, start_time=1, end_time=None
        ),
        get_job_logs=lambda job: log,
    )
    monkeypatch.setattr(worldmodel_v.jobs, "_connect", lambda address: known)
    for command, expected in (("logs", f"one\n{SHOWN}\n".replace(r"b\n", "b\n")), ("status", None)):
        monkeypatch.setattr(sys, "argv", ["wm-pipeline", command, "job-1", "--address", "http://head:8265"])
        pipeline.main()
        printed = capsys.readouterr().out
        assert_printable(printed)
        assert expected in (printed, None)
