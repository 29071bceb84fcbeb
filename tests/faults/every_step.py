"""A process that runs a stage again and again, each time killed with SIGKILL behind another step, and then run to its end.

    python -m tests.faults.every_step STAGE FOLDER [STRIDE]

Every run is a fork of a process that has imported everything and computed nothing, so a run costs no start. The steps
are those that an unbroken run announces (`worldmodel_v.steps`): nobody lists them by hand. Prints one JSON object a kill.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from tests.conftest import stamp_config
from worldmodel_v import steps
from worldmodel_v.collect import collect
from worldmodel_v.encode import EncodeConfig, encode
from worldmodel_v.envs import FramePreprocessor
from worldmodel_v.models import load_vae
from worldmodel_v.models.weights import WEIGHTS_NAME, metadata
from worldmodel_v.steps import Step
from worldmodel_v.storage import Shard, open_dataset, verify
from worldmodel_v.storage.publish import is_temporary
from worldmodel_v.train import TrainConfig, train
from worldmodel_v.train.best import load_best
from worldmodel_v.train.checkpoint import load_checkpoint

SMALL = {"env_kwargs": '{"length": 5}', "frame_size": 8, "episodes": 5, "episodes_per_shard": 2}


@dataclass(frozen=True)
class Stage:
    """A stage on a small input."""

    run: Callable[[Path], object]
    """Does the whole stage into a folder, or continues it there."""

    content: Callable[[Path], dict[str, str]]
    """What must come out the same whatever was killed: the SHA-256 of each file, by its name."""

    require_whole: Callable[[Path], None]
    """Raises if anything under a final name is torn; called on what a killed run left."""

    begin: Callable[[Path], None] = lambda out: None
    """Puts into the folder what the run shall find there."""


def whole_dataset(out: Path) -> None:
    if (out / "dataset.json").exists():
        findings = verify(open_dataset(out))
        assert [line for line in findings if "is not in the index" not in line] == []
    for shard in (out / "shards").glob("??????.h5"):
        with Shard.open(shard) as whole:
            for position in range(whole.num_episodes):
                whole.episode(position)


def dataset_content(out: Path) -> dict[str, str]:
    assert verify(open_dataset(out)) == []
    lines = sorted((out / "index.jsonl").read_bytes().splitlines())
    return _digests(out, ["dataset.json", "shards/*"]) | {"index": _sha256(b"\n".join(lines))}


def whole_training(out: Path) -> None:
    load_checkpoint(out)
    load_best(out)
    if (out / WEIGHTS_NAME).exists():
        load_vae(out)
    for file in (file for name in ("*.json", "metrics.jsonl") for file in out.glob(name) if not is_temporary(file)):
        for document in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
            json.loads(document)


def training_content(out: Path) -> dict[str, str]:
    whole_training(out)
    lines = [line for line in (out / "metrics.jsonl").read_text().splitlines() if '"train"' in line]
    names = ["*.safetensors", "checkpoints/*", "*.json", "*.png", "samples/*"]
    return _digests(out, names) | {"train": _sha256("\n".join(lines).encode())}


def break_dataset(out: Path) -> None:
    """A collection of these settings that was killed in the worst places: a torn line, unlisted shards, temporaries."""
    collect(stamp_config(out, **SMALL))
    lines = (out / "index.jsonl").read_bytes().splitlines(keepends=True)
    (out / "index.jsonl").write_bytes(lines[0] + lines[1][:40])
    torn = out / "shards" / "000002.h5"
    torn.write_bytes(torn.read_bytes()[:1000])
    (out / "shards" / ".tmp-1-000002.h5").write_bytes(b"half")


def train_small(out: Path) -> object:
    settings = {"steps": 4, "batch_size": 4, "latent_dim": 2, "architecture": "mlp", "checkpoint_every": 2, "keep": 2}
    return train(TrainConfig(data=out.parent / "rollouts", out=out, holdout_every=2, log_every=1, device="cpu", **settings))


def encode_small(out: Path) -> object:
    return encode(EncodeConfig(data=out.parent / "rollouts", vae=out.parent / "vae", out=out, device="cpu"))


STAGES = {
    "collect": Stage(lambda out: collect(stamp_config(out, **SMALL)), dataset_content, whole_dataset),
    "recover": Stage(lambda out: collect(stamp_config(out, **SMALL)), dataset_content, lambda out: None, break_dataset),
    "train": Stage(train_small, training_content, whole_training),
    "encode": Stage(encode_small, dataset_content, whole_dataset),
}


def main(stage: Stage, folder: Path, stride: int) -> None:
    """Kill behind every `stride`-th step of the stage, and say what came of it."""
    FramePreprocessor((64, 64, 3), "full", 8)(np.zeros((64, 64, 3), np.uint8))  # compiled here, not in every fork
    in_a_fork(lambda: make_inputs(stage, folder))
    for step in range(0, len(announced_steps(stage, folder)), stride):
        out = folder / f"killed-{step}"
        begin = in_a_fork(lambda out=out: stage.begin(out))
        killed = in_a_fork(lambda out=out: stage.run(out), kill_after=step)
        whole = in_a_fork(lambda out=out: stage.require_whole(out))
        finished = in_a_fork(lambda out=out: stage.run(out))
        same = in_a_fork(lambda out=out: require_same(stage, out, folder / "unbroken"))
        codes = {"begin": begin, "killed": killed, "whole": whole, "finished": finished, "same": same}
        kill = {"number": step, "step": announced_steps(stage, folder)[step], **codes}
        sys.stdout.write(json.dumps(kill) + "\n")
        sys.stdout.flush()
        shutil.rmtree(out)


def announced_steps(stage: Stage, folder: Path) -> list[str]:
    """The steps of an unbroken run, which the first call makes."""
    record = folder / "steps.json"
    if not record.exists():
        assert in_a_fork(lambda: record_steps(stage, folder / "unbroken", record)) == 0
    return json.loads(record.read_text())


def record_steps(stage: Stage, out: Path, record: Path) -> None:
    announced: list[str] = []
    stage.begin(out)
    steps.listener = lambda step: announced.append(step.name)
    stage.run(out)
    steps.listener = None
    record.write_text(json.dumps(announced))


def require_same(stage: Stage, out: Path, unbroken: Path) -> None:
    found, expected = stage.content(out), stage.content(unbroken)
    assert found == expected, sorted(found.items() ^ expected.items())


def make_inputs(stage: Stage, folder: Path) -> None:
    """Rollouts and a VAE for the stages that read them."""
    if stage.run in (train_small, encode_small):
        collect(stamp_config(folder / "rollouts", **SMALL))
    if stage.run is encode_small:
        train_small(folder / "vae")


def in_a_fork(work: Callable[[], object], kill_after: int | None = None) -> int:
    """How a fork ended that did some work: 0, 1 for an exception, or minus the signal that killed it.

    With `kill_after` it kills itself with SIGKILL as soon as it has announced that many steps and one more.
    """
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    code = 1
    try:
        torch.set_num_threads(1)
        if kill_after is not None:
            steps.listener = Killer(kill_after)
        work()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)
    return code


class Killer:
    """A listener that lets some steps pass and kills its process behind the next."""

    def __init__(self, passing: int) -> None:
        self._passing = passing

    def __call__(self, step: Step) -> None:
        if self._passing == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._passing -= 1


def _digests(folder: Path, patterns: list[str]) -> dict[str, str]:
    files = (file for pattern in patterns for file in folder.glob(pattern))
    return {str(file.relative_to(folder)): _content(file) for file in files}


def _content(file: Path) -> str:
    """A digest; of a safetensors file that of what it says, since the library writes metadata in any order."""
    if file.suffix != ".safetensors" or is_temporary(file):
        return _sha256(file.read_bytes())
    tensors = {name: tensor.numpy().tobytes().hex() for name, tensor in safetensors.torch.load_file(file).items()}
    return _sha256(json.dumps([tensors, metadata(file.read_bytes())], sort_keys=True).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main(STAGES[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
