"""Whether an estimate of the total correlation says anything."""

from collections.abc import Mapping

from worldmodel_v.autoencoders.base import Finding
from worldmodel_v.surface import option
from worldmodel_v.training.window import WINDOW, WindowMean

LITTLE_OVERLAP = 0.05
WINS = 0.05
"""Bits."""


class CorrelationWatch:
    """Judges the recorded figures of either estimator, window after window."""

    def __init__(self) -> None:
        self._overlap = WindowMean("overlap")
        self._loss = WindowMean("latent_discriminator_loss")

    def judge(self, step: int, figures: Mapping[str, float]) -> Finding | None:
        """The problem that the last window shows, if it ends at this step; `figures` are those recorded of it."""
        overlap, loss = self._overlap.add(step, figures), self._loss.add(step, figures)
        if overlap is not None and overlap < LITTLE_OVERLAP:
            text = (
                f"step {step}: the posteriors of a batch hardly overlap ({overlap:.3f} over {WINDOW} steps, 1 is all), so "
                "the estimate of the total correlation tells how much the latents say, not whether they depend on each other; "
                f"raise {option('beta')} or {option('batch_size')}, train with {option('likelihood', 'gaussian')}, or with "
                f"{option('total_correlation_estimator', 'discriminator')}"
            )
            return Finding("no_overlap", text)
        if loss is not None and loss < WINS:
            text = (
                f"step {step}: the discriminator of latents wins, its loss is {loss:.3f} bits over {WINDOW} steps: it tells "
                "nearly all latents from mixed ones, and then its estimate of the total correlation has no upper limit and "
                f"little gradient; raise {option('beta')} or {option('total_correlation')}, or train with "
                f"{option('likelihood', 'gaussian')}"
            )
            return Finding("latent_discriminator_wins", text)
        return None
