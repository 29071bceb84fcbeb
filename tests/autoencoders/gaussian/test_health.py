"""What a VAE's health is measured by, against references."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from worldmodel_v.autoencoders.base import Scores
from worldmodel_v.autoencoders.gaussian import Posterior
from worldmodel_v.autoencoders.gaussian.health import posterior_health


def health_of(posterior: Posterior) -> dict[str, Any]:
    latents = {name: part.double() for name, part in posterior._asdict().items()}
    return posterior_health(Scores(latents=latents, measures={}, num_values=1))


class TestPosteriorHealth:
    @pytest.fixture
    def drawn(self) -> Posterior:
        generator = torch.Generator().manual_seed(0)
        mixing = torch.randn(5, 5, generator=generator)
        mu = 0.3 + torch.randn(400, 5, generator=generator) @ mixing
        return Posterior(mu, 0.5 * torch.randn(400, 5, generator=generator) - 1)

    def test_the_kl_of_each_latent_is_that_of_torch(self, drawn: Posterior) -> None:
        reference = kl_divergence(Normal(drawn.mu, (0.5 * drawn.logvar).exp()), Normal(0.0, 1.0)).mean(dim=0)
        assert health_of(drawn)["kl_per_latent"] == pytest.approx(reference.tolist(), rel=1e-5)

    def test_the_aggregate_has_the_moments_of_the_mixture(self, drawn: Posterior) -> None:
        """Against the moments of a large sample of z: a frame first, then its posterior."""
        rng = np.random.default_rng(0)
        mu, sigma = drawn.mu.double().numpy(), (0.5 * drawn.logvar).double().exp().numpy()
        z = np.repeat(mu, 1000, axis=0) + np.repeat(sigma, 1000, axis=0) * rng.normal(size=(len(mu) * 1000, 5))
        found = health_of(drawn)
        correlation = np.corrcoef(z.T) - np.eye(5)
        assert found["aggregate_max_mean"] == pytest.approx(np.abs(z.mean(axis=0)).max(), abs=0.01)
        assert found["aggregate_max_correlation"] == pytest.approx(np.abs(correlation).max(), abs=0.01)
        assert found["aggregate_mean_square"] == pytest.approx((z**2).mean(), rel=0.01)

    def test_the_kl_of_the_aggregate_is_that_of_torch(self, drawn: Posterior) -> None:
        mu, logvar = drawn.mu.double(), drawn.logvar.double()
        covariance = torch.cov(mu.T, correction=0) + torch.diag(logvar.exp().mean(dim=0))
        fitted = MultivariateNormal(mu.mean(dim=0), covariance)
        prior = MultivariateNormal(torch.zeros(5).double(), torch.eye(5).double())
        assert health_of(drawn)["aggregate_kl_nats"] == pytest.approx(float(kl_divergence(fitted, prior)), rel=1e-9)

    def test_a_collapsed_posterior_is_the_prior_in_every_figure(self) -> None:
        found = health_of(Posterior(torch.zeros(10, 3), torch.zeros(10, 3)))
        assert found == {
            "kl_per_latent": [0.0] * 3,
            "aggregate_max_mean": 0.0,
            "aggregate_max_correlation": 0.0,
            "aggregate_mean_square": 1.0,
            "aggregate_kl_nats": 0.0,
        }

    def test_a_single_latent_and_a_single_frame_are_measured(self) -> None:
        found = health_of(Posterior(torch.full((1, 1), 2.0), torch.full((1, 1), math.log(0.25))))
        assert found["aggregate_max_correlation"] == 0
        assert found["aggregate_mean_square"] == pytest.approx(4.25)
        assert found["aggregate_kl_nats"] == pytest.approx(found["kl_per_latent"][0])
