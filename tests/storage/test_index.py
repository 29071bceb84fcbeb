"""`index.jsonl`: what is dropped, what is refused, and in which words."""

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import is_open
from worldmodel_v.errors import ShardDamaged
from worldmodel_v.storage.index import IndexEntry, complete_lines, read_index, shard_name

NUMBERS = st.integers(0, 2**53 - 1)


def entry(shard: int, first: int | None = None, num_episodes: int = 2, **changes: object) -> IndexEntry:
    settings = {"num_rows": 12, "bytes": 1000 + shard, "sha256": f"{shard:064x}"}
    first_episode = 2 * shard if first is None else first
    return IndexEntry(shard=shard, first_episode=first_episode, num_episodes=num_episodes, **{**settings, **changes})


def write_index(folder: Path, *lines: str) -> Path:
    path = folder / "index.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_no_file_is_an_empty_index(tmp_path: Path) -> None:
    assert read_index(tmp_path / "index.jsonl") == []


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        IndexEntry,
        shard=NUMBERS,
        first_episode=NUMBERS,
        num_episodes=NUMBERS,
        num_rows=NUMBERS,
        bytes=NUMBERS,
        sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
        source_sha256=st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
    )
)
def test_a_line_comes_back_as_the_entry_it_was_made_from(made: IndexEntry) -> None:
    line = made.to_line()
    assert "\n" not in line
    assert IndexEntry(**json.loads(line)) == made


def test_the_line_of_a_rollout_shard_is_what_the_format_says() -> None:
    assert entry(3).to_line() == (
        '{"shard": 3, "first_episode": 6, "num_episodes": 2, "num_rows": 12, "bytes": 1003, "sha256": "' + f"{3:064x}" + '"}'
    )


def test_lines_in_any_order_come_back_in_the_order_of_shards(tmp_path: Path) -> None:
    entries = [entry(shard) for shard in range(10)]
    shuffled = random.Random(0).sample(entries, len(entries))
    assert shuffled != entries
    assert read_index(write_index(tmp_path, *(one.to_line() for one in shuffled))) == entries


def test_a_torn_last_line_is_dropped_wherever_it_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "index.jsonl"
    whole, last = (entry(0).to_line() + "\n").encode(), (entry(1).to_line() + "\n").encode()
    for length in range(len(last)):
        path.write_bytes(whole + last[:length])
        assert read_index(path) == [entry(0)]
    path.write_bytes(whole + last)
    assert read_index(path) == [entry(0), entry(1)]


@pytest.mark.parametrize("byte", [b"\x0b", b"J", b"*", b"\0", b"x"])
def test_a_last_line_that_ends_in_another_byte_than_a_newline_was_torn_by_no_kill(tmp_path: Path, byte: bytes) -> None:
    path = tmp_path / "index.jsonl"
    path.write_bytes((entry(0).to_line() + "\n" + entry(1).to_line()).encode() + byte)
    with pytest.raises(ShardDamaged, match=f"^{re.escape(str(path))}:2: not a line of an index"):
        read_index(path)


@pytest.mark.parametrize(
    ("content", "kept"), [(b"", b""), (b"torn", b""), (b"a\n", b"a\n"), (b"a\nb", b"a\n"), (b"a\n\nb", b"a\n\n")]
)
def test_complete_lines_end_at_the_last_newline(content: bytes, kept: bytes) -> None:
    assert complete_lines(content) == kept


