"""Whether a discriminator still teaches anything: judged by its hinge loss, which is 0 if it wins and 1 if it says nothing."""

from collections.abc import Mapping

from worldmodel_v.autoencoders.base import Finding
from worldmodel_v.surface import option

WINDOW = 200
"""Steps over which its loss is averaged."""

WINS = 0.05
SAYS_NOTHING = 0.999


class DiscriminatorWatch:
    """Judges the recorded losses of a discriminator, window after window."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._first: int | None = None

    def judge(self, step: int, figures: Mapping[str, float]) -> Finding | None:
        """The problem that the last window shows, if it ends at this step; `figures` are those recorded of it."""
        if "discriminator_loss" not in figures:
            return None
        self._losses.append(figures["discriminator_loss"])
        self._first = step if self._first is None else self._first
        if step - self._first < WINDOW:
            return None
        mean = sum(self._losses) / len(self._losses)
        self._losses, self._first = [], None
        return _finding(step, mean)


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
