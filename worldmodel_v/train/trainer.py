"""The training loop: frames in, a VAE out; readable from top to bottom in `train`.

What is random in it (the weights, the order of frames, the noise of the latents) is a function of the seed and the step,
so a run that was killed and continued is, on one machine, the run that was not.
"""

import json
import math
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel_v.data import require_split
from worldmodel_v.errors import NotAModel, SettingsDiffer, TrainingDiverged
from worldmodel_v.evaluate import Evaluation, evaluate, reconstruction_grid, sample_grid, to_png
from worldmodel_v.models import resolve_device, save_vae
from worldmodel_v.models.weights import WEIGHTS_NAME
from worldmodel_v.progress import Progress, Silent
from worldmodel_v.spec import differences
from worldmodel_v.storage import require_format
from worldmodel_v.storage.publish import publish, remove_temporaries
from worldmodel_v.storage.schema import ROLLOUTS
from worldmodel_v.train.checkpoint import Checkpoint, load_checkpoint
from worldmodel_v.train.config import TrainConfig
from worldmodel_v.train.interrupts import deferred_interrupts
from worldmodel_v.train.metrics import MetricsLog
from worldmodel_v.train.run import StepTerms, TrainingRun

CONFIG_NAME = "config.json"
HELDOUT_NAME = "heldout.json"
PICTURE_NAME = "reconstructions.png"
SAMPLES_FOLDER = "samples"
QUICK_EVALUATION_FRAMES = 256
FINAL_EVALUATION_FRAMES = 2000
PICTURE_FRAMES = 10


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What a run of `train` found and did."""

    out: Path
    steps: int
    new_steps: int
    """Steps that this run did; 0 if training was complete."""

    heldout: Evaluation
    """The finished VAE on episodes that it was not trained on."""

    picture: Path
    """Held-out frames above their reconstructions."""


def train(config: TrainConfig, progress: Progress | None = None) -> TrainReport:
    """Train `config.out`'s VAE up to `config.steps`; continues from the checkpoint that is there.

    Raises UsageError (NotADataset, DatasetTooSmall, SettingsDiffer, …) before anything is written; TrainingDiverged when
    the loss or a gradient is no longer finite. An interrupt saves a checkpoint first.
    """
    progress = progress or Silent()
    device = resolve_device(config.device)
    dataset = require_format(config.data, ROLLOUTS)
    require_split(config.data, dataset.num_episodes, config.holdout_every)
    settings = {**config.identity(), "data_spec_hash": dataset.spec_hash}
    checkpoint = _load_own_checkpoint(config.out, settings)
    run = TrainingRun(config, settings, device, dataset, checkpoint)
    first_step = run.step
    if run.step < config.steps:
        _train_to_the_end(run, progress)
    heldout = _published_evaluation(config.out, run.step) or _finish(run, progress)
    return TrainReport(
        out=config.out,
        steps=run.step,
        new_steps=run.step - first_step,
        heldout=heldout,
        picture=config.out / PICTURE_NAME,
    )


def _train_to_the_end(run: TrainingRun, progress: Progress) -> None:
    """Train from the run's step to the last one, with metrics, checkpoints and pictures on the way."""
    config = run.config
    config.out.mkdir(parents=True, exist_ok=True)
    remove_temporaries(config.out)
    probe = run.heldout_frames(QUICK_EVALUATION_FRAMES)
    task = progress.task("train", config.steps, "steps", done=run.step)
    saved_step = run.step
    log = MetricsLog(config.out, run.step)
    with closing(task), closing(log), closing(run.batches()) as batches, deferred_interrupts() as interrupted:
        for x_BCHW in batches:
            terms = run.take_step(x_BCHW)
            task.advance()
            is_last, stopping = run.step == config.steps, interrupted()
            due = is_last or run.step % config.checkpoint_every == 0
            if due or stopping or run.step % config.log_every == 0:
                values = _require_finite(terms, run.step, saved_step, config)
                log.write(run.step, "train", values)
                task.advance(0, loss=values["loss"], kl=values["kl"])
            if due:
                _evaluate_quickly(run, probe, log)
            if due or stopping:
                run.save()
                saved_step = run.step
            if stopping and not is_last:
                raise KeyboardInterrupt
            if is_last:
                break


def _evaluate_quickly(run: TrainingRun, frames: np.ndarray, log: MetricsLog) -> None:
    log.write(run.step, "held-out", asdict(evaluate(run.model, frames, run.device)))
    folder = run.config.out / SAMPLES_FOLDER
    folder.mkdir(exist_ok=True)
    picture = reconstruction_grid(run.model, frames[:: max(1, len(frames) // PICTURE_FRAMES)][:PICTURE_FRAMES], run.device)
    publish(folder / f"step_{run.step:07d}_reconstructions.png", to_png(picture))
    prior = sample_grid(run.model, rows=2, columns=PICTURE_FRAMES, seed=run.config.seed, device=run.device)
    publish(folder / f"step_{run.step:07d}_prior.png", to_png(prior))


def _published_evaluation(out: Path, step: int) -> Evaluation | None:
    """What `_finish` wrote last, if it was for this step; None if it is still to be done."""
    file = out / HELDOUT_NAME
    if not file.exists():
        return None
    published = json.loads(file.read_text())
    return Evaluation(**published["heldout"]) if published["steps"] == step else None


def _finish(run: TrainingRun, progress: Progress) -> Evaluation:
    """Evaluate on the held-out episodes, and publish weights, configuration, picture and, last, the evaluation."""
    out = run.config.out
    frames = run.heldout_frames(FINAL_EVALUATION_FRAMES)
    heldout = evaluate(run.model, frames, run.device, progress)
    evenly = np.linspace(0, len(frames) - 1, PICTURE_FRAMES).astype(int)
    publish(out / PICTURE_NAME, to_png(reconstruction_grid(run.model, frames[evenly], run.device)))
    description = {
        "model": asdict(run.model.config),
        "training": run.settings,
        "steps": run.step,
        "data": run.dataset.spec,
    }
    publish(out / CONFIG_NAME, (json.dumps(description, indent=2) + "\n").encode())
    publish(out / WEIGHTS_NAME, save_vae(run.model))
    published = {"steps": run.step, "heldout": asdict(heldout)}
    publish(out / HELDOUT_NAME, (json.dumps(published, indent=2) + "\n").encode())
    return heldout


def _load_own_checkpoint(out: Path, settings: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint to continue from; raises SettingsDiffer or NotAModel unless the directory is this training's or empty."""
    if out.exists() and not out.is_dir():
        raise NotAModel(f"{out}: is a file; give a directory that is new, empty, or of this training")
    checkpoint = load_checkpoint(out)
    if checkpoint is None:
        return None
    if differing := differences(checkpoint.settings, settings):
        raise SettingsDiffer(
            f"{out}: was trained with other settings: {'; '.join(differing)}; use those settings, or another directory"
        )
    return checkpoint


def _require_finite(terms: StepTerms, step: int, saved_step: int, config: TrainConfig) -> dict[str, float]:
    values = {name: float(value) for name, value in terms.items()}
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise TrainingDiverged(
            f"step {step}: {', '.join(broken)} is NaN or infinite; {config.out} keeps the checkpoint of step {saved_step}; "
            "train again from scratch elsewhere with a lower --learning-rate or --max-grad-norm, or with --precision fp32"
        )
    return values
