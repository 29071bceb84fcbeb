"""The aggregated posterior's moments against torch.distributions."""

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from worldmodel_v.autoencoders.gaussian import Posterior
from worldmodel_v.autoencoders.gaussian.posterior import aggregate


def test_its_distance_from_the_prior_is_that_of_the_gaussian_with_its_moments() -> None:
    torch.manual_seed(0)
    mu = torch.randn(500, 3, dtype=torch.float64) @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.1]]).double()
    logvar = torch.randn(500, 3, dtype=torch.float64) - 2
    found = aggregate(Posterior(mu + 0.3, logvar))
    covariance = torch.cov(mu.T, correction=0) + torch.diag(logvar.exp().mean(dim=0))
    moments = MultivariateNormal((mu + 0.3).mean(dim=0), covariance)
    prior = MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    assert found.kl_nats == pytest.approx(float(kl_divergence(moments, prior)), rel=1e-9)
    assert found.variance == pytest.approx(covariance.diagonal().tolist())
    assert (found.min_variance, found.max_variance) == (min(found.variance), max(found.variance))
    scale = covariance.diagonal().sqrt()
    assert found.max_correlation == pytest.approx(float(covariance[0, 1] / scale[0] / scale[1]))


def test_latents_drawn_from_the_prior_are_at_the_prior() -> None:
    """Half of the variance stands in mu, half in σ²."""
    torch.manual_seed(0)
    mu = torch.randn(20_000, 4) * 0.5**0.5
    found = aggregate(Posterior(mu, torch.full((20_000, 4), 0.5).log()))
    assert found.kl_nats < 0.01
    assert found.max_abs_mean < 0.02
    assert found.max_correlation is not None
    assert found.max_correlation < 0.02


def test_a_collapsed_posterior_is_exactly_at_the_prior() -> None:
    found = aggregate(Posterior(torch.zeros(10, 2), torch.zeros(10, 2)))
    assert (found.kl_nats, found.max_abs_mean, found.min_variance, found.max_correlation) == (0.0, 0.0, 1.0, 0.0)


def test_a_single_latent_has_no_correlation() -> None:
    found = aggregate(Posterior(torch.tensor([[1.0], [-1.0]]), torch.full((2, 1), -100.0)))
    assert found.max_correlation is None
    assert found.kl_nats == pytest.approx(0.0, abs=1e-12)
