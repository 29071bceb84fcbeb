"""The training loop: frames in, a VAE out; readable from top to bottom in `train`.

All randomness (the weights, the order of frames, the noise of the latents) is a function of the seed and the step. So on
one machine, a run that was killed and continued gives the same weights as a run that was not.
"""

import functools
import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel_v.autoencoders.artifact import CHECKPOINT_NAME, CONFIG_NAME, METRICS_NAME, WEIGHTS_NAME
from worldmodel_v.autoencoders.base import Figures, figures_text
from worldmodel_v.data import FrameBatch, Split
from worldmodel_v.device import batch_in_memory, resolve_device
from worldmodel_v.errors import OutputNotUsable, TrainingFailed
from worldmodel_v.evaluation.metrics import score_frames, summarise
from worldmodel_v.interrupts import deferred_interrupts, raised_again_if_lost
from worldmodel_v.notebook import shown
from worldmodel_v.process import plain_tensors
from worldmodel_v.progress import Progress, begin
from worldmodel_v.selection import open_rollouts
from worldmodel_v.spec import differences
from worldmodel_v.storage.directory import refuse_foreign_names
from worldmodel_v.storage.lock import LOCK_NAME, locked_directory
from worldmodel_v.storage.publish import remove, remove_temporaries
from worldmodel_v.surface import option
from worldmodel_v.training.best import BEST_NAME, keep_if_best, load_best
from worldmodel_v.training.checkpoint import KEPT_FOLDER, Checkpoint, discard_kept, load_checkpoint
from worldmodel_v.training.config import LoopConfig
from worldmodel_v.training.health import Watch, require_varied_frames
from worldmodel_v.training.metrics import TENSORBOARD_FOLDER, MetricsLog
from worldmodel_v.training.publication import (
    HELDOUT_NAME,
    PICTURE_NAME,
    SAMPLES_FOLDER,
    best_settings,
    discard_pictures_after,
    draw_progress,
    publish_vae,
    published_evaluation,
)
from worldmodel_v.training.run import StepTerms, TrainingRun, require_trainable
from worldmodel_v.training.trackers import TRACKER_FOLDER, TRACKER_NAME, TRACKERS, Tracking, require_tracker
from worldmodel_v.untrusted import canonical_json
from worldmodel_v.words import counted

