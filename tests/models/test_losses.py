"""The loss against torch.distributions and against sums by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import distributions

from worldmodel_v.models import ConvVAE, Elbo, Posterior, VAEConfig, elbo, frames_to_input, gaussian_kl
from worldmodel_v.models.losses import reconstruction_loss


def random_tensors(*shape: int) -> tuple[torch.Tensor, ...]:
    """Two tensors of the same shape."""
    return tuple(torch.randn(2, *shape, generator=torch.Generator().manual_seed(3)))


class TestGaussianKL:
    def test_it_is_the_divergence_of_torch_distributions(self) -> None:
        mu, logvar = (3 * values.double() for values in random_tensors(50, 8))
        posterior = distributions.Normal(mu, torch.exp(0.5 * logvar))
        prior = distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
        expected = distributions.kl_divergence(posterior, prior)
        torch.testing.assert_close(gaussian_kl(Posterior(mu, logvar)), expected, rtol=1e-12, atol=1e-12)

    def test_it_is_zero_at_the_prior_alone(self) -> None:
        zeros = torch.zeros(3, 2)
        assert torch.equal(gaussian_kl(Posterior(zeros, zeros)), zeros)
        mu, logvar = random_tensors(50, 8)
        assert (gaussian_kl(Posterior(mu, logvar)) > 0).all()

    @pytest.mark.parametrize(
        ("mu", "logvar", "expected"),
        [(1.0, 0.0, 0.5), (3.0, 0.0, 4.5), (0.0, math.log(4), 0.5 * (3 - math.log(4))), (0.0, -2.0, 0.5 * (math.exp(-2) + 1))],
    )
    def test_it_has_the_values_of_the_closed_form(self, mu: float, logvar: float, expected: float) -> None:
        found = gaussian_kl(Posterior(torch.tensor([[mu]]), torch.tensor([[logvar]])))
        assert found.shape == (1, 1)
        assert found.item() == pytest.approx(expected, rel=1e-6)


class TestReconstruction:
    def test_gaussian_sums_of_a_known_tensor(self) -> None:
        x = torch.tensor([0.0, 0.5, 1.0, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]).reshape(1, 3, 2, 2)
        logits = torch.zeros_like(x)
        found = reconstruction_loss(torch.cat([logits, logits]), torch.cat([x, 1 - x]), "gaussian")
        assert found.tolist() == [0.25 + 0.25 + 0.0625] * 2

    def test_bernoulli_sums_of_a_known_tensor(self) -> None:
        logits = torch.tensor([0.0, math.log(3), -math.log(3)]).reshape(1, 3, 1, 1)
        x = torch.tensor([1.0, 1.0, 0.5]).reshape(1, 3, 1, 1)
        expected = math.log(2) + math.log(4 / 3) - 0.5 * (math.log(1 / 4) + math.log(3 / 4))
        assert reconstruction_loss(logits, x, "bernoulli").tolist() == pytest.approx([expected], rel=1e-6)

    def test_bernoulli_is_the_log_probability_of_torch_distributions(self) -> None:
        logits, noise = (values.double() for values in random_tensors(5, 3, 4, 4))
        x = torch.sigmoid(noise)
        log_prob = distributions.Bernoulli(logits=logits, validate_args=False).log_prob(x)
        expected = -log_prob.sum(dim=(1, 2, 3))
        torch.testing.assert_close(reconstruction_loss(logits, x, "bernoulli"), expected, rtol=1e-12, atol=0)

    def test_gaussian_is_the_log_probability_at_variance_one_half_without_its_constant(self) -> None:
        logits, noise = (values.double() for values in random_tensors(5, 3, 4, 4))
        x = torch.sigmoid(noise)
        log_prob = distributions.Normal(torch.sigmoid(logits), math.sqrt(0.5)).log_prob(x)
        constant = 0.5 * math.log(math.pi)
        expected = -(log_prob + constant).sum(dim=(1, 2, 3))
        torch.testing.assert_close(reconstruction_loss(logits, x, "gaussian"), expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
    def test_each_frame_has_its_own_loss(self, likelihood: str) -> None:
        logits, noise = random_tensors(5, 3, 4, 4)
        x = torch.sigmoid(noise)
        together = reconstruction_loss(logits, x, likelihood)
        assert together.shape == (5,)
        alone = torch.cat([reconstruction_loss(logits[i : i + 1], x[i : i + 1], likelihood) for i in range(5)])
        torch.testing.assert_close(together, alone)


class KnownModel:
    """Posteriors with mean 1 and variance 1 in 3 latents, and logits of 0, whatever the frames."""

    def __init__(self, likelihood: str) -> None:
        self.config = SimpleNamespace(likelihood=likelihood)

    def encode(self, x: torch.Tensor) -> Posterior:
        return Posterior(torch.ones(len(x), 3), torch.zeros(len(x), 3))

    def decode_logits(self, z: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(z), 3, 8, 8)


class TestElbo:
    @pytest.mark.parametrize("batch", [1, 2, 7])
    @pytest.mark.parametrize(("likelihood", "per_value"), [("gaussian", 0.25), ("bernoulli", math.log(2))])
    def test_both_terms_are_sums_over_values_and_latents_and_means_over_the_batch(
        self, batch: int, likelihood: str, per_value: float
    ) -> None:
        terms = elbo(KnownModel(likelihood), torch.zeros(batch, 3, 8, 8))
        assert terms.reconstruction.item() == pytest.approx(192 * per_value, rel=1e-6)
        assert terms.kl.item() == 3 * 0.5

    def test_the_mean_is_over_frames(self) -> None:
        x = torch.zeros(4, 3, 8, 8)
        x[0] = 0.5
        assert elbo(KnownModel("gaussian"), x).reconstruction.item() == 36.0

    @pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
    def test_duplicating_the_batch_changes_nothing(self, likelihood: str) -> None:
        model = nearly_deterministic_model(likelihood)
        x = random_input(3)
        once, twice = elbo(model, x), elbo(model, torch.cat([x, x]))
        torch.testing.assert_close(once.reconstruction, twice.reconstruction, rtol=1e-6, atol=0)
        torch.testing.assert_close(once.kl, twice.kl, rtol=1e-6, atol=0)

    def test_it_is_made_of_the_models_own_parts(self) -> None:
        torch.manual_seed(0)
        model = ConvVAE(VAEConfig(frame_size=8, latent_dim=3))
        x = random_input(5)
        terms = elbo(model, x, torch.Generator().manual_seed(4))
        posterior = model.encode(x)
        mean = model.decode(posterior.sample(torch.Generator().manual_seed(4)))
        torch.testing.assert_close(terms.reconstruction, (mean - x).square().sum() / 5)
        torch.testing.assert_close(terms.kl, gaussian_kl(posterior).sum() / 5)

    @pytest.mark.parametrize(("beta", "expected"), [(0.0, 10.0), (0.5, 11.5), (1.0, 13.0), (4.0, 22.0)])
    def test_the_loss_weighs_the_kl_by_beta(self, beta: float, expected: float) -> None:
        assert Elbo(torch.tensor(10.0), torch.tensor(3.0)).loss(beta).item() == expected


def random_input(batch: int) -> torch.Tensor:
    return frames_to_input(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (batch, 8, 8, 3), dtype=np.uint8)))


def nearly_deterministic_model(likelihood: str) -> ConvVAE:
    """A model whose posteriors have a standard deviation of e^-40, below float32's resolution."""
    torch.manual_seed(0)
    model = ConvVAE(VAEConfig(frame_size=8, latent_dim=3, likelihood=likelihood))
    with torch.no_grad():
        model.to_posterior.weight[3:] = 0
        model.to_posterior.bias[3:] = -80
    return model
