"""All figures of an evaluation, from the sample and the scores of its frames; nothing here draws or writes.

Legend: N frames, Z latent.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from worldmodel_v.autoencoders.gaussian.likelihood import Bound, bound, sigma_of
from worldmodel_v.autoencoders.gaussian.posterior import AggregatedPosterior, aggregate
from worldmodel_v.evaluate.anomalies import Anomalies, find_anomalies
from worldmodel_v.evaluate.attributes import Attribute, achieved_share, choose_edits, edit, fit_attributes
from worldmodel_v.evaluate.coder import Coder
from worldmodel_v.evaluate.disentangle import Disentanglement, disentangle
from worldmodel_v.evaluate.factors import Factors, recorded_factors, with_speed
from worldmodel_v.evaluate.inpainting import Filled, Inpainting, inpaint
from worldmodel_v.evaluate.metrics import Evaluation, Scores, summarise
from worldmodel_v.evaluate.sample import ZOOM_ROWS, Sample

INPAINTED_FRAMES = 256
EDITED_FRAMES = 64


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """How close reconstructions from mu are, averaged over frames."""

    num_frames: int
    psnr_db: float
    ssim: float
    """Structural similarity (Wang et al. 2004), 1 at best."""

    squared_error: float


@dataclass(frozen=True, kw_only=True)
class EpisodeFidelity:
    """How close the reconstructions of one episode are."""

    episode: int
    fidelity: Fidelity


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that an evaluation found out."""

    heldout: Evaluation
    fidelity: Fidelity
    without_zoom: Fidelity | None
    """Without the first 50 rows of each episode, CarRacing's zoom-in; None elsewhere, or where nothing is left."""

    bound: Bound
    kl_per_latent: list[float]
    active: list[bool]
    aggregated: AggregatedPosterior
    episodes: list[EpisodeFidelity]
    """In ascending order of PSNR."""

    disentanglement: Disentanglement | None
    """None where no recorded factor varies."""

    attributes: list[Attribute]
    """Every factor and the speed, the best predicted first; those that were edited have `achieved`."""

    anomalies: Anomalies
    inpainting: Inpainting
    constant_factors: list[str]


@dataclass(frozen=True, kw_only=True)
class Material:
    """What the pictures are drawn from, beside the findings."""

    sample: Sample
    scores: Scores
    coder: Coder
    factors: Factors
    """The recorded factors that vary, and the speed."""

    filled: Filled

    @property
    def mu(self) -> np.ndarray:
        """float64 (N, Z)"""
        return self.scores.posterior.mu.numpy()

    @property
    def error(self) -> np.ndarray:
        """Sum of squared errors of each frame: float64 (N,)."""
        return self.scores.measures["squared_error"].numpy()


def analyse(
    sample: Sample, scores: Scores, coder: Coder, *, is_car_racing: bool, asked: tuple[str, ...]
) -> tuple[Findings, Material]:
    """Everything that can be said in numbers; raises ConfigError if a factor is asked for that is not recorded."""
    recorded, constant = recorded_factors(sample, asked)
    factors = with_speed(recorded)
    mu = scores.posterior.mu.numpy()
    some = np.unique(np.linspace(0, len(sample) - 1, min(len(sample), INPAINTED_FRAMES)).astype(int))
    inpainting, filled = inpaint(coder, sample.frames[some], sample.condition[some])
    findings = Findings(
        heldout=summarise(scores),
        fidelity=_fidelity(scores, np.ones(len(sample), bool)),
        without_zoom=_without_zoom(sample, scores) if is_car_racing else None,
        bound=bound(scores, sigma_of(coder.model)),
        kl_per_latent=scores.kl.tolist(),
        active=scores.active.tolist(),
        aggregated=aggregate(scores.posterior),
        episodes=_by_episode(sample, scores),
        disentanglement=disentangle(mu, recorded) if len(recorded) else None,
        attributes=_attributes(sample, scores, coder, factors),
        anomalies=find_anomalies(scores.measures["squared_error"].numpy(), sample.episode, sample.row),
        inpainting=inpainting,
        constant_factors=constant,
    )
    return findings, Material(sample=sample, scores=scores, coder=coder, factors=factors, filled=filled)


def _fidelity(scores: Scores, keep_N: np.ndarray) -> Fidelity:
    keep = torch.from_numpy(keep_N)
    return Fidelity(
        num_frames=int(keep.sum()),
        psnr_db=float(scores.psnr[keep].mean()),
        ssim=float(scores.measures["ssim"][keep].mean()),
        squared_error=float(scores.measures["squared_error"][keep].mean()),
    )


def _without_zoom(sample: Sample, scores: Scores) -> Fidelity | None:
    keep_N = sample.row >= ZOOM_ROWS
    return _fidelity(scores, keep_N) if keep_N.any() else None


def _by_episode(sample: Sample, scores: Scores) -> list[EpisodeFidelity]:
    found = [
        EpisodeFidelity(episode=int(episode), fidelity=_fidelity(scores, sample.episode == episode))
        for episode in np.unique(sample.episode)
    ]
    return sorted(found, key=lambda item: item.fidelity.psnr_db)


def _attributes(sample: Sample, scores: Scores, coder: Coder, factors: Factors) -> list[Attribute]:
    """The regressions; for those that are edited, also whether edited frames show the change."""
    mu = scores.posterior.mu.numpy()
    attributes = fit_attributes(mu, scores.active.numpy(), factors, sample.episode)
    edited = [attribute.factor for attribute in choose_edits(attributes, factors)]
    some = np.unique(np.linspace(0, len(mu) - 1, min(len(mu), EDITED_FRAMES)).astype(int))

    def tried(attribute: Attribute) -> Attribute:
        points = edit(mu[some], attribute)
        condition = sample.condition[some].repeat(points.shape[1], axis=0)
        frames = coder.decode(points.reshape(-1, coder.latent_dim), condition)
        found = coder.encode(frames, condition).reshape(points.shape)
        return replace(attribute, achieved=achieved_share(points, found, attribute))

    return [tried(attribute) if attribute.factor in edited else attribute for attribute in attributes]
