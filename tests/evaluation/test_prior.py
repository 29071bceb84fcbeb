"""Priors that are fitted to latents: against exact densities, and on other episodes than those they were fitted to."""

import numpy as np
import pytest
import torch
from torch.distributions import MixtureSameFamily

from worldmodel_v.evaluation.prior import FRAMES_PER_VALUE, Kind, Prior, PriorFit, fit_prior
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
    assert (_components(prior), prior.fit.nll_nats, prior.surprise, prior.sample(5).shape) == (1, None, None, (5, 3))
    assert on_fitted_prior(prior.fit).text == "There is a single episode, so how well it fits others is not known."


def _components(prior: Prior) -> int:
    assert isinstance(prior.density, MixtureSameFamily)
    return len(prior.density.mixture_distribution.probs)


@pytest.mark.parametrize("kind", ["mixture", "full-covariance", "flow"])
def test_a_frame_that_no_other_episode_has_is_the_least_likely(kind: Kind) -> None:
    mu = correlated(np.random.default_rng(0))
    mu[1234] = [-9, 9]
    prior = fit_prior(kind, mu, np.full_like(mu, NARROW), EPISODES, seed=0)
    assert prior.surprise is not None
    assert prior.surprise.argmax() == 1234
    assert prior.fit.nll_nats == pytest.approx(prior.surprise.mean())


def test_a_flow_follows_what_no_gaussian_does() -> None:
    """z_2 = z_1² with little noise: the first layer's networks can hold that alone."""
    first = np.random.default_rng(0).standard_normal(NUM_FRAMES)
    mu = np.stack([first, first**2], axis=1)
    noise = np.full_like(mu, 2 * np.log(0.1))
    flow, gaussian = (fit_prior(kind, mu, noise, EPISODES, seed=0) for kind in ("flow", "full-covariance"))
    assert flow.fit.nll_nats is not None
    assert gaussian.fit.nll_nats is not None
    assert flow.fit.nll_nats < gaussian.fit.nll_nats - 0.5
    drawn = flow.sample(2000)
    assert np.abs(drawn[:, 1] - drawn[:, 0] ** 2).mean() < 0.5
    np.testing.assert_array_equal(flow.sample(10), fit_prior("flow", mu, noise, EPISODES, seed=0).sample(10))


def test_the_log_density_of_a_flow_is_that_of_its_samples() -> None:
    """∫ p = 1, by importance sampling from a Gaussian that is wider."""
    mu = correlated(np.random.default_rng(0))
    density = fit_prior("flow", mu, np.full_like(mu, NARROW), EPISODES, seed=0).density
    wide = torch.distributions.Normal(torch.zeros(2).double(), torch.full((2,), 6.0).double())
    points = wide.sample(torch.Size([200_000]))
    assert float((density.log_prob(points) - wide.log_prob(points).sum(dim=1)).exp().mean()) == pytest.approx(1, abs=0.05)


def test_the_callers_random_state_and_threads_stay() -> None:
    mu = correlated(np.random.default_rng(0))[:200]
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    fit_prior("flow", mu, np.zeros_like(mu), EPISODES[:200], seed=0).sample(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_the_verdict_says_what_it_is_worth() -> None:
    fit = PriorFit(kind="mixture", nll_nats=30.0, standard_normal_nll_nats=42.5)
    text = "Fitted to half of the episodes, it makes the latents of the others 12.5 nats more likely than N(0, I) does."
    assert on_fitted_prior(fit).text == text
