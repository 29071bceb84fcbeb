"""The training loop: frames in, a VAE out; readable from top to bottom in `train`.

What is random in it (the weights, the order of frames, the noise of the latents) is a function of the seed and the step,
so a run that was killed and continued is, on one machine, the run that was not.
"""

import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodel_v.data import require_split
from worldmodel_v.errors import NotAModel, SettingsDiffer, TrainingDiverged
from worldmodel_v.evaluate import Evaluation
from worldmodel_v.models import resolve_device
from worldmodel_v.models.weights import WEIGHTS_NAME
from worldmodel_v.progress import Progress, Silent
from worldmodel_v.spec import differences
from worldmodel_v.storage import require_format
from worldmodel_v.storage.lock import LOCK_NAME, locked_directory
from worldmodel_v.storage.publish import is_temporary, remove_temporaries
from worldmodel_v.storage.schema import ROLLOUTS
from worldmodel_v.train.checkpoint import CHECKPOINT_NAME, Checkpoint, load_checkpoint
from worldmodel_v.train.config import TrainConfig
from worldmodel_v.train.interrupts import deferred_interrupts
from worldmodel_v.train.metrics import METRICS_NAME, TENSORBOARD_FOLDER, MetricsLog
from worldmodel_v.train.publication import (
    CONFIG_NAME,
    HELDOUT_NAME,
    PICTURE_NAME,
    SAMPLES_FOLDER,
    publish_progress,
    publish_vae,
    published_evaluation,
)
from worldmodel_v.train.run import StepTerms, TrainingRun, require_trainable

QUICK_EVALUATION_FRAMES = 256
OWN_NAMES = {
    *(CHECKPOINT_NAME, WEIGHTS_NAME, CONFIG_NAME, HELDOUT_NAME, PICTURE_NAME, SAMPLES_FOLDER),
    *(METRICS_NAME, TENSORBOARD_FOLDER, LOCK_NAME),
}
"""What a training's directory may hold."""


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
    require_trainable(config, dataset)
    settings = {**config.identity(), "data_spec_hash": dataset.spec_hash}
    _refuse_foreign_directory(config.out)
    with locked_directory(config.out):
        checkpoint = _own_checkpoint(config, settings)
        run = TrainingRun(config, settings, device, dataset, checkpoint)
        first_step = run.step
        if run.step < config.steps:
            _train_to_the_end(run, progress)
        heldout = published_evaluation(run) or publish_vae(run, progress)
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
    remove_temporaries(config.out)
    probe = run.heldout_frames(QUICK_EVALUATION_FRAMES)
    task = progress.task("train", config.steps, "steps", done=run.step)
    saved_step = run.step
    log = MetricsLog(config.out, run.step)
    with closing(task), closing(log), closing(run.batches()) as batches, deferred_interrupts() as interrupted:
        for batch in batches:
            terms = run.take_step(batch)
            task.advance()
            is_last, stopping = run.step == config.steps, interrupted()
            due = is_last or run.step % config.checkpoint_every == 0
            if due or stopping or run.step % config.log_every == 0:
                values = _require_finite(terms, run.step, saved_step, config)
                log.write(run.step, "train", values)
                task.advance(0, loss=values["loss"], kl=values["kl"])
            if due or stopping:
                run.save()
                saved_step = run.step
            if stopping:
                raise KeyboardInterrupt
            if due:
                publish_progress(run, probe, log)
            if is_last:
                break


def _refuse_foreign_directory(out: Path) -> None:
    """Raise NotAModel unless `out` is absent, empty, or holds a training. Writes nothing."""
    if not out.exists():
        return
    if not out.is_dir():
        raise NotAModel(f"{out}: is a file; give a directory that is new, empty, or of this training")
    foreign = sorted(item.name for item in out.iterdir() if not (item.name in OWN_NAMES or is_temporary(item)))
    if foreign:
        raise NotAModel(f"{out}: holds {foreign[0]!r}, which is not of a training; give a directory that is new or empty")


def _own_checkpoint(config: TrainConfig, settings: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint to continue from, None to begin; raises SettingsDiffer if it is another training's or further on."""
    checkpoint = load_checkpoint(config.out) if config.resume else None
    if checkpoint is None:
        return None
    if differing := differences(checkpoint.settings, settings):
        raise SettingsDiffer(
            f"{config.out}: was trained with other settings: {'; '.join(differing)}; "
            "use those settings, another directory, or --no-resume to replace it"
        )
    if checkpoint.step > config.steps:
        raise SettingsDiffer(
            f"{config.out}: has trained {checkpoint.step} steps, {config.steps} asked; ask for at least {checkpoint.step}, "
            "or give another directory"
        )
    return checkpoint


def _require_finite(terms: StepTerms, step: int, saved_step: int, config: TrainConfig) -> dict[str, float]:
    values = {name: float(value) for name, value in terms.items()}
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        kept = f"keeps the checkpoint of step {saved_step}" if saved_step else "has no checkpoint yet"
        raise TrainingDiverged(
            f"step {step}: {', '.join(broken)} is NaN or infinite; {config.out} {kept}; "
            "train again from scratch elsewhere with a lower --learning-rate or --max-grad-norm, or with --precision fp32"
        )
    return values
