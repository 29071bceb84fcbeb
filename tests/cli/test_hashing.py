"""A command begins anew with PYTHONHASHSEED=0, and only a command."""

import os
import sys
from typing import Any

import pytest

from worldmodel_v.cli.hashing import hash_alike

WORDS = ["/bin/wm-collect", "--out", "a b"]


@pytest.mark.parametrize(
    ("argv", "orig_argv", "seed", "begins"),
    [
        (WORDS, ["python", "-X", "dev", *WORDS], None, True),
        (WORDS, ["python", *WORDS], "1", True),
        (WORDS, ["python", *WORDS], "0", False),
        (["wm-collect", "--out"], ["python", "-m", "worldmodel_v", "collect", "--out"], None, True),
        (["wm-collect", "--out"], ["python", "-m", "other", "collect", "--out"], None, False),
        (WORDS, ["python", "tests/fork_server.py", "3"], None, False),
        (["mine.py"], ["python", "mine.py"], None, False),
        (["-"], ["python", "-"], None, False),
        (["-c"], ["python", "-c", "main()"], None, False),
    ],
)
def test_only_a_command_without_the_hash_seed_0_begins_anew(
    argv: list[str], orig_argv: list[str], seed: str | None, begins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, list[str], Any]] = []
    monkeypatch.setattr(os, "execve", lambda *call: begun.append(call))
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    monkeypatch.setenv("PYTHONHASHSEED", seed) if seed else monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    hash_alike()
    expected = [(sys.executable, [sys.executable, *orig_argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})]
    assert begun == (expected if begins else [])
