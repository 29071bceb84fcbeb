"""The pictures of an evaluation, each with what to look for and what it shows.

Legend: n frames, m steps of a walk, H, W, Z latent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from worldmodel_v.autoencoders.tokens.tokenizer import TOKENS
from worldmodel_v.evaluation import verdicts
from worldmodel_v.evaluation.analysis import (
    EpisodeFidelity,
    Findings,
    GaussianFindings,
    GaussianMaterial,
    Material,
    TokenFindings,
    TokenMaterial,
)
from worldmodel_v.evaluation.anomalies import Anomalies
from worldmodel_v.evaluation.attributes import STEPS, edit
from worldmodel_v.evaluation.canvas import Colouring, Row, frame_grid, heat, scatter, writable
from worldmodel_v.evaluation.embedding import choose_points, embed, neighbour_agreement
from worldmodel_v.evaluation.factors import ANGLE, without_end
from worldmodel_v.evaluation.grids import to_png
from worldmodel_v.evaluation.scales import readable
from worldmodel_v.evaluation.verdicts import Verdict
from worldmodel_v.evaluation.walks import SPREAD, interpolate, jumpiness, traverse
from worldmodel_v.evenly import evenly_spaced

COLUMNS = 8
INTERPOLATIONS = 5
PRIOR_ROWS = 4
TRAVERSALS = 12
EDITED_SHOWN = 2
COLOURINGS = ("speed", "angle", "on_road")
"""The factors that colour the map if they are recorded; otherwise those that latents predict best."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture and its words."""

    name: str
    """The file's name without `.png`."""

    title: str
    picture: np.ndarray
    """uint8 RGBA (H, W, 4)"""

    alt: str
    """A description of the picture for readers who cannot see it."""

    look_for: str
    verdict: Verdict

    @cached_property
    def png(self) -> bytes:
        """The bytes of the picture's file."""
        return to_png(self.picture)


def all_figures(seed: int) -> dict[str, Callable[[Findings, Material], Figure | str]]:
    """The functions that draw the figures, by name; each returns the figure, or the reason why it is left out."""
    return {
        "reconstructions": draw_reconstructions,
        "prior": _of_a_gaussian(lambda findings, material: draw_prior(findings, material, seed)),
        "fitted_prior": draw_fitted_prior,
        "interpolations": _of_a_gaussian(draw_interpolations),
        "traversals": _of_a_gaussian(draw_traversals),
        "tsne": _of_a_gaussian(lambda findings, material: draw_map(findings, material, seed)),
        "edits": _of_a_gaussian(draw_edits),
        "inpainting": draw_inpainting,
        "anomalies": draw_anomalies,
        "unlikely": draw_unlikely,
    }


def _of_a_gaussian(
    draw: Callable[[GaussianFindings, GaussianMaterial], Figure | str],
) -> Callable[[Findings, Material], Figure | str]:
    def draw_or_leave_out(findings: Findings, material: Material) -> Figure | str:
        if isinstance(findings, GaussianFindings) and isinstance(material, GaussianMaterial):
            return draw(findings, material)
        return "it is of a VAE's latents, whose distribution is Gaussian"

    return draw_or_leave_out


def on_fidelity(findings: Findings) -> Verdict:
    """How close reconstructions are."""
    sizes = findings.sizes if isinstance(findings, GaussianFindings) else {}
    return verdicts.on_fidelity(findings.fidelity.psnr_db, findings.fidelity.ssim, sizes)


