"""Whether an estimate of the total correlation says anything."""

from worldmodel_v.autoencoders.base import Finding
from worldmodel_v.surface import option
from worldmodel_v.training.window import WINDOW

LITTLE_OVERLAP = 0.05
WINS = 0.05
"""Bits."""


def judge_overlap(step: int, mean: float) -> Finding | None:
    """The problem that a mean of `overlap` over a window shows, which ends at this step."""
    if mean < LITTLE_OVERLAP:
        text = (
            f"step {step}: the posteriors of a batch hardly overlap ({mean:.3f} over {WINDOW} steps, 1 is all), so "
            "the estimate of the total correlation tells how much the latents say, not whether they depend on each other; "
            f"raise {option('beta')} or {option('batch_size')}, train with {option('likelihood', 'gaussian')}, or with "
            f"{option('total_correlation_estimator', 'discriminator')}"
        )
        return Finding("no_overlap", text)
    return None


def judge_latent_discriminator(step: int, mean: float) -> Finding | None:
    """The problem that a mean of `latent_discriminator_loss` over a window shows, which ends at this step."""
    if mean < WINS:
        text = (
            f"step {step}: the discriminator of latents wins, its loss is {mean:.3f} bits over {WINDOW} steps: it tells "
            "nearly all latents from mixed ones, and then its estimate of the total correlation has no upper limit and "
            f"little gradient; raise {option('beta')} or {option('total_correlation')}, or train with "
            f"{option('likelihood', 'gaussian')}"
        )
        return Finding("latent_discriminator_wins", text)
    return None
