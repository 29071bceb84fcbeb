"""Whatever fsspec reaches is a place to read from, a filesystem of one's own too."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.builders import files_in
from tests.extending import shelf
from tests.extending.shelf import Shelf
from worldmodel_v import EncodeConfig, LatentSequences, TrainConfig, open_dataset, verify
from worldmodel_v.encoding import encode
from worldmodel_v.training import train

MOST_LINES = 40


@pytest.fixture(autouse=True)
def filled(stamp_rollouts: Path, stamp_latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shelf with the toy world's datasets."""
    monkeypatch.setattr(Shelf, "database", tmp_path / "shelf.db")
    with closing(sqlite3.connect(Shelf.database)) as connection, connection:
        connection.execute("CREATE TABLE files (name TEXT PRIMARY KEY, content BLOB)")
        for folder in (stamp_rollouts, stamp_latents):
            rows = [(f"{folder.name}/{name}", content) for name, content in files_in(folder).items()]
            connection.executemany("INSERT INTO files VALUES (?, ?)", rows)


def test_a_users_file_is_short() -> None:
    assert len(Path(shelf.__file__).read_text().splitlines()) <= MOST_LINES


def test_all_that_reads_reads_from_it(stamp_vae: Path, stamp_latents: Path, tmp_path: Path) -> None:
    assert verify(open_dataset("shelf://rollouts")) == []
    found, expected = LatentSequences("shelf://latents", length=4), LatentSequences(stamp_latents, length=4)
    assert found.batch([0, 9])["z"].equal(expected.batch([0, 9])["z"])
    train(TrainConfig(data="shelf://rollouts", out=tmp_path / "vae", steps=1, holdout_every=4, batch_size=8, device="cpu"))
    encode(EncodeConfig(data="shelf://rollouts", vae=stamp_vae, out=tmp_path / "latents", device="cpu"))
    assert files_in(tmp_path / "latents" / "shards") == files_in(stamp_latents / "shards")
