"""All figures of an evaluation, from the sample and the scores of its frames. This module draws and writes nothing.

Legend: N frames, Z latent.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from worldmodel_v.autoencoders.base import Figures, Scores
from worldmodel_v.autoencoders.gaussian.health import active_latents, kl_per_latent
from worldmodel_v.autoencoders.gaussian.likelihood import Bound, bound, sigma_of
from worldmodel_v.autoencoders.gaussian.posterior import AggregatedPosterior, aggregate, posterior_of
from worldmodel_v.autoencoders.tokens import CodeUse, Tokenizer
from worldmodel_v.autoencoders.tokens.tokenizer import TOKENS
from worldmodel_v.evaluation.anomalies import Anomalies, find_anomalies
from worldmodel_v.evaluation.attributes import Attribute, achieved_share, choose_edits, edit, fit_attributes
from worldmodel_v.evaluation.coder import Coder, GaussianCoder
from worldmodel_v.evaluation.completion import have_places, most_probable, redrawn
from worldmodel_v.evaluation.config import MIN_FRAMES, EvalConfig
from worldmodel_v.evaluation.disentangle import Disentanglement, disentangle
from worldmodel_v.evaluation.factors import Factors, recorded_factors, with_speed
from worldmodel_v.evaluation.inpainting import Complete, Filled, Inpainting, inpaint
from worldmodel_v.evaluation.metrics import summarise
from worldmodel_v.evaluation.prior import Prior, PriorFit, fit_prior
from worldmodel_v.evaluation.sample import Sample
from worldmodel_v.evaluation.token_prior import MOST_TOKENS, TokenPrior, TokenPriorFit, fit_token_prior
from worldmodel_v.evenly import evenly_spaced
from worldmodel_v.profiles import Profile
from worldmodel_v.progress import Progress

INPAINTED_FRAMES = 64
EDITED_FRAMES = 64


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """How close reconstructions are, averaged over frames."""

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
    """The results of an evaluation, for any autoencoder."""

    heldout: Figures
    fidelity: Fidelity
    without_zoom: Fidelity | None
    """Without the rows in which the camera zooms in; None if it does not zoom in, or if no row is left."""

    episodes: list[EpisodeFidelity]
    """In ascending order of PSNR."""

    anomalies: Anomalies
    """By their reconstructions."""

    unlikely: Anomalies | None
    """By their latents, under a prior that was fitted to other episodes; None without a prior, or for a single episode."""

    inpainting: Inpainting
    constant_factors: list[str]


@dataclass(frozen=True, kw_only=True)
class GaussianFindings(Findings):
    """Further results for a VAE, whose latents have a distribution and are directions in latent space."""

    beta: float
    """The weight of the KL in training: above 1, latents are pressed towards the prior on purpose."""

    has_learned_sigma: bool
    """Whether training has fitted the likelihood's standard deviation."""

    sizes: dict[str, int]
    """The settings that say how many latents there are."""

    own_figures: Figures
    """Those of `heldout` that only this kind of VAE has."""

    bound: Bound
    kl_per_latent: list[float]
    active: list[bool]
    aggregated: AggregatedPosterior
    prior: PriorFit
    disentanglement: Disentanglement | None
    """None if no recorded factor varies."""

    attributes: list[Attribute]
    """Every factor and the speed, the best predicted first; those that were edited have `achieved`."""


@dataclass(frozen=True, kw_only=True)
class TokenFindings(Findings):
    """Further results for an autoencoder with tokens."""

    codes: CodeUse
    prior: TokenPriorFit | None
    """None if a frame has too many tokens."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What the pictures are drawn from, in addition to the findings."""

    sample: Sample
    scores: Scores
    coder: Coder
    factors: Factors
    """The recorded factors that vary, and the speed."""

    units: Mapping[str, str]
    """The units of factors that have one, by name."""

    zooms: np.ndarray
    """bool (N,): whether the camera has not reached its place yet, so that the frame shows little of what most frames show."""

    filled: Filled
    filled_frames: np.ndarray
    """int64 (n,), ascending: which frames they are."""

    def reconstructions(self, picked_n: np.ndarray) -> np.ndarray:
        """The reconstructions of some of the frames: uint8 (n, H, W, 3)."""
        latents = {name: rows.numpy()[picked_n] for name, rows in self.scores.latents.items()}
        return self.coder.decode(latents, self.sample.condition[picked_n])

    def clear(self, among_n: np.ndarray) -> np.ndarray:
        """Those of some frames in which the camera is in its place; all of them if it is in fewer than ten."""
        kept = among_n[~self.zooms[among_n]]
        return kept if len(kept) >= MIN_FRAMES else among_n

    @property
    def clear_frames(self) -> np.ndarray:
        """`clear` of all frames."""
        return self.clear(np.arange(len(self.sample)))

    @property
    def error(self) -> np.ndarray:
        """Sum of squared errors of each frame: float64 (N,)."""
        return self.scores.measures["squared_error"].numpy()


@dataclass(frozen=True, kw_only=True)
class GaussianMaterial(Material):
    """The same for a VAE."""

    coder: GaussianCoder
    prior: Prior

    @property
    def mu(self) -> np.ndarray:
        """float64 (N, Z)"""
        return posterior_of(self.scores.latents).mu.numpy()


@dataclass(frozen=True, kw_only=True)
class TokenMaterial(Material):
    """The same for an autoencoder with tokens."""

    prior: TokenPrior | None


