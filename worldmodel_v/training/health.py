"""The health of a training: what its autoencoder finds on held-out frames, whether gradients are clipped, and what to do.

`Watch` judges and warns, once for each problem, with the remedy. It starts `GRACE_STEPS` after the autoencoder's
`settled_step` (for a VAE, the step at which the KL's weight is final); before that, latents may still carry little information.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from worldmodel_v.autoencoders import Autoencoder
from worldmodel_v.autoencoders.base import Figures
from worldmodel_v.data import read_frames
from worldmodel_v.errors import DatasetNotUsable
from worldmodel_v.storage import Rollouts
from worldmodel_v.surface import option
from worldmodel_v.training.config import LoopConfig
from worldmodel_v.training.correlation.health import judge_latent_discriminator, judge_overlap
from worldmodel_v.training.sharpness.health import judge_discriminator
from worldmodel_v.training.window import WindowWatch

GRACE_STEPS = 300
FRAMES_TO_COMPARE = 64

CLIP_WINDOW = 200
"""The number of steps over which the share of clipped steps is judged."""

CLIPPED_SHARE = 0.95
PSNR_DROP_DB = 6.0
"""Four times the squared error."""


class Watch:
    """Judges a training's figures as they come, and warns once for each problem."""

    def __init__(self, config: LoopConfig, model: Autoencoder, say: Callable[[str], None]) -> None:
        self._config, self._model, self._say = config, model, say
        self._warned: set[str] = set()
        self._clipped: torch.Tensor | int = 0
        self._steps = self._window_steps = self._window_clipped = 0
        self._best_psnr: tuple[float, int] | None = None
        self._discriminator = WindowWatch("discriminator_loss", judge_discriminator)
        self._overlap = WindowWatch("overlap", judge_overlap)
        self._latent_discriminator = WindowWatch("latent_discriminator_loss", judge_latent_discriminator)

    def count(self, grad_norm: torch.Tensor | float) -> None:
        """Record a step's gradient norm before clipping, without waiting for the device."""
        self._clipped = self._clipped + (torch.as_tensor(grad_norm) > self._config.max_grad_norm)
        self._steps += 1

    def gradients(self, step: int) -> dict[str, float]:
        """The share of clipped steps since the last call, for the record; warns if nearly every step is clipped."""
        clipped, steps = int(self._clipped), self._steps
        self._clipped = self._steps = 0
        self._window_clipped += clipped
        self._window_steps += steps
        if self._window_steps >= CLIP_WINDOW:
            share = self._window_clipped / self._window_steps
            if share >= CLIPPED_SHARE and self._has_settled(step):
                self._warn(
                    "clipping",
                    f"step {step}: {share:.0%} of the last {self._window_steps} gradients were longer than "
                    f"{self._config.max_grad_norm:g} and were cut; raise {option('max_grad_norm')} or lower "
                    f"{option('learning_rate')}",
                )
            self._window_steps = self._window_clipped = 0
        return {"clipped_share": clipped / max(steps, 1)}

    def losses(self, step: int, figures: Mapping[str, float]) -> None:
        """Warn of what the recorded figures of a step show: a discriminator that teaches nothing, an estimate of the total
        correlation that says nothing."""
        once_settled = (self._overlap, self._latent_discriminator) if self._has_settled(step) else ()
        for watch in (self._discriminator, *once_settled):
            if finding := watch.judge(step, figures):
                self._warn(finding.name, finding.text)

    def judge(self, step: int, heldout: Figures, health: Mapping[str, float | list[float]]) -> str | None:
        """Warn of what the held-out figures show; returns the finding if the latents have collapsed, None otherwise."""
        if not self._has_settled(step):
            return None
        self._judge_psnr(step, heldout["psnr_db"])
        findings = self._model.findings(step, heldout, health)
        for finding in findings:
            self._warn(finding.name, finding.text)
        return next((finding.text for finding in findings if finding.is_collapse), None)

    def _has_settled(self, step: int) -> bool:
        return step >= self._model.settled_step + GRACE_STEPS

    def _judge_psnr(self, step: int, psnr_db: float) -> None:
        if self._best_psnr is None or psnr_db > self._best_psnr[0]:
            self._best_psnr = psnr_db, step
        best, best_step = self._best_psnr
        if psnr_db < best - PSNR_DROP_DB:
            self._warn(
                "explosion",
                f"step {step}: held-out PSNR has fallen to {psnr_db:.1f} dB from {best:.1f} dB at step {best_step}: the "
                f"training is exploding; lower {option('learning_rate')} or {option('max_grad_norm')}",
            )

    def _warn(self, condition: str, message: str) -> None:
        if condition not in self._warned:
            self._warned.add(condition)
            self._say(f"warning: {message}")


def require_varied_frames(dataset: Rollouts) -> None:
    """Raise DatasetNotUsable if frames from all parts of the dataset are identical."""
    first = dataset.entries[0].first_episode
    if not _are_identical(read_frames(dataset, lambda episode: episode == first, FRAMES_TO_COMPARE)):
        return  # the normal case; reading from the whole dataset opens every shard
    frames = read_frames(dataset, lambda episode: True, FRAMES_TO_COMPARE)
    if _are_identical(frames):
        raise DatasetNotUsable(
            f"all of {len(frames)} frames from all over it are identical, so there is nothing to learn",
            where=dataset.name,
            remedy=f"look at them with wm-inspect {dataset.path} --preview FILE, and collect again from an environment that "
            "draws",
        )


def _are_identical(frames_NHWC: np.ndarray) -> bool:
    return bool((frames_NHWC == frames_NHWC[0]).all())
