"""`set_aside.jsonl`: what is noted, what is forgotten, and what is refused."""

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest

from tests.builders import is_open, make_shard, rollout_spec
from worldmodel_v.errors import DatasetNotUsable, NotAFile
from worldmodel_v.records import NO_SEED
from worldmodel_v.storage import DatasetWriter, SetAside, open_dataset, verify
from worldmodel_v.storage.set_aside import MAX_LINE_BYTES, SET_ASIDE_NAME, as_reason, read_set_aside, write_set_aside

EPISODE = SetAside(episode=3, seed=1003, shard=1, first_episode=2, num_episodes=2, tries=4, reason="ValueError: boom")
LINE = (
    '{"episode": 3, "seed": 1003, "shard": 1, "first_episode": 2, "num_episodes": 2, "tries": 4, "reason": "ValueError: boom"}'
    + "\n"
)


def other(**changes: object) -> SetAside:
    return dataclasses.replace(EPISODE, **changes)


def test_a_note_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_set_aside(tmp_path, [EPISODE, other(episode=2)])
    assert (tmp_path / SET_ASIDE_NAME).read_text().splitlines(keepends=True)[0] == LINE
    assert read_set_aside(tmp_path) == [EPISODE, other(episode=2)]
    write_set_aside(tmp_path, [])
    assert list(tmp_path.iterdir()) == []
    assert read_set_aside(tmp_path) == []


@pytest.mark.parametrize("text", ["🚗" * 600, "\x1b[2J" + "x" * 600, "\ud800" * 501])
def test_any_text_becomes_a_reason_that_fits_a_line(tmp_path: Path, text: str) -> None:
    reason = as_reason(text)
    assert (len(reason), reason.isprintable()) == (500, True)
    write_set_aside(tmp_path, [other(reason=reason, seed=2**53 - 1)])
    assert (tmp_path / SET_ASIDE_NAME).stat().st_size < MAX_LINE_BYTES
    assert read_set_aside(tmp_path)[0].reason == reason
    assert as_reason("short") == "short"


def test_a_writer_replaces_what_it_noted_of_a_shard_and_forgets_what_is_committed(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, rollout_spec()) as writer:
        writer.set_aside()
        assert not (tmp_path / SET_ASIDE_NAME).exists()
        elsewhere = other(episode=8, shard=4, first_episode=8)
        writer.set_aside([elsewhere])
        writer.set_aside([EPISODE, other(episode=2)])
        writer.set_aside([EPISODE])
        assert open_dataset(tmp_path).set_aside() == [EPISODE, elsewhere]
        writer.commit(0, make_shard(0))
        writer.commit(1, make_shard(2))
        assert len(read_set_aside(tmp_path)) == 2
        assert open_dataset(tmp_path).set_aside() == [elsewhere]
        writer.set_aside()
        assert read_set_aside(tmp_path) == [elsewhere]
    assert verify(open_dataset(tmp_path)) == []


def test_a_note_under_settings_that_nothing_was_committed_with_is_forgotten_with_them(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, rollout_spec()) as writer:
        writer.set_aside([EPISODE])
    with DatasetWriter(tmp_path, rollout_spec()) as writer:
        assert writer.dataset().set_aside() == [EPISODE]
    with DatasetWriter(tmp_path, rollout_spec(seed=8)) as writer:
        assert writer.dataset().set_aside() == []


def test_an_episode_whose_seed_nobody_recorded_may_be_set_aside(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, rollout_spec()) as writer:
        writer.set_aside([other(seed=NO_SEED)])
    assert read_set_aside(tmp_path) == [other(seed=NO_SEED)]


BROKEN = {
    "no JSON": (LINE[:40], "Expecting property name"),
    "a number that is none": (LINE.replace("1003", '"1003"'), "seed must be a whole number from 0 and below 2^53"),
    "a truth value": (LINE.replace("1003", "true"), "seed must be a whole number from 0 and below 2^53, got True"),
    "a negative number": (LINE.replace("1003", "-2"), "seed must be a whole number"),  # -1: nobody recorded it
    "a reason that a terminal obeys": (LINE.replace("boom", "\\u001b[2J"), "reason must be at most 500 printable characters"),
    "a reason of two lines": (LINE.replace("boom", "\\n"), "reason must be at most 500 printable characters"),
    "a long reason": (LINE.replace("boom", "x" * 500), "reason must be at most 500 printable characters"),
    "a long line": (LINE.replace("boom", "x" * 10**6), "expected at most 8192 bytes"),
    "a field too many": (LINE.replace("{", '{"path": "x", '), "unexpected keyword argument 'path'"),
    "a field too few": (LINE.replace('"seed": 1003, ', ""), "missing 1 required keyword-only argument: 'seed'"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_line_that_is_none_is_refused_by_its_number(tmp_path: Path, what: str) -> None:
    content, reason = BROKEN[what]
    (tmp_path / SET_ASIDE_NAME).write_text(LINE + content)
    where = f"{tmp_path / SET_ASIDE_NAME}:2: not a line about an episode that was set aside ("
    with pytest.raises(DatasetNotUsable, match=f"^{re.escape(where)}.*{re.escape(reason)}") as caught:
        read_set_aside(tmp_path)
    assert str(caught.value).endswith("; delete the file, it holds no data")
    assert not is_open(tmp_path / SET_ASIDE_NAME)


def test_the_note_is_a_file_of_its_own(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data", rollout_spec()):
        pass
    elsewhere, note = tmp_path / "elsewhere", tmp_path / "data" / SET_ASIDE_NAME
    elsewhere.write_text(LINE)
    note.symlink_to(elsewhere)
    with pytest.raises(NotAFile, match="is a symbolic link"):
        open_dataset(tmp_path / "data").set_aside()
    note.unlink()
    os.mkfifo(note)
    with pytest.raises(NotAFile, match="is a pipe; expected the file itself"):
        open_dataset(tmp_path / "data").set_aside()


def test_json_is_the_fields_of_the_record() -> None:
    assert json.loads(LINE) == dataclasses.asdict(EPISODE)