QUICK_EVALUATION_FRAMES = 256
OWN_NAMES = {
    *(CHECKPOINT_NAME, KEPT_FOLDER, BEST_NAME, WEIGHTS_NAME, CONFIG_NAME, HELDOUT_NAME, PICTURE_NAME, SAMPLES_FOLDER),
    *(METRICS_NAME, TENSORBOARD_FOLDER, TRACKER_NAME, TRACKER_FOLDER, LOCK_NAME),
}
"""The names that a training's directory may contain."""


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What a run of `train` found and did."""

    out: Path
    """The directory of weights, checkpoint, metrics and pictures."""

    steps: int
    """Steps that the autoencoder has been trained for."""

    new_steps: int
    """Steps that this run did; 0 if training was already complete."""

    heldout: Figures
    """The figures of the finished autoencoder on episodes that it was not trained on."""

    picture: Path
    """Held-out frames above their reconstructions."""


@raised_again_if_lost()
def train(config: LoopConfig, progress: Progress | None = None) -> TrainReport:
    """Train the VAE in `config.out` up to `config.steps`; continues from an existing checkpoint.

    Raises UsageError (DatasetNotUsable, OutputNotUsable, …) or ModelFailed before anything is written, and ModelFailed at the
    end too, if an autoencoder of the user's own has become another one than its file; TrainingFailed when the loss or a
    gradient is no longer finite, or when the posterior has collapsed if that shall stop it. An interrupt saves a checkpoint
    first.
    """
    progress = shown(progress)
    require_tracker(config.track)
    with open_training(config) as run:
        first_step = run.step
        if run.step < config.steps:
            _train_to_the_end(run, progress)
        run.require_own_directory()
        heldout = published_evaluation(run) or publish_vae(run, progress)
    message = f"train: {counted(run.step, 'step')} ({run.step - first_step} new)"
    done: dict[str, Any] = {"out": config.out, "steps": run.step, "new_steps": run.step - first_step, **heldout}
    progress.event("finished", message, stage="train", **done)
    return TrainReport(
        out=config.out,
        steps=run.step,
        new_steps=run.step - first_step,
        heldout=heldout,
        picture=config.out / PICTURE_NAME,
    )


@contextmanager
def open_training(config: LoopConfig) -> Iterator[TrainingRun]:
    """The training in `config.out`, at its checkpoint or at its beginning, for a loop of your own. Within the block the
    directory is locked, and PyTorch's defaults are float32 and the CPU.

    Raises as `train` does before its first step. If your loop ends at `config.steps` and saves, the next call of `train`
    publishes the result.
    """
    device = _own_device(config)
    dataset = open_rollouts(config.data)
    Split(dataset, config.holdout_every).require_both()
    with plain_tensors():
        require_trainable(config, dataset)
    require_varied_frames(dataset)
    settings = {**config.identity(), "data_spec_hash": dataset.spec_hash}
    refuse_foreign_names(config.out, OWN_NAMES, "a training", "of this training")
    with plain_tensors(), locked_directory(config.out) as lock:
        _remove_leftovers(config.out)
        checkpoint = _own_checkpoint(config, settings)
        run = TrainingRun(config, settings, device, dataset, checkpoint, lock=lock)
        lock.announce(stage="train", goal=config.steps, done=run.step)
        yield run


def _train_to_the_end(run: TrainingRun, progress: Progress) -> None:
    """Train from the run's step to the last one, and write metrics, checkpoints and pictures."""
    config = run.config
    _tidy(run)
    probe = run.heldout_frames(QUICK_EVALUATION_FRAMES)
    spec_hash = hashlib.sha256(canonical_json(run.settings).encode()).hexdigest()
    task = begin(progress, "train", config.out, spec_hash, total=config.steps, unit="steps", done=run.step)
    warn = functools.partial(progress.event, "training_warning", stage="train", warning=True)
    tracking = Tracking(config.track, config.out, run.settings, run.step, warn) if config.track in TRACKERS else None
    log, watch = MetricsLog(config.out, run.step, tracking), Watch(config, run.model, warn)
    if config.error_weight != "none":
        progress.say(
            f"with {option('error_weight', config.error_weight)}, what is minimised is no bound of log p(x) any more; the "
            "loss and the figures of evaluations stay those without weights"
        )
    if not log.draws_curves:
        progress.say(
            f"no curves are drawn, because TensorBoard is not installed; {METRICS_NAME} has the figures; "
            "pip install 'worldmodel_v[tensorboard]'"
        )
    with closing(task), closing(log), deferred_interrupts() as interrupted, closing(_steps(run, interrupted)) as steps:
        for terms, stopping in steps:
            watch.count(terms["grad_norm"])
            task.advance()
            due = run.checkpoint_is_due()
            if due or stopping or run.step % config.log_every == 0:
                values = {name: float(value) for name, value in terms.items()}
                _record(run, log, {"train": values, "health": watch.gradients(run.step)})
                watch.losses(run.step, values)
                shown_now = ("loss", *run.model.shown, *run.extras.shown)
                task.advance(0, **{name: values[name] for name in shown_now if name in values})
            if due:
                run.require_own_directory()
            collapse = _check_up(run, probe, log, watch, progress) if due else None
            if due:
                log.pictures(run.step, draw_progress(run, probe))
            if due or stopping:
                run.save()  # last: after a kill before it, the continued run draws the same pictures again
                saved = f"train: checkpoint of step {run.step} of {config.steps}"
                progress.event("checkpoint_written", saved, stage="train", step=run.step, steps=config.steps)
            if stopping:
                raise KeyboardInterrupt
            if collapse and config.stop_on_collapse:
                raise TrainingFailed(f"stopped, with a checkpoint of step {run.step}: {collapse}", where=config.out)


def _steps(run: TrainingRun, interrupted: Callable[[], bool]) -> Generator[tuple[StepTerms, bool]]:
    """Take the remaining steps; yields the terms of each, and whether it is the last because of an interruption."""
    if run.config.num_workers > 1:
        from worldmodel_v.training.distributed import distributed_steps

        yield from distributed_steps(run, interrupted)
        return
    with batch_in_memory(run.config.batch_size, run.device), closing(run.batches()) as batches:
        for batch in batches:
            yield run.take_step(batch), interrupted()
            if run.step == run.config.steps:
                return


