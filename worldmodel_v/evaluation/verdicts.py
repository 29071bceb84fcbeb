"""What a figure means, in one plain sentence, and whether that is good. The thresholds in this file are rules of thumb.

They are for frames of a world model at 64x64. The page shows the number with each sentence, so readers can judge themselves.
What a recipe does not aim at is noted and not graded: with beta up to 1, latents need not be distributed as the prior, since a
dynamics model learns their distribution; with beta above 1, silent latents are the price that was chosen.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from worldmodel_v.autoencoders.gaussian.likelihood import Bound
from worldmodel_v.autoencoders.gaussian.posterior import AggregatedPosterior
from worldmodel_v.autoencoders.tokens import CodeUse
from worldmodel_v.autoencoders.tokens.tokenizer import COLLAPSED_BITS
from worldmodel_v.evaluation.attributes import Attribute
from worldmodel_v.evaluation.disentangle import Disentanglement
from worldmodel_v.evaluation.inpainting import Inpainting
from worldmodel_v.evaluation.prior import PriorFit
from worldmodel_v.evaluation.token_prior import TokenPriorFit
from worldmodel_v.surface import option

RAW_BITS = 8.0
WEAK_EDIT = 0.3
"""Below this share of the intended change, the decoder hardly draws an edit."""

Tone = Literal["good", "fair", "bad", "note"]


@dataclass(frozen=True)
class Verdict:
    """A sentence, and whether it is good news; a note is neither."""

    tone: Tone
    text: str


def graded(value: float, good: float, fair: float, worst: Tone = "bad") -> Tone:
    """The grade of a value by two thresholds; `good` below `fair` means that less is better. `worst` is the lowest grade."""
    sign = 1.0 if good >= fair else -1.0
    if sign * value >= sign * good:
        return "good"
    return "fair" if sign * value >= sign * fair else worst


def on_fidelity(psnr_db: float, ssim: float, sizes: Iterable[str] = ()) -> Verdict:
    """How close reconstructions are; `sizes` are the settings of a VAE that say how many latents there are."""
    raised = " or ".join(option(name) for name in sizes)
    more = f"lower {option('beta')} or raise {raised}" if raised else "or let it store more of a frame"
    tone = graded(psnr_db, 30.0, 25.0)
    words = {
        "good": "close on average; what is small and rare counts little in these figures, so look for it in the pictures",
        "fair": "fair: the layout is right, fine detail is blurred",
        "bad": f"poor: much of the frame is lost; train longer, {more}",
    }[tone]
    return Verdict(tone, f"With {psnr_db:.1f} dB and an SSIM of {ssim:.3f}, reconstructions of unseen episodes are {words}.")


def on_activity(active: int, latent_dim: int, beta: float, sizes: Mapping[str, int]) -> Verdict:
    """Whether latents are used, or have collapsed onto the prior; `sizes` are the settings that say how many there are."""
    silent = latent_dim - active
    if active == 0:
        return Verdict(
            "bad",
            "The posterior has collapsed: no latent says anything. "
            f"Train with a lower {option('beta')} or a longer KL annealing.",
        )
    if silent == 0:
        return Verdict("good", f"All {latent_dim} latents carry information; none has collapsed.")
    tone: Tone = "note" if beta > 1 else "fair" if 2 * active >= latent_dim else "bad"
    verb = "latents is" if silent == 1 else "latents are"
    smaller = " or ".join(option(name) for name in sizes)
    fewer = f"A {smaller} of {active}" if list(sizes.values()) == [latent_dim] else f"A smaller {smaller}"
    remedy = f"{fewer} would do as well, or a lower {option('beta')} would use them."
    return Verdict(tone, f"{silent} of {latent_dim} {verb} silent. {remedy}")


def on_codes(found: CodeUse) -> Verdict:
    """Whether the codes are used."""
    share = found.entropy_bits / found.capacity_bits
    dead = f"{found.dead_codes:,} of {found.num_codes:,} codes are dead"
    size = f"{found.entropy_bits:.0f} of the {found.capacity_bits:.0f} bits that a frame's tokens can hold are used"
    if found.entropy_bits < COLLAPSED_BITS:
        return Verdict("bad", f"The codebook has collapsed: all frames have nearly the same tokens. {dead}.")
    tone = graded(share, 0.5, 0.2, worst="note")
    words = {
        "good": "The codes are well used",
        "fair": "The codes are partly used, so that fewer would do nearly as well",
        "note": "Few of the codes are needed for these frames: a smaller codebook, or fewer tokens, would do as well",
    }[tone]
    return Verdict(tone, f"{words}: {size}, and {dead}.")


def on_prior(aggregated: AggregatedPosterior, beta: float) -> Verdict:
    """Whether samples from the prior are like frames."""
    per_latent = aggregated.kl_nats / len(aggregated.mean)
    tone = graded(per_latent, 0.05, 0.25)
    if tone != "good" and beta <= 1:
        return Verdict(
            "note",
            f"All frames' latents together are {aggregated.kl_nats:.1f} nats from N(0, I), so samples from it may not look "
            f"like frames. At {option('beta', beta)} the training does not aim at that: a dynamics model learns how latents "
            f"are distributed. Raise {option('beta')} to sample from N(0, I).",
        )
    words = {
        "good": "match the prior well, so that samples are like frames",
        "fair": "match the prior roughly, so that some samples mix what never occurs together",
        "bad": "are far from the prior, so that samples show what no frame shows; a still higher "
        f"{option('beta')} brings them nearer",
    }[tone]
    return Verdict(tone, f"All frames' latents together {words} ({aggregated.kl_nats:.1f} nats from N(0, I)).")


def on_fitted_prior(fit: PriorFit) -> Verdict:
    """What a fitted prior is worth for latents that it was not fitted to."""
    if fit.nll_nats is None:
        return Verdict("note", "There is a single episode, so how well it fits others is not known.")
    gain = fit.standard_normal_nll_nats - fit.nll_nats
    likely = f"{abs(gain):.1f} nats {'more' if gain > 0 else 'less'} likely than N(0, I) does"
    remedy = "" if gain > 0 else ": it follows these few frames too closely"
    return Verdict("note", f"Fitted to half of the episodes, it makes the latents of the others {likely}{remedy}.")


def on_token_prior(fit: TokenPriorFit) -> Verdict:
    """What a fitted prior of tokens is worth for frames that it was not fitted to."""
    if fit.bits is None or fit.independent_bits is None:
        return Verdict("note", "There is a single episode, so how well it fits others is not known.")
    few = " It follows these few frames too closely." if fit.bits > fit.independent_bits else ""
    return Verdict(
        "note",
        f"Fitted to half of the episodes, it needs {fit.bits:.0f} bits for the tokens of a frame of the others. With tokens "
        f"independent of each other it would need {fit.independent_bits:.0f}.{few}",
    )


def on_bound(found: Bound, is_learned: bool = False) -> Verdict | None:
    """Whether the likelihood fits the errors; None for Bernoulli, whose bits are not comparable with those of bytes."""
    if found.sigma is None:
        return None
    bits = found.bits_per_dimension
    if bits < RAW_BITS:
        return Verdict("good", f"By the bound a value costs {bits:.2f} bits, where a raw byte takes {RAW_BITS:.0f}.")
    if is_learned:
        return Verdict(
            "fair",
            f"A value costs {bits:.2f} bits by the bound, more than a raw byte: the learned σ of {found.sigma:.2f} does not "
            "fit the errors on these frames, which are unlike those of the training.",
        )
    return Verdict(
        "note",
        f"The Gaussian's fixed σ of {found.sigma:.2f} is far wider than the errors, so that a value costs {bits:.2f} bits "
        "by the bound, more than a raw byte. The bound then compares VAEs of this σ only; with a learned σ it can be compared "
        "with others.",
    )


def on_interpolation(jumpiness: float) -> Verdict:
    """Whether paths between frames are smooth."""
    tone = graded(jumpiness, 2.0, 3.5)
    words = {"good": "smooth", "fair": "mostly smooth", "bad": "abrupt"}[tone]
    return Verdict(tone, f"The paths are {words}: the largest step is {jumpiness:.1f} times the average one.")


def on_traversals(active: int, shown: int, weakest: float) -> Verdict:
    """Whether single latents change the picture."""
    tone: Tone = "good" if active >= shown else "fair" if active else "bad"
    return Verdict(
        tone,
        f"{min(active, shown)} of the {shown} latents shown carry information; the weakest of these rows moves a pixel by "
        f"{weakest:.1f} of 255 levels.",
    )


def on_disentanglement(found: Disentanglement) -> Verdict:
    """Whether single latents encode single factors."""
    tone = graded(found.mig, 0.2, 0.05, worst="note")
    words = {
        "good": "single latents stand for single factors",
        "fair": "some factors have a latent of their own, others are spread",
        "note": "factors are spread over several latents, as is usual without pressure against it; a model that reads all "
        "latents does not mind",
    }[tone]
    return Verdict(tone, f"SAP is {found.sap:.3f} and MIG {found.mig:.3f}: {words}.")


def on_map(agreements: dict[str, float]) -> Verdict:
    """Whether neighbours in latent space are alike."""
    tone = graded(sum(agreements.values()) / len(agreements), 0.8, 0.4)
    words = {"good": "is orderly", "fair": "is partly orderly", "bad": "is not ordered by these"}[tone]
    values = ", ".join(f"{name} {value:.2f}" for name, value in agreements.items())
    return Verdict(tone, f"The map {words}: a frame's value correlates with its five neighbours' by {values}.")


def on_edits(edited: list[Attribute]) -> Verdict:
    """Whether latents predict factors, and whether editing latents changes factors."""
    tone = graded(edited[0].r2, 0.7, 0.4, worst="note")
    values = ", ".join(f"{item.factor} {item.r2:.2f}" for item in edited)
    achieved = [item.achieved for item in edited if item.achieved is not None]
    shares = ", ".join(f"{share:.0%}" for share in achieved)
    beside = f" Encoded again, edited frames show {shares} of the change that was asked of them." if achieved else ""
    if tone == "good" and achieved and max(achieved) < WEAK_EDIT:
        tone = "fair"
    words = {"good": "well", "fair": "partly", "note": "badly"}[tone]
    hidden = " A latent can hold only what a single frame shows." if tone == "note" else ""
    return Verdict(tone, f"A linear model reads these from the latents {words} (R² {values}).{hidden}{beside}")


def on_inpainting(found: Inpainting) -> Verdict:
    """Whether the autoencoder fills a hole better than a flat colour."""
    filled = {"alone": found.mse} | ({} if found.prior_mse is None else {"with the fitted prior": found.prior_mse})
    share = min(filled.values()) / found.mean_fill_mse if found.mean_fill_mse > 0 else float("inf")
    tone = graded(share, 0.7, 1.0, worst="note")
    words = {
        "good": "knows what belongs there",
        "fair": "is hardly better than a flat colour",
        "note": "is worse than a flat colour: it was not trained on frames with a grey hole",
    }[tone]
    return Verdict(
        tone,
        f"The autoencoder {words}: in the hole it is off by "
        f"{', '.join(f'{_levels(mse)} {how}' for how, mse in filled.items())} (of 255 levels, root mean square), the mean "
        f"colour by {_levels(found.mean_fill_mse)}, a reconstruction with nothing hidden by {_levels(found.seen_mse)}.",
    )


def on_anomalies(num_above: int, num_frames: int, worst: float) -> Verdict:
    """Whether some frames are reconstructed far worse than the rest."""
    share = num_above / num_frames
    tone: Tone = "good" if share <= 0.005 else "fair" if share <= 0.02 else "bad"
    words = {
        "good": "hardly any frame is out of the ordinary",
        "fair": "a few frames are out of the ordinary",
        "bad": "many frames are: a kind that training saw too little of",
    }[tone]
    return Verdict(
        tone,
        f"{num_above:,} of {num_frames:,} frames lie more than 3 SD above the mean error (the worst {worst:.1f} SD): {words}.",
    )


def on_unlikely(num_above: int, num_frames: int, worst: float) -> Verdict:
    """Whether some frames' latents are unlike all others."""
    return Verdict(
        "note", f"{num_above:,} of {num_frames:,} frames lie more than 3 SD above the mean (the worst {worst:.1f} SD)."
    )


def _levels(mse: float) -> str:
    return f"{255 * math.sqrt(mse):.1f}"
