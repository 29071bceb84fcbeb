"""A process that runs stages again and again, each time stopped behind another step, and then run to its end.

    python tests/faults/every_step.py FOLDER SIGNAL STAGE:STRIDE...

SIGNAL is SIGKILL, or SIGINT as from Ctrl-C, and is sent behind every STRIDE-th step. Every run is a fork of a process that has
imported everything and computed nothing (itself a fork of `tests.fork_server`), so a run costs no start. The steps are those
that an unbroken run announces (`worldmodel_v.steps`): nobody lists them by hand. Prints one JSON object for each stop.
"""

import errno
import functools
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from tests.conftest import stamp_config
from worldmodel_v import steps
from worldmodel_v.autoencoders.artifact import WEIGHTS_NAME, metadata
from worldmodel_v.autoencoders.gaussian import load_vae
from worldmodel_v.cli.inspect import InspectConfig, inspect
from worldmodel_v.collection import collect
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.envs import STAMP_ENV_ID, FramePreprocessor
from worldmodel_v.evaluation import EvalConfig, evaluate
from worldmodel_v.export import FORMATS, export
from worldmodel_v.export.model import ModelExportConfig, export_model
from worldmodel_v.pipeline import run_pipeline
from worldmodel_v.preprocessing import Preprocessing
from worldmodel_v.progress import Silent
from worldmodel_v.selection import SelectConfig, select
from worldmodel_v.steps import Step
from worldmodel_v.storage import Shard, open_dataset, verify
from worldmodel_v.storage.dataset import read_spec
from worldmodel_v.storage.index import complete_lines
from worldmodel_v.storage.publish import is_temporary
from worldmodel_v.training import TrainConfig, train
from worldmodel_v.training.best import load_best
from worldmodel_v.training.checkpoint import load_checkpoint

INTERRUPTED = 130
BEGUN = "begun"
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

    begin: Callable[[Path], object] = lambda out: None
    """Puts into the folder what the run shall find there."""

    reads: tuple[str, ...] = ()
    """Which of "rollouts" and "vae" must stand beside the folder."""

    imports: tuple[str, ...] = ()
    """What it imports when it gets there, which takes seconds."""


def whole_dataset(out: Path, *, names_are_taken: bool = False) -> None:
    """With `names_are_taken`, a shard may be an empty file."""
    if (out / "dataset.json").exists():
        harmless = ("is not in the index", "episodes between the committed ones are missing")  # workers commit in any order
        findings = verify(open_dataset(out))
        assert [line for line in findings if not any(words in line for words in harmless)] == []
    for shard in (out / "shards").glob("??????.h5"):
        if names_are_taken and not shard.stat().st_size:
            continue
        with Shard.open(shard, read_spec(out).schema) as whole:
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
    for file in (file for file in out.glob("*.json") if not is_temporary(file)):
        json.loads(file.read_text())
    if (out / "metrics.jsonl").exists():
        for line in complete_lines((out / "metrics.jsonl").read_bytes()).splitlines():
            json.loads(line)


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