def analyse(
    sample: Sample, scores: Scores, coder: Coder, config: EvalConfig, profile: Profile | None, progress: Progress
) -> tuple[Findings, Material]:
    """All numbers of an evaluation."""
    recorded, constant = recorded_factors(sample, config.factors)
    factors = with_speed(recorded)
    zooms_N = sample.row < (profile.zoom_rows if profile else 0)
    some = evenly_spaced(len(sample), INPAINTED_FRAMES)
    task = progress.task("analyse", 3, "parts")
    prior = _prior(sample, scores, coder, config)
    task.advance()
    inpainting, filled = inpaint(coder, sample.seen[some], sample.condition[some], _completion(coder, prior))
    task.advance()
    attributes = _attributes(sample, scores, coder, factors) if isinstance(coder, GaussianCoder) else []
    task.advance()
    task.close()
    common: dict[str, Any] = {
        "heldout": summarise(coder.model, scores),
        "fidelity": _fidelity(scores, np.ones(len(sample), bool)),
        "without_zoom": _fidelity(scores, ~zooms_N) if profile and not zooms_N.all() else None,
        "episodes": _by_episode(sample, scores),
        "anomalies": find_anomalies(scores.measures["squared_error"].numpy(), sample.episode, sample.row),
        "unlikely": _unlikely(sample, prior),
        "inpainting": inpainting,
        "constant_factors": constant,
    }
    beside: dict[str, Any] = {"sample": sample, "scores": scores, "factors": factors, "filled": filled}
    beside |= {"filled_frames": some, "zooms": zooms_N, "units": profile.state_units if profile else {}}
    if isinstance(coder.model, Tokenizer):
        prior = prior if isinstance(prior, TokenPrior) else None
        tokens = TokenFindings(**common, codes=coder.model.code_use(scores), prior=prior.fit if prior else None)
        return tokens, TokenMaterial(coder=coder, prior=prior, **beside)
    if not (isinstance(coder, GaussianCoder) and isinstance(prior, Prior)):
        return Findings(**common), Material(coder=coder, **beside)
    mu = posterior_of(scores.latents).mu.numpy()
    findings = GaussianFindings(
        **common,
        beta=coder.model.config.beta,
        sizes={name: getattr(coder.model.config, name) for name in coder.model.sizes},
        own_figures=coder.model.own_figures(scores),
        has_learned_sigma=coder.model.config.likelihood == "calibrated",
        bound=bound(scores, sigma_of(coder.model)),
        kl_per_latent=kl_per_latent(scores).tolist(),
        active=active_latents(scores).tolist(),
        aggregated=aggregate(posterior_of(scores.latents)),
        prior=prior.fit,
        disentanglement=disentangle(mu, recorded) if len(recorded) else None,
        attributes=attributes,
    )
    return findings, GaussianMaterial(coder=coder, prior=prior, **beside)


def _prior(sample: Sample, scores: Scores, coder: Coder, config: EvalConfig) -> Prior | TokenPrior | None:
    """The prior that is fitted to the latents; None for an autoencoder of neither kind, and for too many tokens."""
    if isinstance(coder, GaussianCoder):
        mu, logvar = (values.numpy() for values in posterior_of(scores.latents))
        return fit_prior(config.prior, mu, logvar, sample.episode, config.seed)
    if isinstance(coder.model, Tokenizer) and math.prod(coder.model.token_shape) <= MOST_TOKENS:
        return fit_token_prior(scores.latents[TOKENS], coder.model.num_values, sample.episode, config.seed)
    return None


def _completion(coder: Coder, prior: Prior | TokenPrior | None) -> Complete | None:
    """How the prior fills a hole."""
    if isinstance(prior, Prior) and isinstance(coder, GaussianCoder):
        return partial(most_probable, coder, prior)
    if isinstance(prior, TokenPrior) and have_places(prior.token_shape):
        return partial(redrawn, coder, prior)
    return None


def _unlikely(sample: Sample, prior: Prior | TokenPrior | None) -> Anomalies | None:
    surprise_N = prior.surprise if prior else None
    return None if surprise_N is None else find_anomalies(surprise_N, sample.episode, sample.row)


def _fidelity(scores: Scores, keep_N: np.ndarray) -> Fidelity:
    keep = torch.from_numpy(keep_N)
    return Fidelity(
        num_frames=int(keep.sum()),
        psnr_db=float(scores.psnr[keep].mean()),
        ssim=float(scores.measures["ssim"][keep].mean()),
        squared_error=float(scores.measures["squared_error"][keep].mean()),
    )


def _by_episode(sample: Sample, scores: Scores) -> list[EpisodeFidelity]:
    found = [
        EpisodeFidelity(episode=int(episode), fidelity=_fidelity(scores, sample.episode == episode))
        for episode in np.unique(sample.episode)
    ]
    return sorted(found, key=lambda item: item.fidelity.psnr_db)


def _attributes(sample: Sample, scores: Scores, coder: GaussianCoder, factors: Factors) -> list[Attribute]:
    """The regressions; for edited factors, also whether edited frames show the change."""
    mu = posterior_of(scores.latents).mu.numpy()
    attributes = fit_attributes(mu, active_latents(scores).numpy(), factors, sample.episode)
    edited = [attribute.factor for attribute in choose_edits(attributes, factors)]
    some = evenly_spaced(len(mu), EDITED_FRAMES)

    def tried(attribute: Attribute) -> Attribute:
        points = edit(mu[some], attribute)
        condition = sample.condition[some].repeat(points.shape[1], axis=0)
        frames = coder.decode_z(points.reshape(-1, coder.latent_dim), condition)
        found = coder.encode_mu(frames, condition).reshape(points.shape)
        return replace(attribute, achieved=achieved_share(points, found, attribute))

    return [tried(attribute) if attribute.factor in edited else attribute for attribute in attributes]
