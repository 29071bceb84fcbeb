"""What a command reads from, it opens once: `dataset.json`, the index and the weights are read and checked a single time."""

from collections.abc import Callable
from pathlib import Path

import pytest

from worldmodel_v.data import LatentSequences
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.evaluation import EvalConfig, evaluate
from worldmodel_v.export.plain_npz import NpzConfig
from worldmodel_v.export.stage import export
from worldmodel_v.storage import files
from worldmodel_v.training import TrainConfig, train

SMALL = {"steps": 2, "batch_size": 8, "holdout_every": 2, "device": "cpu", "log_every": 1, "checkpoint_every": 2}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every file of a directory that is opened, in order."""
    opened: list[str] = []
    really = files.open_file

    def heard(path: Path, *rest: object, **named: object) -> int:
        opened.append(str(path))
        return really(path, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "open_file", heard)
    return opened


Work = Callable[[Path, Path, Path, Path], object]

STAGES: dict[str, tuple[Work, str, tuple[str, ...]]] = {
    "train": (lambda data, vae, latents, out: train(TrainConfig(data=data, out=out, **SMALL)), "rollouts", ()),
    "encode": (
        lambda data, vae, latents, out: encode(EncodeConfig(data=data, vae=vae, out=out, workers=0, device="cpu")),
        "rollouts",
        ("vae.safetensors",),
    ),
    "eval": (
        lambda data, vae, latents, out: evaluate(EvalConfig(data=data, vae=vae, out=out, frames=32, device="cpu")),
        "rollouts",
        ("vae.safetensors",),
    ),
    "export": (lambda data, vae, latents, out: export(NpzConfig(data=latents, out=out)), "latents", ()),
    "sequences": (lambda data, vae, latents, out: LatentSequences(latents, length=2)[0], "latents", ()),
}


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize("stage", STAGES)
def test_what_is_read_is_opened_once(
    stage: str, stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path, tmp_path: Path, opened: list[str]
) -> None:
    work, reads, weights = STAGES[stage]
    work(stamp_rollouts, stamp_vae, stamp_latents, tmp_path / "out")
    folder = {"rollouts": stamp_rollouts, "latents": stamp_latents}[reads]
    assert opened.count(str(folder / "dataset.json")) == 1
    assert opened.count(str(folder / "index.jsonl")) == 1
    assert [opened.count(str(stamp_vae / name)) for name in weights] == [1] * len(weights)


def test_continuing_reads_what_was_begun_once_before_it_takes_the_lock_and_once_under_it(
    stamp_rollouts: Path, stamp_vae: Path, tmp_path: Path, opened: list[str]
) -> None:
    config = EncodeConfig(data=stamp_rollouts, vae=stamp_vae, out=tmp_path / "out", workers=0, device="cpu")
    encode(config)
    opened.clear()
    encode(config)
    assert opened.count(str(tmp_path / "out" / "dataset.json")) == 2
    assert opened.count(str(stamp_rollouts / "dataset.json")) == 1
