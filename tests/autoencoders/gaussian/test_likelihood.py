"""The bound with all its constants, against torch.distributions."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from worldmodel_v.autoencoders import frames_to_input
from worldmodel_v.autoencoders.base import Scores
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig
from worldmodel_v.autoencoders.gaussian.likelihood import bound, log_likelihood, sigma_of
from worldmodel_v.autoencoders.gaussian.settings import UNIT_WEIGHT_SIGMA
from worldmodel_v.evaluation.metrics import score_frames

CPU = torch.device("cpu")


def logits_and_frames() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(5, 3, 8, 8, generator=generator), torch.rand(5, 3, 8, 8, generator=generator)


@pytest.mark.parametrize("sigma", [UNIT_WEIGHT_SIGMA, 1.0, 0.03])
def test_a_gaussian_likelihood_is_that_of_torch(sigma: float) -> None:
    logits, x = logits_and_frames()
    mean = torch.sigmoid(logits.double())
    expected = Normal(mean, torch.tensor(sigma, dtype=torch.float64)).log_prob(x.double()).sum(dim=(1, 2, 3))
    torch.testing.assert_close(log_likelihood(logits, x, sigma), expected, rtol=1e-10, atol=0)


def test_a_bernoulli_likelihood_is_that_of_torch() -> None:
    logits, x = logits_and_frames()
    expected = Bernoulli(logits=logits.double(), validate_args=False).log_prob(x.double()).sum(dim=(1, 2, 3))
    torch.testing.assert_close(log_likelihood(logits, x, None), expected, rtol=1e-10, atol=0)


def test_a_saturated_bernoulli_likelihood_stays_finite() -> None:
    found = log_likelihood(torch.full((1, 3, 8, 8), 200.0), torch.zeros(1, 3, 8, 8), None)
    assert found.tolist() == [-200.0 * 192]


def test_under_the_fixed_sigma_it_is_the_squared_error_up_to_a_constant() -> None:
    logits, x = logits_and_frames()
    error = (torch.sigmoid(logits.double()) - x).square().sum(dim=(1, 2, 3))
    constant = -0.5 * 192 * math.log(math.pi)
    torch.testing.assert_close(log_likelihood(logits, x, UNIT_WEIGHT_SIGMA), constant - error, rtol=1e-10, atol=0)


def scores(log_likelihoods: list[float], mu: list[list[float]], num_values: int) -> Scores:
    mean = torch.tensor(mu, dtype=torch.float64)
    measured = {name: torch.tensor(log_likelihoods, dtype=torch.float64) for name in ("log_likelihood", "squared_error")}
    return Scores(latents={"mu": mean, "logvar": torch.zeros_like(mean)}, measures=measured, num_values=num_values)


def test_the_bound_and_its_bits_are_worked_out_by_hand() -> None:
    found = bound(scores([-10.0, -30.0], [[1.0, 0.0], [0.0, 2.0]], num_values=10), sigma=0.5)
    assert found.kl_nats == pytest.approx((0.5 + 2.0) / 2)
    assert found.elbo_nats == pytest.approx(-20.0 - 1.25)
    assert found.bits_per_dimension == pytest.approx(21.25 / (10 * math.log(2)) + 8)
    assert found.sigma == 0.5


def test_a_bernoulli_bound_has_no_bits_for_the_width_of_a_level() -> None:
    found = bound(scores([-10.0], [[0.0]], num_values=5), sigma=None)
    assert found.bits_per_dimension == pytest.approx(2 / math.log(2))


@pytest.mark.parametrize("likelihood", ["gaussian", "calibrated", "bernoulli"])
def test_a_models_bound_is_that_of_its_own_samples(likelihood: str) -> None:
    """One z for each frame, drawn with the generator in the order of the frames."""
    torch.manual_seed(0)
    model = VAE(VAEConfig(frame_height=8, frame_width=8, latent_dim=3, likelihood=likelihood)).eval()
    model.calibrate(torch.tensor(0.02))
    frames = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    found = bound(score_frames(model, frames, CPU, seed=5), sigma_of(model))
    with torch.no_grad():
        x = frames_to_input(torch.from_numpy(frames))
        posterior = model.posterior(x)
        decoded = model.decode_logits(posterior.sample(torch.Generator().manual_seed(5)))
    if likelihood != "bernoulli":
        sigma = math.sqrt(0.5) if likelihood == "gaussian" else float(model.variance) ** 0.5
        density = Normal(torch.sigmoid(decoded), sigma).log_prob(x)
    else:
        density = Bernoulli(logits=decoded, validate_args=False).log_prob(x)
    kl = kl_divergence(Normal(posterior.mu, (0.5 * posterior.logvar).exp()), Normal(0.0, 1.0)).sum(dim=1).mean()
    assert found.log_likelihood_nats == pytest.approx(float(density.sum(dim=(1, 2, 3)).mean()), rel=1e-5)
    assert found.kl_nats == pytest.approx(float(kl), rel=1e-4)
    assert found.elbo_nats == pytest.approx(found.log_likelihood_nats - found.kl_nats)
