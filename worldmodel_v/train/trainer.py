"""The training loop: frames in, a VAE out; readable from top to bottom in `train`.

What is random in it (the weights, the order of frames, the noise of the latents) is a function of the seed and the step,
so a run that was killed and continued is, on one machine, the run that was not.
"""

import json
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel_v.data import FrameStream, is_held_out, read_frames, require_split
from worldmodel_v.data.prefetch import prefetch
from worldmodel_v.errors import NotAModel, SettingsDiffer, TrainingDiverged
from worldmodel_v.evaluate import Evaluation, evaluate, reconstruction_grid, sample_grid, to_png
from worldmodel_v.models import ConvVAE, VAEConfig, elbo, frames_to_input, resolve_device, save_vae
from worldmodel_v.models.weights import WEIGHTS_NAME
from worldmodel_v.progress import Progress, Silent
from worldmodel_v.spec import differences
from worldmodel_v.storage import Dataset, require_format
from worldmodel_v.storage.publish import publish, remove_temporaries
from worldmodel_v.storage.schema import ROLLOUTS
from worldmodel_v.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from worldmodel_v.train.config import TrainConfig
from worldmodel_v.train.metrics import MetricsLog
from worldmodel_v.train.schedules import annealed_beta

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
    run = _Run(config, settings, device, dataset, checkpoint)
    first_step = run.step
    if run.step < config.steps:
        _steps(run, progress)
    heldout = _published_evaluation(config.out, run.step) or _finish(run, progress)
    return TrainReport(
        out=config.out,
        steps=run.step,
        new_steps=run.step - first_step,
        heldout=heldout,
        picture=config.out / PICTURE_NAME,
    )


class _Run:
    """A training in progress: the model, its optimiser, the data and the step."""

    def __init__(
        self,
        config: TrainConfig,
        settings: dict[str, Any],
        device: torch.device,
        dataset: Dataset,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.config, self.settings, self.device, self.dataset = config, settings, device, dataset
        torch.manual_seed(config.seed)
        vae_config = VAEConfig(
            frame_size=dataset.spec["frame_size"], latent_dim=config.latent_dim, likelihood=config.likelihood
        )
        self.model = ConvVAE(vae_config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.step = 0
        if checkpoint is not None:
            checkpoint.restore(self.model, self.optimizer)
            self.step = checkpoint.step
        self._noise = torch.Generator(device)

    def batches(self) -> Iterator[torch.Tensor]:
        """The batches from the present step on: float (B, 3, S, S) on the device."""
        stream = FrameStream(
            self.dataset, self.is_trained_on, batch_size=self.config.batch_size, seed=self.config.seed, start=self.step
        )
        for frames_BHWC in prefetch(iter(stream), depth=4):
            frames = torch.from_numpy(frames_BHWC)
            if self.device.type == "cuda":
                frames = frames.pin_memory().to(self.device, non_blocking=True)
            yield frames_to_input(frames)

    def is_trained_on(self, episode_id: int) -> bool:
        return not is_held_out(episode_id, self.config.holdout_every)

    def heldout_frames(self, limit: int) -> np.ndarray:
        """uint8 (n, S, S, 3), evenly spaced over the held-out episodes."""
        return read_frames(self.dataset, lambda episode: is_held_out(episode, self.config.holdout_every), limit)

    def take_step(self, x_BCHW: torch.Tensor) -> dict[str, torch.Tensor | float]:
        """One optimiser step; returns its terms (tensors stay on the device until they are logged)."""
        config = self.config
        beta = annealed_beta(self.step, config.beta, config.beta_warmup_steps)
        self._noise.manual_seed(_noise_seed(config.seed, self.step))
        self.model.train()
        with self._autocast():
            terms = elbo(self.model, x_BCHW, self._noise)
        loss = terms.loss(beta)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
        self.optimizer.step()
        self.step += 1
        return {
            "loss": loss.detach(),
            "reconstruction": terms.reconstruction.detach(),
            "kl": terms.kl.detach(),
            "grad_norm": grad_norm,
            "beta": beta,
        }

    def save(self) -> None:
        save_checkpoint(self.config.out, self.step, self.settings, self.model, self.optimizer)

    def _autocast(self) -> AbstractContextManager:
        wanted = self.config.precision
        if wanted == "auto":
            wanted = "bf16" if self.device.type == "cuda" else "fp32"
        return torch.autocast(self.device.type, torch.bfloat16) if wanted == "bf16" else nullcontext()


def _steps(run: _Run, progress: Progress) -> None:
    """Train from the run's step to the last one, with metrics, checkpoints and pictures on the way."""
    config = run.config
    config.out.mkdir(parents=True, exist_ok=True)
    remove_temporaries(config.out)
    probe = run.heldout_frames(QUICK_EVALUATION_FRAMES)
    log = MetricsLog(config.out, run.step)
    task = progress.task("train", config.steps, "steps", done=run.step)
    last_good = run.step
    try:
        for x_BCHW in run.batches():
            terms = run.take_step(x_BCHW)
            due = run.step == config.steps or run.step % config.checkpoint_every == 0
            if due or run.step % config.log_every == 0:
                values = _require_finite(terms, run.step, last_good, config)
                log.write(run.step, "train", values)
                task.advance(0, loss=values["loss"], kl=values["kl"])
            task.advance()
            if due:
                _evaluate_quickly(run, probe, log)
                run.save()
                last_good = run.step
            if run.step == config.steps:
                break
    except KeyboardInterrupt:
        run.save()
        raise
    finally:
        task.close()
        log.close()


def _evaluate_quickly(run: _Run, frames: np.ndarray, log: MetricsLog) -> None:
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


def _finish(run: _Run, progress: Progress) -> Evaluation:
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


def _require_finite(terms: dict[str, torch.Tensor | float], step: int, last_good: int, config: TrainConfig) -> dict[str, float]:
    values = {name: float(value) for name, value in terms.items()}
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise TrainingDiverged(
            f"step {step}: {', '.join(broken)} is NaN or infinite; {config.out} keeps the checkpoint of step {last_good}; "
            "train again from scratch elsewhere with a lower --learning-rate or --max-grad-norm, or with --precision fp32"
        )
    return values


def _noise_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))
