"""Priors that are fitted to latents: against exact densities, and on other episodes than those they were fitted to."""

import numpy as np
import pytest

from worldmodel_v.evaluation.prior import FRAMES_PER_VALUE, PriorFit, fit_prior
from worldmodel_v.evaluation.verdicts import on_fitted_prior

NUM_FRAMES, NARROW = 2000, -30.0
EPISODES = np.arange(NUM_FRAMES) // 100
MIXING = np.array([[2.0, 0.0], [1.5, 0.3]])


def correlated(rng: np.random.Generator) -> np.ndarray:
    """Draws of N((1, -1), M M^T)."""
    return rng.standard_normal((NUM_FRAMES, 2)) @ MIXING.T + [1, -1]


def two_clusters(rng: np.random.Generator) -> np.ndarray:
    """Draws of N(±4, 0.1²) in both dimensions."""
    return rng.choice([-4.0, 4.0], (NUM_FRAMES, 1)) + 0.1 * rng.standard_normal((NUM_FRAMES, 2))


def test_a_gaussian_with_full_covariance_has_the_entropy_of_what_it_is_fitted_to() -> None:
    mu = correlated(np.random.default_rng(0))
    fit = fit_prior("full-covariance", mu, np.full_like(mu, NARROW), EPISODES, seed=0).fit
    entropy = 0.5 * np.log(np.linalg.det(2 * np.pi * np.e * MIXING @ MIXING.T))
    assert fit.nll_nats == pytest.approx(entropy, abs=0.05)
    assert fit.standard_normal_nll_nats == pytest.approx(
        0.5 * (np.square(mu).sum(axis=1).mean() + 2 * np.log(2 * np.pi)), rel=1e-5
    )


def test_its_samples_have_the_moments_of_the_latents_noise_included() -> None:
    mu = correlated(np.random.default_rng(0))
    z = fit_prior("full-covariance", mu, np.zeros_like(mu), EPISODES, seed=1).sample(20_000)
    np.testing.assert_allclose(z.mean(axis=0), [1, -1], atol=0.15)
    np.testing.assert_allclose(np.cov(z.T), MIXING @ MIXING.T + np.eye(2), atol=0.3)  # sigma is 1


def test_a_mixture_finds_clusters_between_which_a_gaussian_puts_its_mass() -> None:
    mu = two_clusters(np.random.default_rng(0))
    mixture, gaussian = (
        fit_prior(kind, mu, np.full_like(mu, NARROW), EPISODES, seed=0) for kind in ("mixture", "full-covariance")
    )
    assert mixture.fit.nll_nats < gaussian.fit.nll_nats - 1
    assert (np.abs(np.abs(mixture.sample(500)) - 4) < 1).all()
    assert (np.abs(gaussian.sample(500)) < 3).any()


def test_the_same_seed_gives_the_same_prior_and_the_same_samples() -> None:
    mu = two_clusters(np.random.default_rng(0))
    first, again = (fit_prior("mixture", mu, np.zeros_like(mu), EPISODES, seed=3) for _ in range(2))
    assert first.fit == again.fit
    np.testing.assert_array_equal(first.sample(10), again.sample(10))


def test_it_is_scored_on_episodes_that_it_was_not_fitted_to() -> None:
    """Two episodes, far from each other: each half of them is unlikely under the fit to the other."""
    mu = np.random.default_rng(0).standard_normal((200, 2)) + np.repeat([0.0, 50.0], 100)[:, None]
    fit = fit_prior("full-covariance", mu, np.full_like(mu, NARROW), np.repeat([0, 1], 100), seed=0).fit
    assert fit.nll_nats is not None
    assert fit.nll_nats > fit.standard_normal_nll_nats
    assert "nats less likely than N(0, I) does: it follows these few frames too closely" in on_fitted_prior(fit).text


def test_few_frames_and_a_single_episode() -> None:
    mu = np.random.default_rng(0).standard_normal((2 * 3 * FRAMES_PER_VALUE - 1, 3))
    prior = fit_prior("mixture", mu, np.zeros_like(mu), np.zeros(len(mu), int), seed=0)
    assert (prior.mixture.n_components, prior.fit.nll_nats, prior.sample(5).shape) == (1, None, (5, 3))
    assert on_fitted_prior(prior.fit).text == "There is a single episode, so how well it fits others is not known."


def test_the_verdict_says_what_it_is_worth() -> None:
    fit = PriorFit(kind="mixture", nll_nats=30.0, standard_normal_nll_nats=42.5)
    text = "Fitted to half of the episodes, it makes the latents of the others 12.5 nats more likely than N(0, I) does."
    assert on_fitted_prior(fit).text == text