def collect_without_links(out: Path) -> object:
    """On a file system such as vfat, SMB, and some of FUSE."""

    def refused(*_: object, **named: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", refused)
        return collect(stamp_config(out, **SMALL))


def train_small(out: Path) -> object:
    settings = {"steps": 4, "batch_size": 4, "latent_dim": 2, "architecture": "mlp", "checkpoint_every": 2, "keep": 2}
    return train(TrainConfig(data=out.parent / "rollouts", out=out, holdout_every=2, log_every=1, device="cpu", **settings))


def train_sharply(out: Path) -> object:
    settings = {"steps": 3, "batch_size": 4, "latent_dim": 2, "architecture": "mlp", "checkpoint_every": 1}
    losses: dict[str, Any] = {"error_weight": "gradient", "adversarial": 0.5, "adversarial_start": 1, "perceptual": 0.1}
    losses |= {"total_correlation": 1.0, "total_correlation_estimator": "discriminator"}
    files = {"data": out.parent / "rollouts", "out": out}
    return train(TrainConfig(**files, holdout_every=2, log_every=1, device="cpu", **settings, **losses))


def encode_small(out: Path) -> object:
    return encode(EncodeConfig(data=out.parent / "rollouts", vae=out.parent / "vae", out=out, device="cpu"))


def select_small(out: Path) -> object:
    """A shard that is copied and one that is put together."""
    return select(SelectConfig(data=(out.parent / "rollouts",), out=out, drop="2,4"))


def evaluate_small(out: Path, frames: int = 40) -> object:
    return evaluate(EvalConfig(data=out.parent / "rollouts", vae=out.parent / "vae", out=out, frames=frames, device="cpu"))


def whole_evaluation(out: Path) -> None:
    """Figures say the truth about all files, a page is one to its end, and every picture is one."""
    if (out / "metrics.json").exists():
        files = json.loads((out / "metrics.json").read_text())["files"]
        assert {name: _sha256((out / name).read_bytes()) for name in files} == files
    if (out / "report.html").exists():
        assert (out / "report.html").read_text().endswith("</html>\n")
    for picture in out.glob("*.png"):
        whole_picture(picture)


def evaluation_content(out: Path) -> dict[str, str]:
    """The page names the folders of its sources, which may be others, and the figures have a hash of the page."""
    whole_evaluation(out)
    metrics = json.loads((out / "metrics.json").read_text())
    page = (out / "report.html").read_text().replace(str(out.parent), "HERE")
    del metrics["files"]["report.html"]
    return _digests(out, ["*.png"]) | {"page": _sha256(page.encode()), "metrics": _sha256(json.dumps(metrics).encode())}


def whole_picture(picture: Path) -> None:
    if picture.exists():
        Image.open(picture).load()


def export_small(format_: str, out: Path) -> None:
    """An export is made whole or not at all, and never made again where it is."""
    if not (place := out / "toy-v0").exists():
        export(FORMATS[format_](data=out.parent / "rollouts", out=place))


def export_small_model(out: Path) -> None:
    if not (place := out / "model").exists():
        config = {
            "data": out.parent / "rollouts",
            "vae": out.parent / "vae",
            "formats": ("torch.export",),
        }  # TorchScript's bytes vary
        export_model(ModelExportConfig(out=place, **config))


def export_content(out: Path) -> dict[str, str]:
    return {name: digest for name, digest in _digests(out, ["**/*"]).items() if ".tmp-" not in name}


def whole_export(out: Path) -> None:
    assert export_content(out) in ({}, export_content(out.parent / "unbroken"))


def preview_small(out: Path) -> object:
    out.mkdir(exist_ok=True)
    return inspect(InspectConfig(path=out.parent / "rollouts", preview=out / "frames.png"), Silent())


PIPELINE = f"""
collect: {{env: {STAMP_ENV_ID}, env_kwargs: '{{"length": 5}}', frame_size: 8, episodes: 4, episodes_per_shard: 2, workers: 0}}
train: {{steps: 2, batch_size: 4, latent_dim: 2, architecture: mlp, holdout_every: 2, device: cpu}}
eval: {{frames: 20, device: cpu}}
encode: {{device: cpu}}
"""


def run_small_pipeline(out: Path) -> object:
    file = out.parent / "pipeline.yaml"
    file.write_text(PIPELINE)
    return run_pipeline(file, out)


def whole_pipeline(out: Path) -> None:
    for name in ("rollouts", "latents"):
        whole_dataset(out / name)
    whole_training(out / "vae")
    whole_evaluation(out / "eval")
    whole_picture(out / "rollouts.png")


def pipeline_content(out: Path) -> dict[str, str]:
    parts = {"rollouts": dataset_content, "vae": training_content, "eval": evaluation_content, "latents": dataset_content}
    inside = {f"{part}/{name}": digest for part, of in parts.items() for name, digest in of(out / part).items()}
    return inside | _digests(out, ["*"])


def _export_stage(format_: str) -> Stage:
    return Stage(functools.partial(export_small, format_), export_content, whole_export, reads=("rollouts",))


TRAINING = ("torch._dynamo", "torch.utils.tensorboard")
EXPORTING = ("torch.export", "torch.fx.experimental.symbolic_shapes")
EVALUATION = ("torchmetrics.functional.image", "sklearn.manifold", "sklearn.metrics", "sklearn.neighbors")

STAGES = {
    "collect": Stage(lambda out: collect(stamp_config(out, **SMALL)), dataset_content, whole_dataset),
    "linkless": Stage(collect_without_links, dataset_content, functools.partial(whole_dataset, names_are_taken=True)),
    "recover": Stage(lambda out: collect(stamp_config(out, **SMALL)), dataset_content, lambda out: None, break_dataset),
    "train": Stage(train_small, training_content, whole_training, reads=("rollouts",), imports=TRAINING),
    "sharp": Stage(train_sharply, training_content, whole_training, reads=("rollouts",), imports=TRAINING),
    "encode": Stage(encode_small, dataset_content, whole_dataset, reads=("rollouts", "vae")),
    "select": Stage(select_small, dataset_content, whole_dataset, reads=("rollouts",)),
    "eval": Stage(
        evaluate_small,
        evaluation_content,
        whole_evaluation,
        begin=lambda out: evaluate_small(out, frames=20),
        reads=("rollouts", "vae"),
        imports=EVALUATION,
    ),
    "minari": _export_stage("minari"),
    "npz": _export_stage("npz"),
    "model": Stage(export_small_model, export_content, whole_export, reads=("rollouts", "vae"), imports=EXPORTING),
    "preview": Stage(preview_small, export_content, whole_export, reads=("rollouts",)),
    "pipeline": Stage(run_small_pipeline, pipeline_content, whole_pipeline, imports=(*TRAINING, *EVALUATION)),
}


def main(folder: Path, number: signal.Signals, asked: list[str]) -> None:
    """Stop every stage behind the steps that are asked for, and say what came of it."""
    FramePreprocessor((64, 64, 3), Preprocessing(frame_height=8, frame_width=8))(
        np.zeros((64, 64, 3), np.uint8)
    )  # compiled here, not in every fork
    strides = {name: int(stride) for name, stride in (words.split(":") for words in asked)}
    for name in dict.fromkeys(name for stage in strides for name in STAGES[stage].imports):
        importlib.import_module(name)
    for name, stride in strides.items():
        (folder / name).mkdir()
        for stop in stops(STAGES[name], folder / name, number, stride):
            sys.stdout.write(json.dumps({"stage": name, **stop}) + "\n")
            sys.stdout.flush()


def stops(stage: Stage, folder: Path, number: signal.Signals, stride: int) -> Iterator[dict[str, object]]:
    in_a_fork(lambda: make_inputs(stage, folder))
    begin = in_a_fork(lambda: stage.begin(folder / BEGUN))
    put_begun(folder, folder / "unbroken")
    record = folder / "unbroken.json"
    assert in_a_fork(lambda: record.write_text(json.dumps(record_unbroken(stage, folder / "unbroken")))) == 0
    announced, unbroken = json.loads(record.read_text())
    for step, name in list(enumerate(announced))[::stride]:
        out = folder / f"stopped-{step}"
        put_begun(folder, out)
        stopped = in_a_fork(lambda out=out: stage.run(out), Stopper(step, number))
        left = sum(map(is_temporary, out.rglob("*")))
        whole = in_a_fork(lambda out=out: stage.require_whole(out))
        finished = in_a_fork(lambda out=out: finish(stage, out, unbroken, number))
        codes = {"begin": begin, "stopped": stopped, "whole": whole, "finished": finished}
        yield {"number": step, "of": len(announced), "step": name, "left": left, **codes}
        shutil.rmtree(out)


def put_begun(folder: Path, out: Path) -> None:
    """Put into `out` what the run shall find there: a copy of what the stage's `begin` has put into the folder `BEGUN`."""
    if (folder / BEGUN).exists():
        shutil.copytree(folder / BEGUN, out)


def record_unbroken(stage: Stage, out: Path) -> tuple[list[str], dict[str, str]]:
    """Do a stage without a stop: the steps that it announces, and the content that it has made."""
    announced: list[str] = []
    steps.listener = lambda step: announced.append(step.name)
    stage.run(out)
    steps.listener = None
    return announced, stage.content(out)


def finish(stage: Stage, out: Path, expected: dict[str, str], number: signal.Signals) -> None:
    """Run a stage that was stopped to its end; raises if it has not made what an unbroken run makes."""
    stage.run(out)
    require_content(stage.content(out), expected, number)


def require_same(stage: Stage, out: Path, unbroken: Path, number: signal.Signals) -> None:
    require_content(stage.content(out), stage.content(unbroken), number)


def require_content(found: dict[str, str], expected: dict[str, str], number: signal.Signals) -> None:
    if number is signal.SIGINT:  # an interrupted training keeps the checkpoint that it saves then
        found, expected = (
            {name: content[name] for name in content if "checkpoints/" not in name} for content in (found, expected)
        )
    assert found == expected, sorted(found.items() ^ expected.items())


def make_inputs(stage: Stage, folder: Path) -> None:
    """Rollouts and a VAE for the stages that read them."""
    if "rollouts" in stage.reads:
        collect(stamp_config(folder / "rollouts", **SMALL))
    if "vae" in stage.reads:
        train_small(folder / "vae")


def in_a_fork(work: Callable[[], object], stopper: "Stopper | None" = None) -> int:
    """How a fork ended that did some work: 0, 130 if interrupted, 1 for another exception, or minus the signal that killed it.

    It listens to its own steps with `stopper`.
    """
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    code = 1
    try:
        torch.set_num_threads(1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        steps.listener = stopper
        work()
        code = 0
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)
    return code


class Stopper:
    """A listener that lets some steps pass and sends its process a signal behind the next."""

    def __init__(self, passing: int, number: signal.Signals) -> None:
        self._passing, self._number = passing, number

    def __call__(self, step: Step) -> None:
        if self._passing == 0:
            os.kill(os.getpid(), self._number)
        self._passing -= 1


def _digests(folder: Path, patterns: list[str]) -> dict[str, str]:
    files = (file for pattern in patterns for file in folder.glob(pattern))
    return {str(file.relative_to(folder)): _content(file) for file in files if file.is_file()}


def _content(file: Path) -> str:
    """A digest; of a safetensors file that of what it says, since the library writes metadata in any order."""
    if file.suffix != ".safetensors" or is_temporary(file):
        return _sha256(file.read_bytes())
    tensors = {name: tensor.numpy().tobytes().hex() for name, tensor in safetensors.torch.load_file(file).items()}
    return _sha256(json.dumps([tensors, metadata(file.read_bytes())], sort_keys=True).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]), signal.Signals[sys.argv[2]], sys.argv[3:])
