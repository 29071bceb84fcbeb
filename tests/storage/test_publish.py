"""Files are there whole or not at all, whatever the disk does."""

import errno
import os
import resource
from pathlib import Path

import pytest

from tests.builders import FullDisk, files_in
from worldmodel_v.errors import WriteFailed
from worldmodel_v.storage.publish import NO_LINKS, TEMPORARY_PREFIX, append_line, publish, publish_new, remove_temporaries


def test_a_new_file_is_put_in_place_whole_and_nothing_else_stays(tmp_path: Path) -> None:
    publish_new(tmp_path / "a", b"content")
    assert files_in(tmp_path) == {"a": b"content"}


def test_an_existing_file_is_never_overwritten_by_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        publish_new(tmp_path / "a", b"new")
    assert files_in(tmp_path) == {"a": b"old"}


def test_a_file_that_is_meant_to_be_replaced_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    publish(tmp_path / "a", b"new")
    assert files_in(tmp_path) == {"a": b"new"}


@pytest.mark.parametrize("kind", ["open", "write", "fsync file", "fsync folder", "link"])
def test_a_new_file_on_a_full_disk_is_not_there_or_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    FullDisk(monkeypatch, kind, fail_at=1)
    with pytest.raises(WriteFailed, match="free some space and run the same command again") as caught:
        publish_new(tmp_path / "a", b"content")
    assert str(caught.value).startswith(f"{tmp_path}")
    assert files_in(tmp_path) in ({}, {"a": b"content"})


@pytest.mark.parametrize("kind", ["open", "write", "fsync file", "fsync folder", "rename"])
def test_a_replacement_on_a_full_disk_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    FullDisk(monkeypatch, kind, fail_at=1)
    with pytest.raises(WriteFailed, match="free some space and run the same command again"):
        publish(tmp_path / "a", b"new")
    assert {name: content for name, content in files_in(tmp_path).items() if not name.startswith(TEMPORARY_PREFIX)} in (
        {"a": b"old"},
        {"a": b"new"},
    )


def test_the_message_of_a_failed_write_says_where_why_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FullDisk(monkeypatch, "write", fail_at=1)
    with pytest.raises(WriteFailed) as caught:
        publish_new(tmp_path / "a", b"content")
    assert str(caught.value) == (
        f"{tmp_path / 'a'}: could not write (No space left on device); nothing half-written is visible; "
        "free some space and run the same command again: it continues from what is committed"
    )


def test_a_folder_that_is_not_there_is_a_failed_write(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match=r"No such file or directory.*; mend the cause and run the same command again"):
        publish_new(tmp_path / "missing" / "a", b"content")


@pytest.mark.parametrize("number", NO_LINKS, ids=errno.errorcode.get)
def test_without_links_a_new_file_is_put_in_place_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    publish_new(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        publish_new(tmp_path / "a", b"second")
    assert files_in(tmp_path) == {"a": b"first"}
    FullDisk(monkeypatch, "rename", fail_at=1)
    with pytest.raises(WriteFailed, match="No space left"):
        publish_new(tmp_path / "b", b"third")
    assert files_in(tmp_path) == {"a": b"first"}


def test_lines_are_appended(tmp_path: Path) -> None:
    append_line(tmp_path / "lines", "one")
    append_line(tmp_path / "lines", "two")
    assert (tmp_path / "lines").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("kind", ["open", "write", "fsync file"])
def test_a_line_on_a_full_disk_is_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    FullDisk(monkeypatch, kind, fail_at=1)
    with pytest.raises(WriteFailed, match="free some space and run the same command again"):
        append_line(tmp_path / "lines", "one")


def test_a_line_that_the_disk_takes_only_half_of_is_a_failed_write(tmp_path: Path) -> None:
    """A write that meets the end of the space stores what fits and reports no error, only a smaller count."""
    append_line(tmp_path / "lines", "one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))
        with pytest.raises(WriteFailed):
            append_line(tmp_path / "lines", "a line of more than four bytes")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    append_line(tmp_path / "lines", "two")
    assert (tmp_path / "lines").read_bytes() == b"one\ntwo\n"


def test_only_temporaries_are_removed(tmp_path: Path) -> None:
    for name in (f"{TEMPORARY_PREFIX}123-000000.h5", "000000.h5", "tmp-1", ".lock"):
        (tmp_path / name).write_bytes(b"x")
    remove_temporaries(tmp_path, tmp_path)
    assert sorted(files_in(tmp_path)) == [".lock", "000000.h5", "tmp-1"]


def test_a_temporary_folder_is_left_alone(tmp_path: Path) -> None:
    """It is of an export, which may be at work."""
    (tmp_path / f"{TEMPORARY_PREFIX}0123456789abcdef").mkdir()
    (tmp_path / f"{TEMPORARY_PREFIX}1").symlink_to(tmp_path)
    remove_temporaries(tmp_path, tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == [f"{TEMPORARY_PREFIX}0123456789abcdef"]
