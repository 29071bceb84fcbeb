"""Fuzzing for as long as a test run may take, each target in a process whose death would be seen."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile import fuzz
from worldmodel_v.errors import VerificationFailed

ROOT = Path(__file__).parents[2]


def run_fuzz(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.hostile.fuzz", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def assert_all_asked(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    asked = dict(line.split(": ") for line in done.stdout.splitlines()[1:])
    assert asked.keys() == {"corpus", *fuzz.TARGETS}
    assert all(int(inputs.removesuffix(" inputs")) > 0 for inputs in asked.values())


def test_every_parser_for_a_moment() -> None:
    assert_all_asked(run_fuzz("--inputs", 40, "--seed", 0))


def test_the_corpus_is_of_small_inputs_of_known_parsers() -> None:
    assert {folder.name for folder in fuzz.CORPUS.iterdir()} == fuzz.TARGETS.keys()
    assert all(file.stat().st_size <= 16_000 for target in fuzz.TARGETS for file in fuzz.corpus(target))


@pytest.mark.slow
def test_an_input_that_fails_is_named_with_its_place_in_the_corpus(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from tests.hostile import fuzz\n"
        "fuzz.TARGETS['index'] = (lambda content, _: os.abort(), fuzz.TARGETS['index'][1])\n"
        "fuzz.main()"
    )
    (tmp_path / "input").write_bytes(b"{")
    command = [sys.executable, "-c", code, "--target", "index", "--input", str(tmp_path / "input")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    name = hashlib.sha256(b"{").hexdigest()[:12]
    assert re.search(rf"(\S+/index\.last) fails; keep it: cp \1 {fuzz.CORPUS}/index/{name}$", done.stderr.strip())


@pytest.mark.slow
def test_every_parser_for_a_minute_from_a_new_seed() -> None:
    assert_all_asked(run_fuzz("--minutes", 1))


def test_what_is_changed_behind_checksums_mostly_gets_past_them() -> None:
    """Or the fuzzing of shards would test the checksums alone."""
    image = fuzz._shards()[1]
    pieces = fuzz.pieces_of(image)
    assert fuzz.mended(image, pieces) == image
    assert sum(piece.size for piece in pieces) > 0.8 * len(image) - 2048


@pytest.mark.parametrize("error", [IndexError("x"), RecursionError(), MemoryError(), VerificationFailed("two\nlines")])
def test_another_error_than_one_line_of_ours_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    def broken(content: bytes, _: Path) -> None:
        if b"{" in content:
            raise error

    monkeypatch.setitem(fuzz.TARGETS, "index", (broken, fuzz.TARGETS["index"][1]))
    with pytest.raises((type(error), AssertionError)):
        fuzz.fuzz("index", tmp_path, seed=0, inputs=50)
    assert b"{" in (tmp_path / "index.last").read_bytes()


def test_the_last_input_is_on_disk(tmp_path: Path) -> None:
    fuzz.ask("policy", b"driver(", tmp_path)
    assert (tmp_path / "policy.last").read_bytes() == b"driver("