def draw_reconstructions(findings: Findings, material: Material) -> Figure:
    """The best, the median and the worst episode: frames above their reconstructions."""
    episodes = findings.episodes
    chosen = {"best": episodes[-1], "median": episodes[len(episodes) // 2], "worst": episodes[0]}
    if len(episodes) < len(chosen):
        chosen = {"the only" if len(episodes) == 1 else name: item for name, item in chosen.items() if name != "median"}
    rows = [row for name, item in chosen.items() for row in _pair_of_rows(name, item, material)]
    return Figure(
        name="reconstructions",
        title="Reconstructions",
        picture=frame_grid(rows),
        alt=f"Frames of {len(chosen)} held-out episodes in pairs of rows: as recorded, and as decoded from the latents.",
        look_for="Upper rows are frames that the autoencoder was not trained on, lower rows what it makes of them. Compare "
        "the road's edge, the kerbs and whatever is small: an autoencoder loses first what is small and rare.",
        verdict=on_fidelity(findings),
    )


def _pair_of_rows(name: str, item: EpisodeFidelity, material: Material) -> list[Row]:
    of_episode = material.clear(np.flatnonzero(material.sample.episode == item.episode))
    picked = of_episode[evenly_spaced(len(of_episode), COLUMNS)]
    frames = material.sample.seen[picked]
    label = f"{name} episode\nno. {item.episode}, {item.fidelity.psnr_db:.1f} dB\nrecorded"
    return [Row(label, frames, starts_group=True), Row("reconstructed", material.reconstructions(picked))]


def draw_prior(findings: GaussianFindings, material: GaussianMaterial, seed: int) -> Figure:
    """Frames decoded from N(0, I)."""
    z = np.random.default_rng(seed).normal(size=(PRIOR_ROWS * COLUMNS, material.coder.latent_dim))
    return Figure(
        name="prior",
        title="Samples from N(0, I)",
        picture=_decoded(material, z),
        alt=f"{len(z)} frames decoded from random latents.",
        look_for="Nothing here was recorded: each frame is decoded from a random latent. Where the latents match the prior "
        "N(0, I), these look like moments that could have happened; blends of several roads mean that the prior and the "
        "latents of frames lie in different places.",
        verdict=verdicts.on_prior(findings.aggregated, findings.beta),
    )


def draw_fitted_prior(findings: Findings, material: Material) -> Figure | str:
    """Frames decoded from the distribution that was fitted to the latents."""
    count = PRIOR_ROWS * COLUMNS
    if isinstance(findings, GaussianFindings) and isinstance(material, GaussianMaterial):
        kind = findings.prior.kind
        picture, what = _decoded(material, material.prior.sample(count)), f"random latents of a fitted {kind}"
        look_for = (
            f"The same from a {kind} that was fitted to the latents of these frames after training. Where these are clear "
            "and those above are blends, the latents of frames lie elsewhere than N(0, I). A dynamics model learns where."
        )
        verdict = verdicts.on_fitted_prior(findings.prior)
    elif isinstance(findings, TokenFindings) and isinstance(material, TokenMaterial) and material.prior and findings.prior:
        picture, what = _decoded_tokens(material, material.prior.sample(count)), "random tokens of a fitted prior"
        look_for = (
            "Nothing here was recorded: the tokens of each frame are drawn one after the other, each given those before it, "
            "from a small transformer that was fitted to the tokens of these frames after training."
        )
        verdict = verdicts.on_token_prior(findings.prior)
    else:
        return "no prior is fitted to such latents, or to so many tokens"
    alt = f"{count} frames decoded from {what}."
    return Figure(
        name="fitted_prior", title="Samples from a fitted prior", picture=picture, alt=alt, look_for=look_for, verdict=verdict
    )


def _decoded_tokens(material: TokenMaterial, tokens_n: np.ndarray) -> np.ndarray:
    """The frames of random tokens as a picture."""
    return _in_rows(material.coder.decode({TOKENS: tokens_n}, _some_conditions(material, len(tokens_n))))


def _decoded(material: GaussianMaterial, z_nZ: np.ndarray) -> np.ndarray:
    """The frames of random latents as a picture."""
    return _in_rows(material.coder.decode_z(z_nZ, _some_conditions(material, len(z_nZ))))


def _some_conditions(material: Material, count: int) -> np.ndarray:
    return material.sample.condition[np.resize(evenly_spaced(len(material.sample), count), count)]


def _in_rows(frames_nHWC: np.ndarray) -> np.ndarray:
    return frame_grid([Row("", frames_nHWC[i : i + COLUMNS]) for i in range(0, len(frames_nHWC), COLUMNS)])


def draw_interpolations(findings: GaussianFindings, material: GaussianMaterial) -> Figure:
    """Paths through latent space between pairs of held-out frames, both ends shown as recorded."""
    clear = material.clear_frames
    picked = clear[evenly_spaced(len(clear), 2 * INTERPOLATIONS)]
    pairs = len(picked) // 2
    starts, ends = picked[:pairs], picked[pairs : 2 * pairs]
    points = interpolate(material.mu[starts], material.mu[ends], COLUMNS)
    shares = np.linspace(0, 1, COLUMNS)[None, :, None]
    condition = material.sample.condition
    mixed = condition[starts][:, None] * (1 - shares) + condition[ends][:, None] * shares
    walks = [material.coder.decode_z(walk, told.astype(np.float32)) for walk, told in zip(points, mixed, strict=True)]
    rows = [
        Row("", np.concatenate([material.sample.seen[[start]], walk, material.sample.seen[[end]]]))
        for start, end, walk in zip(starts, ends, walks, strict=True)
    ]
    headings = ["recorded", "decoded", *[""] * (COLUMNS - 2), "decoded", "recorded"]
    return Figure(
        name="interpolations",
        title="Interpolations",
        picture=frame_grid(rows, headings),
        alt=f"{pairs} rows, each going from one held-out frame to another through decoded latents between them.",
        look_for="Each row goes from one recorded frame to another in equal steps on an arc through latent space. It should "
        "bend and turn from one into the other; a cross-fade or a jump means that there is nothing in between.",
        verdict=verdicts.on_interpolation(max(jumpiness(walk) for walk in walks)),
    )


def draw_traversals(findings: GaussianFindings, material: GaussianMaterial) -> Figure:
    """One latent at a time over its own spread, from a typical frame; the most informative latents come first."""
    order = np.argsort(-np.array(findings.kl_per_latent), kind="stable")[:TRAVERSALS]
    clear = material.clear_frames
    base = int(clear[np.argsort(material.error[clear], kind="stable")[len(clear) // 2]])
    aggregated = findings.aggregated
    walks = traverse(material.mu[base], order, np.array(aggregated.mean), np.sqrt(aggregated.variance), COLUMNS + 1)
    condition = material.sample.condition[[base]].repeat(COLUMNS + 1, axis=0)
    decoded = [material.coder.decode_z(walk, condition) for walk in walks]
    rows = [Row(_latent_label(findings, int(latent)), frames) for latent, frames in zip(order, decoded, strict=True)]
    headings = [f"{value:+.3g} SD" if value else "mean" for value in np.linspace(-SPREAD, SPREAD, COLUMNS + 1)]
    weakest = min(np.abs(frames[-1].astype(float) - frames[0]).mean() for frames in decoded)
    return Figure(
        name="traversals",
        title="One latent at a time",
        picture=frame_grid(rows, headings),
        alt=f"{len(rows)} rows of one frame, in each of which a single latent goes over its own spread.",
        look_for="Each row changes one latent of one frame from 2 standard deviations (SD) below its mean over all frames to 2 "
        "above it, where about 95% of frames lie; its label gives mean ± SD. Latents that say most (largest KL) come first, "
        "with the factor that each correlates with most. Where a row changes one thing alone, that latent stands for it.",
        verdict=verdicts.on_traversals(int(findings.heldout["active_units"]), len(rows), float(weakest)),
    )


def _latent_label(findings: GaussianFindings, latent: int) -> str:
    mean, variance = findings.aggregated.mean[latent], findings.aggregated.variance[latent]
    label = f"z{latent}: {findings.kl_per_latent[latent]:.2f} nats\n{mean:.1f} ± {variance**0.5:.1f}"
    if findings.disentanglement is None:
        return label
    top = findings.disentanglement.top_factors[latent]
    return f"{label}\n{_plain(top.factor)}\nr = {top.strength}"


def draw_map(findings: GaussianFindings, material: GaussianMaterial, seed: int) -> Figure | str:
    """t-SNE of the latents, coloured by recorded factors."""
    if not any(findings.active):
        return "no latent says anything, so there is nothing to map"
    points = choose_points(len(material.sample))
    places = embed(material.mu[points], seed)
    colourings = {name: values[points] for name, values in _colourings(findings, material).items()}
    agreements = {name: neighbour_agreement(places, without_end(name, values)) for name, values in colourings.items()}
    return Figure(
        name="tsne",
        title="A map of the latents",
        picture=scatter(
            places,
            [
                Colouring(_plain(name), values, unit=material.units.get(name, ""), is_angle=name == ANGLE)
                for name, values in colourings.items()
            ],
        ),
        alt=f"Maps of {len(points)} frames, neighbours in latent space near each other, coloured by {', '.join(colourings)}.",
        look_for=f"t-SNE of {len(points):,} frames: those with similar latents lie near each other, and distances across the "
        "map mean nothing. Colours in clear regions say that the latents know the factor. Threads are episodes, whose "
        "neighbouring frames are alike in any case.",
        verdict=verdicts.on_map(agreements),
    )


def _colourings(findings: GaussianFindings, material: GaussianMaterial) -> dict[str, np.ndarray]:
    factors = material.factors
    names = [name for name in COLOURINGS if name in factors] or [item.factor for item in findings.attributes[: len(COLOURINGS)]]
    return {name: factors[name] for name in names} or {"row in its episode": material.sample.row.astype(np.float64)}


def draw_edits(findings: GaussianFindings, material: GaussianMaterial) -> Figure | str:
    """Frames moved along the directions of the factors that the latents predict best."""
    edited = [attribute for attribute in findings.attributes if attribute.achieved is not None]
    if not edited:
        return "no recorded factor can be read from the latents by a linear model"
    clear = material.clear_frames
    picked = clear[evenly_spaced(len(clear), EDITED_SHOWN + 2)[1:-1]]
    rows = []
    for attribute in edited:
        a_step = writable(readable(attribute.change_per_sigma, material.units.get(attribute.factor, "")))
        label = f"{_plain(attribute.factor)}\n{attribute.r2:.0%} explained\n+{a_step}\na step"
        for i, walk in enumerate(edit(material.mu[picked], attribute)):
            condition = material.sample.condition[picked[[i]]].repeat(len(walk), axis=0)
            frames = np.concatenate([material.sample.seen[picked[[i]]], material.coder.decode_z(walk, condition)])
            rows.append(Row(label if i == 0 else "", frames, starts_group=i == 0))
    return Figure(
        name="edits",
        title="Edits along a factor",
        picture=frame_grid(rows, ["recorded", *(f"{step:+.0f}" if step else "as it is" for step in STEPS)]),
        alt=f"Frames changed along the directions of {', '.join(item.factor for item in edited)}.",
        look_for="A linear regression reads a factor from the latents; frames are moved along the direction in which frames of "
        "high and low values differ, by up to two standard deviations of what is read. What changes should be what goes "
        "with the factor, and the rest should stay. The percentage is the regression's R²: what it explains of the factor's "
        "variance.",
        verdict=verdicts.on_edits(edited),
    )


def draw_inpainting(findings: Findings, material: Material) -> Figure:
    """Frames with a hole in the middle, filled by the VAE."""
    filled = material.filled
    clear = np.flatnonzero(np.isin(material.filled_frames, material.clear(material.filled_frames)))
    picked = clear[evenly_spaced(len(clear), COLUMNS)]
    labels = {"recorded": filled.original, "hidden": filled.masked, "mean colour": filled.mean_fill, "alone": filled.inpainted}
    if filled.by_prior is not None:
        labels["with the\nfitted prior"] = filled.by_prior
    return Figure(
        name="inpainting",
        title="Filling a hole",
        picture=frame_grid([Row(label, frames[picked]) for label, frames in labels.items()]),
        alt="Rows of frames: recorded, with a grey block in the middle, and with the block filled in several ways.",
        look_for="The middle of each frame is hidden; the autoencoder sees the rest and fills it, alone by a few rounds of "
        "encoding and decoding, and with the fitted prior by latents that are likely and explain what is visible. The road "
        "should run on through the hole.",
        verdict=verdicts.on_inpainting(findings.inpainting),
    )


def draw_anomalies(findings: Findings, material: Material) -> Figure:
    """The frames that are reconstructed worst, and where the error is."""
    found = findings.anomalies
    return Figure(
        name="anomalies",
        title="Frames that stand out",
        picture=_standing_out(found, material),
        alt="The frames with the largest errors, their reconstructions, and maps of the error.",
        look_for="The frames that are reconstructed worst, each with how many standard deviations (SD) its error lies above "
        "the mean, and the error's place below (black: none; light yellow: half of the range or more). They show what "
        "training saw too little of: other views, crashes, rare scenes.",
        verdict=verdicts.on_anomalies(found.num_above_threshold, len(material.sample), found.standing_out[0].z_score),
    )


def draw_unlikely(findings: Findings, material: Material) -> Figure | str:
    """The frames whose latents are least likely under a prior of other episodes."""
    found = findings.unlikely
    if found is None:
        return "it needs a fitted prior and two episodes"
    return Figure(
        name="unlikely",
        title="Frames with unlikely latents",
        picture=_standing_out(found, material),
        alt="The frames with the least likely latents, their reconstructions, and maps of the error.",
        look_for="A prior is fitted to the latents of half of the held-out episodes; these frames of the other half are the "
        "least likely under it, by so many standard deviations (SD). They may be drawn well and still be scenes that no other "
        "episode has: a dynamics model has seen little of them.",
        verdict=verdicts.on_unlikely(found.num_above_threshold, len(material.sample), found.standing_out[0].z_score),
    )


def _standing_out(found: Anomalies, material: Material) -> np.ndarray:
    """Frames, their reconstructions, and the places of the errors."""
    shown = found.standing_out[:COLUMNS]
    picked = np.array([item.index for item in shown])
    frames, decoded = material.sample.seen[picked], material.reconstructions(picked)
    error = np.abs(frames.astype(np.float64) - decoded).mean(axis=3) / 255
    rows = [Row("recorded", frames), Row("reconstructed", decoded), Row("error", heat(error * 2))]
    return frame_grid(rows, [f"{item.z_score:+.1f} SD" for item in shown])


def _plain(name: str) -> str:
    return name.replace("_", " ")
