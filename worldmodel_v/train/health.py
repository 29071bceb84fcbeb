"""Whether a training is well: what the posterior does on held-out frames, what the gradients do, and what to do about it.

`posterior_health` measures, `Watch` judges and warns, once for each condition, with the remedy. Nothing is judged before the
KL's weight has stood at its final value for `GRACE_STEPS`: until then a posterior may well be narrow, wide or unused.

Legend: N frames, Z latent.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from worldmodel_v.autoencoders.gaussian import Posterior, gaussian_kl
from worldmodel_v.autoencoders.gaussian.posterior import aggregate
from worldmodel_v.data import read_frames
from worldmodel_v.errors import ConstantFrames
from worldmodel_v.evaluate import Evaluation
from worldmodel_v.storage import Dataset
from worldmodel_v.train.config import TrainConfig

GRACE_STEPS = 300
FRAMES_TO_COMPARE = 64

CLIP_WINDOW = 200
"""Steps over which the share of clipped ones is judged."""

CLIPPED_SHARE = 0.95
PSNR_DROP_DB = 6.0
"""Four times the squared error."""

WIDE = 10.0
"""Root mean square of the latents of all frames above which they are called wide. In the prior it is 1; a learned σ, which
weighs reconstructions more, brings it to 2 to 4; with no KL to speak of it has no bound."""


@dataclass(frozen=True, kw_only=True)
class PosteriorHealth:
    """What the posteriors of a set of frames are, one by one and together.

    Together they make the aggregated posterior q(z), the mean over frames of q(z|x) (Makhzani et al. 2015,
    arXiv:1511.05644), which should be the prior: where it is not, samples from the prior are decoded from places that the
    decoder has never seen.
    """

    kl_per_latent: list[float]
    """KL(q(z_i|x) || N(0, 1)) of each latent in nats, averaged over frames."""

    aggregate_max_mean: float
    """The largest |mean| of a latent in q(z); 0 in the prior."""

    aggregate_max_correlation: float
    """The largest |correlation| between two latents in q(z); 0 in the prior, and for a single latent."""

    aggregate_mean_square: float
    """E[z²] in q(z), averaged over latents; 1 in the prior."""

    aggregate_kl_nats: float
    """KL of the Gaussian with the mean and covariance of q(z) to N(0, I)."""


def posterior_health(posterior: Posterior) -> PosteriorHealth:
    """The figures of the posteriors (N, Z) of N frames; computed in float64."""
    together = aggregate(posterior)
    return PosteriorHealth(
        kl_per_latent=gaussian_kl(Posterior(*(part.double() for part in posterior))).mean(dim=0).tolist(),
        aggregate_max_mean=together.max_abs_mean,
        aggregate_max_correlation=together.max_correlation or 0.0,
        aggregate_mean_square=together.mean_square,
        aggregate_kl_nats=together.kl_nats,
    )


class Watch:
    """Judges a training's figures as they come, and warns once for each condition."""

    def __init__(self, config: TrainConfig, say: Callable[[str], None]) -> None:
        self._config, self._say = config, say
        self._warned: set[str] = set()
        self._clipped: torch.Tensor | int = 0
        self._steps = self._window_steps = self._window_clipped = 0
        self._best_psnr: tuple[float, int] | None = None

    def count(self, grad_norm: torch.Tensor | float) -> None:
        """Take note of a step's gradient norm before clipping; nothing is waited for on the device."""
        self._clipped = self._clipped + (torch.as_tensor(grad_norm) > self._config.max_grad_norm)
        self._steps += 1

    def gradients(self, step: int) -> dict[str, float]:
        """The share of clipped steps since the last call, for the record; warns where nearly every step is clipped."""
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
                    f"{self._config.max_grad_norm:g} and were cut; raise --max-grad-norm or lower --learning-rate",
                )
            self._window_steps = self._window_clipped = 0
        return {"clipped_share": clipped / max(steps, 1)}

    def judge(self, step: int, heldout: Evaluation, posterior: PosteriorHealth) -> str | None:
        """Warn of what the held-out figures show; returns the finding if the posterior has collapsed, None otherwise."""
        if not self._has_settled(step):
            return None
        self._judge_psnr(step, heldout.psnr_db)
        width = posterior.aggregate_mean_square**0.5
        if width > WIDE:
            self._warn(
                "prior",
                f"step {step}: the latents are {width:.1f} times as wide as the prior (KL of "
                f"all frames' latents together to N(0, I): {posterior.aggregate_kl_nats:.1f} nats), so samples from the "
                "prior will not look like frames; raise --beta if they shall",
            )
        if heldout.active_units > 0:
            return None
        finding = (
            f"KL is {heldout.kl_nats:.2g} nats and 0 of {heldout.latent_dim} latents are active at step {step}: the posterior "
            "has collapsed; lower --beta, lengthen --beta-warmup-steps, or use --free-bits"
        )
        self._warn("collapse", finding)
        return finding

    def _has_settled(self, step: int) -> bool:
        rises_and_rests = 2 * self._config.beta_cycles - 1
        return step >= rises_and_rests * self._config.beta_warmup_steps + GRACE_STEPS

    def _judge_psnr(self, step: int, psnr_db: float) -> None:
        if self._best_psnr is None or psnr_db > self._best_psnr[0]:
            self._best_psnr = psnr_db, step
        best, best_step = self._best_psnr
        if psnr_db < best - PSNR_DROP_DB:
            self._warn(
                "explosion",
                f"step {step}: held-out PSNR has fallen to {psnr_db:.1f} dB from {best:.1f} dB at step {best_step}: the "
                "training is exploding; lower --learning-rate or --max-grad-norm",
            )

    def _warn(self, condition: str, message: str) -> None:
        if condition not in self._warned:
            self._warned.add(condition)
            self._say(f"warning: {message}")


def require_varied_frames(dataset: Dataset) -> None:
    """Raise ConstantFrames if frames from all over the dataset are all the same."""
    first = dataset.entries[0].first_episode
    if not _are_identical(read_frames(dataset, lambda episode: episode == first, FRAMES_TO_COMPARE)):
        return  # as always; reading from all over it opens every shard
    frames = read_frames(dataset, lambda episode: True, FRAMES_TO_COMPARE)
    if _are_identical(frames):
        raise ConstantFrames(
            f"{dataset.path}: all of {len(frames)} frames from all over it are identical, so there is nothing to learn; look "
            f"at them with wm-inspect {dataset.path} --preview FILE, and collect again from an environment that draws"
        )


def _are_identical(frames_NHWC: np.ndarray) -> bool:
    return bool((frames_NHWC == frames_NHWC[0]).all())
