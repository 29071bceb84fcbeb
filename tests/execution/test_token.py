"""The token of a local Ray: for its user alone, from the start."""

import os
import stat
from pathlib import Path

import pytest

from worldmodel_v.execution import connection


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    return tmp_path


def test_it_is_made_for_its_user_alone(home: Path) -> None:
    before = os.umask(0)
    try:
        connection._have_a_token()
    finally:
        os.umask(before)
    folder = home / ".ray"
    assert [item.name for item in folder.iterdir()] == ["auth_token"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "auth_token").stat().st_mode) == 0o600
    assert len(bytes.fromhex((folder / "auth_token").read_text())) == 32


def test_one_that_is_there_stays(home: Path) -> None:
    connection._have_a_token()
    token = (home / ".ray" / "auth_token").read_text()
    connection._have_a_token()
    assert (home / ".ray" / "auth_token").read_text() == token


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"])
def test_none_is_made_for_who_says_how_to_do_without(home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "disabled")
    connection._have_a_token()
    assert list(home.iterdir()) == []


def test_where_there_is_no_room_it_is_in_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".ray").write_text("a file")
    connection._have_a_token()
    assert len(bytes.fromhex(os.environ["RAY_AUTH_TOKEN"])) == 32
