"""Whether a discriminator still teaches anything: judged by its hinge loss, which is 0 if it wins and 1 if it says nothing."""

from collections.abc import Mapping

from worldmodel_v.autoencoders.base import Finding
from worldmodel_v.surface import option
from worldmodel_v.training.window import WINDOW, WindowMean

WINS = 0.05
SAYS_NOTHING = 0.999


class DiscriminatorWatch:
    """Judges the recorded losses of a discriminator, window after window."""

    def __init__(self) -> None:
        self._loss = WindowMean("discriminator_loss")

    def judge(self, step: int, figures: Mapping[str, float]) -> Finding | None:
        """The problem that the last window shows, if it ends at this step; `figures` are those recorded of it."""
        mean = self._loss.add(step, figures)
        return None if mean is None else _finding(step, mean)


def _finding(step: int, mean: float) -> Finding | None:
    if mean < WINS:
        text = (
            f"step {step}: the discriminator wins, its loss is {mean:.3f} over {WINDOW} steps: it tells every reconstruction "
            f"from a frame, so the decoder learns nothing from it; lower {option('adversarial')}, or let it start later "
            f"({option('adversarial_start')})"
        )
        return Finding("discriminator_wins", text)
    if mean > SAYS_NOTHING:
        text = (
            f"step {step}: the discriminator says nothing, its loss is {mean:.4f} over {WINDOW} steps, where 1 is a guess: "
            f"what it adds to the loss is noise; leave {option('adversarial')} and {option('perceptual')} out, or train longer"
        )
        return Finding("discriminator_silent", text)
    return None