def _own_device(config: LoopConfig) -> torch.device:
    """Where this process computes. Workers have their own devices; if they have GPUs, this process needs none."""
    elsewhere = config.num_workers > 1 and config.device.startswith("cuda")
    return resolve_device("auto" if elsewhere else config.device)


def _remove_leftovers(out: Path) -> None:
    """Delete files that a killed run left incomplete."""
    for folder in (out, out / KEPT_FOLDER, out / SAMPLES_FOLDER):
        remove_temporaries(folder, out)


def _tidy(run: TrainingRun) -> None:
    """Delete what a new training replaces, and what was made after the checkpoint that this one goes on from, which may have
    been copied from an earlier one. Raises ModelNotUsable if `best.safetensors` is damaged."""
    out = run.config.out
    if run.step == 0:
        discard_kept(out)
        remove(out / BEST_NAME)
    best = load_best(out)
    if best and best.step > run.step:
        remove(out / BEST_NAME)
    discard_pictures_after(run.step, out)


def _check_up(run: TrainingRun, probe: FrameBatch, log: MetricsLog, watch: Watch, progress: Progress) -> str | None:
    """Evaluate on a few held-out frames, keep the weights if they are the best; returns the finding if it is a collapse."""
    scores = score_frames(run.model, probe.frames, run.device, condition_NK=probe.condition)
    heldout, health = summarise(run.model, scores), run.model.health(scores)
    _record(run, log, {"held-out": heldout, **({"health": health} if health else {})})
    message = f"train: step {run.step} on held-out frames: {figures_text(heldout)}"
    facts: dict[str, Any] = dict(heldout)
    progress.event("evaluated", message, stage="train", step=run.step, **facts)
    keep_if_best(run.config.out, run.step, best_settings(run), run.model, heldout)
    return watch.judge(run.step, heldout, health)


def _own_checkpoint(config: LoopConfig, settings: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint to continue from, or None; raises OutputNotUsable if its settings differ or its step is past `steps`."""
    checkpoint = load_checkpoint(config.out, config.keep) if config.resume else None
    if checkpoint is None:
        return None
    if differing := _differing(checkpoint.settings, settings):
        reason = (
            f"; {option('schedule', 'cosine')} is of all {option('steps')}"
            if checkpoint.settings.get("steps") != settings.get("steps")
            else ""
        )
        raise OutputNotUsable(
            f"was trained with other settings: {'; '.join(differing)}{reason}",
            where=config.out,
            remedy=f"use those settings, another directory, or {option('resume', False)} to replace it",
        )
    if checkpoint.step > config.steps:
        raise OutputNotUsable(
            f"has trained {counted(checkpoint.step, 'step')}, {config.steps} asked",
            where=config.out,
            remedy=f"ask for at least {checkpoint.step}, or give another directory",
        )
    return checkpoint


def _differing(recorded: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """Where settings differ; of another autoencoder only that, because all that it has differs."""
    kind, other = ({"autoencoder": settings.get("autoencoder")} for settings in (recorded, asked))
    return differences(kind, other) or differences(recorded, asked)


def _record(run: TrainingRun, log: MetricsLog, groups: Mapping[str, Mapping[str, float | list[float]]]) -> None:
    """Write the numbers of each group into the record; raises TrainingFailed if a number is not finite."""
    for group, values in groups.items():
        _require_finite(run, values)
        log.write(run.step, group, values)


def _require_finite(run: TrainingRun, values: Mapping[str, float | list[float]]) -> None:
    broken = [name for name, value in values.items() if not np.isfinite(value).all()]
    if broken:
        out, saved = run.config.out, run.saved_step
        kept = f"keeps the checkpoint of step {saved}" if saved else "has no checkpoint yet"
        raise TrainingFailed(
            f"step {run.step}: NaN or infinite: {', '.join(broken)}; {out} {kept}",
            remedy=f"train again from scratch elsewhere with a lower {option('learning_rate')} or "
            f"{option('max_grad_norm')}, or with {option('precision', 'fp32')}",
        )
