"""Whether a discriminator still teaches anything: judged by its hinge loss, which is 0 if it wins and 1 if it says nothing."""

from worldmodel_v.autoencoders.base import Finding
from worldmodel_v.surface import option
from worldmodel_v.training.window import WINDOW

WINS = 0.05
SAYS_NOTHING = 0.999


def judge_discriminator(step: int, mean: float) -> Finding | None:
    """The problem that a mean of `discriminator_loss` over a window shows, which ends at this step."""
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
