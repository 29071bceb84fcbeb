"""What the system does not read (too many open files, an error of the disk) is not called damaged: it may be sound."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import files_in
from tests.conftest import stamp_config
from worldmodel_v.autoencoders.artifact import load, read_training
from worldmodel_v.collection import collect
from worldmodel_v.errors import ReadFailed
from worldmodel_v.inspection import describe, require_intact
from worldmodel_v.storage import open_dataset
from worldmodel_v.storage.directory import read_object

ERRORS = {"too many open files": errno.EMFILE, "a stale handle": errno.ESTALE, "an error of the disk": errno.EIO}
DATASET = {"dataset.json": open_dataset, "index.jsonl": open_dataset, "shards/000001.h5": require_intact}
MODEL = {"vae.safetensors": load, "config.json": read_training, "checkpoint.safetensors": describe}


def fail(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Have the system read no file of this name."""

    def guarded(real: Callable) -> Callable:
        def call(file: object, *rest: object, **named: object) -> object:
            path = Path(f"/proc/self/fd/{file}").readlink() if isinstance(file, int) else Path(os.fspath(file))
            if path.name == name:
                raise OSError(number, os.strerror(number), *([] if isinstance(file, int) else [str(path)]))
            return real(file, *rest, **named)

        return call

    for call in ("open", "pread"):
        monkeypatch.setattr(os, call, guarded(getattr(os, call)))
    monkeypatch.setattr(Path, "open", guarded(Path.open))


@pytest.mark.parametrize("number", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("name", [*DATASET, *MODEL])
def test_a_failure_to_read_is_told_as_one_and_nothing_is_to_be_deleted(
    monkeypatch: pytest.MonkeyPatch, stamp_rollouts: Path, stamp_vae: Path, name: str, number: int
) -> None:
    folder = stamp_rollouts if name in DATASET else stamp_vae
    fail(monkeypatch, Path(name).name, number)
    with pytest.raises(ReadFailed) as caught:
        (DATASET | MODEL)[name](folder)
    assert str(caught.value) == (
        f"{folder / name}: cannot be read ({os.strerror(number)}); mend the cause and run the same command again: "
        "the file itself may be sound"
    )


def test_a_shard_that_fails_once_to_be_read_is_no_finding_of_a_verification(
    monkeypatch: pytest.MonkeyPatch, stamp_rollouts: Path
) -> None:
    with monkeypatch.context() as patch:
        fail(patch, "000002.h5", errno.EMFILE)
        with pytest.raises(ReadFailed):
            require_intact(stamp_rollouts)
    assert require_intact(stamp_rollouts).endswith("every byte as indexed")


def test_a_shard_without_its_line_stays_where_it_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, stamp_rollouts: Path, tmp_path: Path
) -> None:
    """Continuing adopts it, or removes it if it is damaged."""
    data = tmp_path / "data"
    shutil.copytree(stamp_rollouts, data)
    lines = (data / "index.jsonl").read_text().splitlines(keepends=True)
    (data / "index.jsonl").write_text("".join(lines[:2]))
    before = files_in(data / "shards")
    with monkeypatch.context() as patch:
        fail(patch, "000002.h5", errno.EIO)
        with pytest.raises(ReadFailed, match=r"000002\.h5: cannot be read"):
            collect(stamp_config(data))
    assert files_in(data / "shards") == before
    assert collect(stamp_config(data)).new_episodes == 0


def test_the_figures_of_another_evaluation_are_not_taken_for_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Otherwise an evaluation would replace that of another VAE."""
    assert read_object(tmp_path / "metrics.json") is None
    (tmp_path / "metrics.json").write_text('{"identity": {}}')
    with monkeypatch.context() as patch:
        fail(patch, "metrics.json", errno.EMFILE)
        with pytest.raises(ReadFailed, match=r"metrics\.json: cannot be read"):
            read_object(tmp_path / "metrics.json")
    assert read_object(tmp_path / "metrics.json") == {"identity": {}}
