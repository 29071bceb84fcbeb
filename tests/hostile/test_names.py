"""Something else in the place of each file and folder that a command reads or writes: a link, a pipe, a socket, a folder."""

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import pytest

from tests.builders import files_in
from tests.conftest import stamp_config
from worldmodel_v.collection import collect
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.errors import WorldModelError
from worldmodel_v.evaluation import EvalConfig, evaluate
from worldmodel_v.export import export
from worldmodel_v.export.plain_npz import NpzConfig
from worldmodel_v.inspection import describe, describe_run, require_intact
from worldmodel_v.storage.publish import temporary_path
from worldmodel_v.training import TrainConfig, train

SECONDS = 120
"""After which a command that waits for a pipe fails its test, on however busy a machine."""


def link_to(kind: str) -> Callable[[Path, Path], None]:
    return lambda place, outside: place.symlink_to(outside / kind)


def a_socket(place: Path, _: Path) -> None:
    """Bound by its short name, since a socket's path has 107 bytes at most."""
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as opened:
        os.chdir(place.parent)
        try:
            opened.bind(place.name)
        finally:
            os.chdir(here)


HOSTILE: dict[str, Callable[[Path, Path], None]] = {
    "a link to a file": link_to("file"),
    "a link to a folder": link_to("folder"),
    "a link to nothing": link_to("nothing"),
    "a link to a device": lambda place, _: place.symlink_to("/dev/zero"),
    "a pipe": lambda place, _: os.mkfifo(place),
    "a socket": a_socket,
    "a folder": lambda place, _: (place / "inner").mkdir(parents=True),
}

HARMFUL = ["a link to a file", "a link to a folder", "a pipe", "a folder"]
"""For the tests that train or evaluate."""

FOLDERS = {
    "shards": [f"{number:06d}.h5" for number in range(3)],
    "checkpoints": ["step_0000002.safetensors"],
    "samples": ["step_0000002_prior.png"],
    "tensorboard": ["events.out.tfevents.1"],
}
"""What a folder is called decides what is deleted in it; so the folder that is linked to holds the same names."""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What no command may touch."""
    outside = tmp_path / "outside"
    for name in ("file", "folder/file", *(f"folder/{name}" for names in FOLDERS.values() for name in names)):
        (outside / name).parent.mkdir(parents=True, exist_ok=True)
        (outside / name).write_bytes(b"precious")
    return outside


@contextmanager
def ends_in_time() -> Iterator[None]:
    def fail(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def put(hostile: str, place: Path, outside: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    HOSTILE[hostile](place, outside)


def training(data: Path, out: Path, steps: int) -> TrainConfig:
    settings = {"batch_size": 16, "latent_dim": 8, "holdout_every": 4, "device": "cpu", "checkpoint_every": 2, "keep": 2}
    return TrainConfig(data=data, out=out, steps=steps, **settings)


# Names of a dataset


OF_A_DATASET = ["dataset.json", "index.jsonl", "set_aside.jsonl", ".lock", "shards", "shards/000000.h5", "shards/000002.h5"]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", OF_A_DATASET)
def test_in_the_place_of_a_part_of_a_dataset(
    stamp_rollouts: Path, tmp_path: Path, outside: Path, name: str, hostile: str
) -> None:
    """Shard 2 is not committed yet, so collecting has something to write."""
    data = tmp_path / "data"
    shutil.copytree(stamp_rollouts, data)
    lines = (data / "index.jsonl").read_text().splitlines(keepends=True)
    (data / "index.jsonl").write_text("".join(lines[:2]))
    (data / "shards/000002.h5").unlink()
    put(hostile, data / name, outside)
    before = files_in(outside)
    with ends_in_time():
        for look in (describe, describe_run, require_intact):
            with suppress(WorldModelError):
                look(data)
        with pytest.raises(WorldModelError) as caught:
            collect(stamp_config(data))
    assert caught.value.where is not None
    assert data in (place := Path(caught.value.where), *place.parents)
    assert files_in(outside) == before


# Names of a training


OF_A_TRAINING = [
    *("checkpoint.safetensors", "best.safetensors", "vae.safetensors", "config.json", "heldout.json", "reconstructions.png"),
    *("metrics.jsonl", "checkpoints", "checkpoints/step_0000002.safetensors", "samples", "tensorboard", ".lock"),
    "samples/step_0000004_prior.png",
]


@pytest.fixture(scope="module")
def begun(stamp_rollouts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of two steps, to be continued."""
    out = tmp_path_factory.mktemp("begun") / "vae"
    train(training(stamp_rollouts, out, steps=2))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("hostile", HARMFUL)
@pytest.mark.parametrize("name", OF_A_TRAINING)
def test_in_the_place_of_a_part_of_a_training(
    begun: Path, stamp_rollouts: Path, tmp_path: Path, outside: Path, name: str, hostile: str
) -> None:
    out = tmp_path / "vae"
    shutil.copytree(begun, out)
    put(hostile, out / name, outside)
    before = files_in(outside)
    with ends_in_time():
        for look in (describe, describe_run):
            with suppress(WorldModelError):
                look(out)
        with suppress(WorldModelError):
            encode(EncodeConfig(data=stamp_rollouts, vae=out, out=tmp_path / "latents", device="cpu"))
        with suppress(WorldModelError):
            train(training(stamp_rollouts, out, steps=4))
    assert files_in(outside) == before


# Names of latents, of an evaluation, of an export


@pytest.mark.slow
@pytest.mark.parametrize("hostile", HARMFUL)
@pytest.mark.parametrize("name", [*OF_A_DATASET[:5], "shards/000000.h5"])
def test_in_the_place_of_a_part_of_latents(
    stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path, tmp_path: Path, outside: Path, name: str, hostile: str
) -> None:
    out = tmp_path / "latents"
    shutil.copytree(stamp_latents, out)
    put(hostile, out / name, outside)
    before = files_in(outside)
    with ends_in_time():
        with suppress(WorldModelError):
            encode(EncodeConfig(data=stamp_rollouts, vae=stamp_vae, out=out, device="cpu"))
        with suppress(WorldModelError):
            export(NpzConfig(data=out, out=tmp_path / "npz"))
    assert files_in(outside) == before


@pytest.mark.slow
@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize("hostile", HARMFUL)
@pytest.mark.parametrize("name", ["metrics.json", "report.html", "reconstructions.png", ".lock"])
def test_in_the_place_of_a_part_of_an_evaluation(
    stamp_rollouts: Path, stamp_vae: Path, tmp_path: Path, outside: Path, name: str, hostile: str
) -> None:
    out = tmp_path / "eval"
    out.mkdir()
    put(hostile, out / name, outside)
    before = files_in(outside)
    with ends_in_time(), suppress(WorldModelError):
        evaluate(EvalConfig(vae=stamp_vae, data=stamp_rollouts, out=out, frames=20, device="cpu"))
    assert files_in(outside) == before


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("inner", ["", ".lock", "building"])
def test_in_the_hidden_place_where_an_export_is_built(
    stamp_latents: Path, tmp_path: Path, outside: Path, hostile: str, inner: str
) -> None:
    hidden = temporary_path((tmp_path / "npz").resolve())
    if inner:
        hidden.mkdir()
    put(hostile, hidden / inner, outside)
    before = files_in(outside)
    with ends_in_time(), suppress(WorldModelError):
        export(NpzConfig(data=stamp_latents, out=tmp_path / "npz"))
    assert files_in(outside) == before