VALID = {"shard": 1, "first_episode": 2, "num_episodes": 2, "num_rows": 12, "bytes": 10, "sha256": "0" * 64}
MALFORMED = {
    "torn": ('{"shard": 1, "first', "Unterminated string"),
    "blank": ("", "Expecting value"),
    "a list": ("[1, 2]", ""),
    "a number": ("7", ""),
    "not UTF-8": ("\udcff", ""),
    "deeply nested": ("[" * 100_000, "expected at most 1024 bytes"),
    "a missing field": (json.dumps({"shard": 1}), "missing 5 required keyword-only arguments"),
    "an unknown field": (json.dumps({**VALID, "path": "../x.h5"}), "unexpected keyword argument 'path'"),
    "a path as shard": (json.dumps({**VALID, "shard": "../../etc/passwd"}), "shard must be a whole number from 0, got '../.."),
    "a negative shard": (json.dumps({**VALID, "shard": -1}), "shard must be a whole number from 0, got -1"),
    "a number that other programs would round": (json.dumps({**VALID, "bytes": 2**53}), "bytes must be below 2^53, got 90071"),
    "a number of a thousand digits": ('{"shard": ' + 1000 * "9" + "}", "a whole number of 1000 digits"),
    "a name that stands twice": (json.dumps(VALID)[:-1] + ', "shard": 0}', "a name stands twice"),
    "a line without end": (json.dumps(VALID) + " " * 10_000, "expected at most 1024 bytes"),
    "deeply nested, in few bytes": ("[" * 1000, "not a line of an index"),
    "a float": (json.dumps({**VALID, "num_rows": 12.0}), "num_rows must be a whole number from 0, got 12.0"),
    "a truth value": (json.dumps({**VALID, "num_episodes": True}), "num_episodes must be a whole number from 0, got True"),
    "infinity": (json.dumps({**VALID, "bytes": float("inf")}), "bytes must be a whole number from 0, got inf"),
    "a short hash": (json.dumps({**VALID, "sha256": "0" * 63}), "sha256 must be 64 hexadecimal digits"),
    "a hash of other letters": (json.dumps({**VALID, "sha256": "x" * 64}), "sha256 must be 64 hexadecimal digits"),
    "a wrong source hash": (json.dumps({**VALID, "source_sha256": 5}), "source_sha256 must be 64 hexadecimal digits, got 5"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_line_in_the_middle_is_refused_with_file_and_line(tmp_path: Path, what: str) -> None:
    line, reason = MALFORMED[what]
    path = tmp_path / "index.jsonl"
    lines = [entry(0).to_line(), line, entry(2).to_line()]
    path.write_bytes("".join(one + "\n" for one in lines).encode(errors="surrogateescape"))
    with pytest.raises(ShardDamaged, match=f"^{re.escape(str(path))}:2: not a line of an index") as caught:
        read_index(path)
    assert reason in str(caught.value)
    assert str(caught.value).endswith("delete the line to have its shard verified and adopted again")
    assert not is_open(path)


OVERLAPPING = {
    "the same shard twice": [entry(0), entry(0)],
    "the same shard twice, once with its source": [entry(0), entry(0, source_sha256="a" * 64)],
    "the same episodes in two shards": [entry(0, 0), entry(1, 0)],
    "one episode in two shards": [entry(0, 0, 3), entry(1, 2)],
    "a shard within another": [entry(0, 0, 10), entry(1, 4, 2)],
}


@pytest.mark.parametrize("what", OVERLAPPING)
def test_an_episode_that_is_there_twice_is_refused(tmp_path: Path, what: str) -> None:
    path = write_index(tmp_path, *(one.to_line() for one in OVERLAPPING[what]))
    with pytest.raises(ShardDamaged, match=f"^{re.escape(str(path))}: .*hold the same episode twice; delete the wrong line$"):
        read_index(path)


def test_the_message_of_an_overlap_names_both_shards_and_their_episodes(tmp_path: Path) -> None:
    path = write_index(tmp_path, entry(0, 0, 3).to_line(), entry(1, 2).to_line())
    with pytest.raises(ShardDamaged) as caught:
        read_index(path)
    assert str(caught.value) == (
        f"{path}: shards/000000.h5 (episodes 0 to 2) and shards/000001.h5 (from 2) hold the same episode twice; "
        "delete the wrong line"
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**52 - 1))
def test_a_shards_path_always_lies_in_the_folder_of_shards(number: int) -> None:
    assert re.fullmatch(r"shards/[0-9]{6,}\.h5", shard_name(number))
    assert entry(number).name == shard_name(number)


def test_a_shards_number_gives_its_name_and_episodes() -> None:
    assert entry(12).name == "shards/000012.h5"
    assert entry(12, first=30, num_episodes=4).end_episode == 34
