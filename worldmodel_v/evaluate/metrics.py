"""Numbers that tell what a VAE is worth, on frames it was not trained on.

Legend: N frames, B batch, Z latent.
"""

from dataclasses import dataclass

import numpy as np
import torch

from worldmodel_v.models import VAE, Posterior, elbo, frames_to_input, gaussian_kl
from worldmodel_v.progress import Progress, Silent

BATCH_SIZE = 250
ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A VAE on a set of frames; reconstructions are decoded from mu."""

    num_frames: int

    psnr_db: float
    """Peak signal-to-noise ratio, 10 log10(1 / MSE) of each frame, averaged over frames; higher is closer."""

    squared_error: float
    """The sum of squared errors of a frame with values in [0, 1], averaged over frames (the paper's reconstruction loss)."""

    kl_nats: float
    """KL(q(z|x) || N(0, I)) of a frame, averaged over frames: how much the latent says."""

    elbo_nats: float
    """-(reconstruction + KL) of a frame by the model's own likelihood, with one z from its posterior (the same noise at every
    call), averaged over frames: the bound on log p(x), up to a constant for the Gaussian."""

    active_units: int
    """Latents whose mean varies over the frames with a variance above 0.01 (Burda et al. 2016, arXiv:1509.00519)."""

    latent_dim: int


@torch.no_grad()
def evaluate(
    model: VAE,
    frames_NHWC: np.ndarray,
    device: torch.device,
    progress: Progress | None = None,
    condition_NK: np.ndarray | None = None,
) -> Evaluation:
    """Evaluate on uint8 frames (N, S, S, 3), in float32; leaves the model in evaluation mode.

    A conditional VAE needs `condition_NK`, float32 (N, K).
    """
    task = (progress or Silent()).task("evaluate", len(frames_NHWC), "frames")
    model.eval()
    errors: list[torch.Tensor] = []
    posteriors: list[Posterior] = []
    bound = 0.0
    noise = torch.Generator(device).manual_seed(0)
    for start in range(0, len(frames_NHWC), BATCH_SIZE):
        rows = slice(start, start + BATCH_SIZE)
        x = frames_to_input(torch.from_numpy(frames_NHWC[rows]).to(device), model.config.channels)
        condition = () if condition_NK is None else (torch.from_numpy(condition_NK[rows]).to(device),)
        posterior = model.encode(x, *condition)
        errors.append((model.decode(posterior.mu, *condition) - x).square().flatten(start_dim=1).sum(dim=1).double().cpu())
        posteriors.append(Posterior(*(part.double().cpu() for part in posterior)))
        terms = elbo(model, x, noise, *condition)
        bound -= float(terms.reconstruction + terms.kl) * len(x)
        task.advance(len(x))
    task.close()
    error_N = torch.cat(errors)
    mu, logvar = (torch.cat(parts) for parts in zip(*posteriors, strict=True))
    return Evaluation(
        num_frames=len(frames_NHWC),
        psnr_db=float(psnr(error_N, num_values=x[0].numel()).mean()),
        squared_error=float(error_N.mean()),
        kl_nats=float(gaussian_kl(Posterior(mu, logvar)).sum(dim=1).mean()),
        elbo_nats=bound / len(frames_NHWC),
        active_units=int((mu.var(dim=0, unbiased=False) > ACTIVE_VARIANCE).sum()),
        latent_dim=mu.shape[1],
    )


def psnr(squared_error_N: torch.Tensor, num_values: int) -> torch.Tensor:
    """Decibels of each frame, from its sum of squared errors over `num_values` values in [0, 1]: (N,)."""
    return -10.0 * torch.log10(squared_error_N.clamp_min(1e-12) / num_values)
