"""The loss against torch.distributions and against sums by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import distributions

from worldmodel_v.autoencoders import Batch, frames_to_input
from worldmodel_v.autoencoders.gaussian import VAE, Elbo, Posterior, VAEConfig, elbo, gaussian_kl
from worldmodel_v.autoencoders.gaussian.losses import alone, kl_penalty
from worldmodel_v.autoencoders.gaussian.vae import CALIBRATION_STEPS
from worldmodel_v.autoencoders.reconstruction import bernoulli_nll, gaussian_nll


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


class TestGaussianLikelihood:
    def test_at_the_default_sigma_it_is_the_sum_of_squared_errors(self) -> None:
        errors = torch.tensor([0.5625, 3.0, 700.0])
        found = gaussian_nll(errors, num_values=12288, sigma=VAE(VAEConfig()).sigma)
        torch.testing.assert_close(found, errors, rtol=1e-6, atol=2e-3)

    @pytest.mark.parametrize("sigma", [math.sqrt(0.5), 0.04, 1.0, 1 / 255])
    def test_it_is_the_log_probability_of_torch_distributions_without_its_constant(self, sigma: float) -> None:
        mean, x = (torch.sigmoid(values.double()) for values in random_tensors(5, 3, 4, 4))
        log_prob = distributions.Normal(mean, sigma).log_prob(x)
        expected = -(log_prob + 0.5 * math.log(math.pi)).sum(dim=(1, 2, 3))
        errors = (mean - x).square().sum(dim=(1, 2, 3))
        found = gaussian_nll(errors, num_values=48, sigma=torch.tensor(sigma, dtype=torch.float64))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-10)

    def test_the_best_sigma_is_the_root_of_the_mean_squared_error(self) -> None:
        sigma = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        gaussian_nll(torch.tensor([48 * 0.09], dtype=torch.float64), 48, sigma).sum().backward()
        assert sigma.grad.item() == pytest.approx(0.0, abs=1e-10)


class TestBernoulliLikelihood:
    def test_sums_of_a_known_tensor(self) -> None:
        logits = torch.tensor([0.0, math.log(3), -math.log(3)]).reshape(1, 3, 1, 1)
        x = torch.tensor([1.0, 1.0, 0.5]).reshape(1, 3, 1, 1)
        expected = math.log(2) + math.log(4 / 3) - 0.5 * (math.log(1 / 4) + math.log(3 / 4))
        assert bernoulli_nll(logits, x).tolist() == pytest.approx([expected], rel=1e-6)

    def test_it_is_the_log_probability_of_torch_distributions(self) -> None:
        logits, noise = (values.double() for values in random_tensors(5, 3, 4, 4))
        x = torch.sigmoid(noise)
        log_prob = distributions.Bernoulli(logits=logits, validate_args=False).log_prob(x)
        torch.testing.assert_close(bernoulli_nll(logits, x), -log_prob.sum(dim=(1, 2, 3)), rtol=1e-12, atol=0)

    def test_each_frame_has_its_own(self) -> None:
        logits, noise = random_tensors(5, 3, 4, 4)
        x = torch.sigmoid(noise)
        alone = torch.cat([bernoulli_nll(logits[i : i + 1], x[i : i + 1]) for i in range(5)])
        torch.testing.assert_close(bernoulli_nll(logits, x), alone)


class TestKLPenalty:
    KL = torch.tensor([[0.1, 2.0, 0.0], [0.3, 4.0, 0.2]])
    """Two frames, three latents: sums 2.1 and 4.5, means 0.2, 3.0 and 0.1."""

    def test_without_floors_it_is_the_kl(self) -> None:
        assert kl_penalty(self.KL).item() == pytest.approx(3.3)

    @pytest.mark.parametrize(
        ("free_bits", "expected"), [(0.05, 3.3), (0.15, 0.2 + 3.0 + 0.15), (0.5, 0.5 + 3.0 + 0.5), (4.0, 12.0)]
    )
    def test_free_bits_are_a_floor_under_each_latents_mean_over_the_batch(self, free_bits: float, expected: float) -> None:
        assert kl_penalty(self.KL, free_bits=free_bits).item() == pytest.approx(expected)

    @pytest.mark.parametrize(("tolerance", "expected"), [(0.5, 3.3), (1.0, (3.0 + 4.5) / 2), (2.0, 6.0)])
    def test_the_tolerance_is_a_floor_under_each_frames_sum(self, tolerance: float, expected: float) -> None:
        assert kl_penalty(self.KL, kl_tolerance=tolerance).item() == pytest.approx(expected)

    def test_below_a_floor_there_is_no_gradient_and_above_it_the_kls_own(self) -> None:
        kl = self.KL.clone().requires_grad_()
        kl_penalty(kl, free_bits=0.15).backward()
        assert kl.grad.tolist() == [[0.5, 0.5, 0.0]] * 2
        kl.grad = None
        kl_penalty(kl, kl_tolerance=1.0).backward()
        assert kl.grad.tolist() == [[0.0] * 3, [0.5] * 3]


class KnownModel:
    """Posteriors with mean 1 and variance 1 in 3 latents, and logits of 0, whatever the frames."""

    training = False
    sigma = torch.tensor(math.sqrt(0.5))

    def __init__(self, likelihood: str) -> None:
        self.config = SimpleNamespace(likelihood=likelihood)

    def posterior(self, x: torch.Tensor, condition: None, noise: None) -> Posterior:
        return Posterior(torch.ones(len(x), 3), torch.zeros(len(x), 3))

    def decode_logits(self, z: torch.Tensor, condition: None) -> torch.Tensor:
        return torch.zeros(len(z), 3, 8, 8)


class TestElbo:
    @pytest.mark.parametrize("batch", [1, 2, 7])
    @pytest.mark.parametrize(("likelihood", "per_value"), [("gaussian", 0.25), ("bernoulli", math.log(2))])
    def test_both_terms_are_sums_over_values_and_latents_and_means_over_the_batch(
        self, batch: int, likelihood: str, per_value: float
    ) -> None:
        terms = elbo(KnownModel(likelihood), torch.zeros(batch, 3, 8, 8))
        assert terms.reconstruction.item() == pytest.approx(192 * per_value, rel=1e-6)
        assert terms.kl.item() == terms.kl_penalty.item() == 3 * 0.5

    def test_the_mean_is_over_frames(self) -> None:
        x = torch.zeros(4, 3, 8, 8)
        x[0] = 0.5
        assert elbo(KnownModel("gaussian"), x).reconstruction.item() == pytest.approx(36.0, rel=1e-6)

    def test_floors_change_the_loss_and_not_the_kl_that_is_told(self) -> None:
        x = torch.zeros(4, 3, 8, 8)
        for floors, expected in (({"free_bits": 0.75}, 2.25), ({"kl_tolerance": 2.0}, 6.0)):
            terms = elbo(KnownModel("gaussian"), x, **floors)
            assert (terms.kl.item(), terms.kl_penalty.item()) == (1.5, expected)

    @pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "calibrated"])
    def test_duplicating_the_batch_changes_nothing(self, likelihood: str) -> None:
        model = nearly_deterministic_model(likelihood).eval()
        x = random_input(3)
        once, twice = elbo(model, x), elbo(model, torch.cat([x, x]))
        torch.testing.assert_close(once.reconstruction, twice.reconstruction, rtol=1e-4, atol=0)
        torch.testing.assert_close(once.kl, twice.kl, rtol=1e-6, atol=0)

    def test_it_is_made_of_the_models_own_parts(self) -> None:
        torch.manual_seed(0)
        model = VAE(VAEConfig(frame_height=8, frame_width=8, latent_dim=3))
        x = random_input(5)
        terms = elbo(model, x, torch.Generator().manual_seed(4))
        posterior = model.posterior(x)
        mean = model.decode_z(posterior.sample(torch.Generator().manual_seed(4)))
        torch.testing.assert_close(terms.reconstruction, (mean - x).square().sum() / 5)
        torch.testing.assert_close(terms.kl, gaussian_kl(posterior).sum() / 5)

    @pytest.mark.parametrize(("beta", "expected"), [(0.0, 10.0), (0.5, 12.0), (1.0, 14.0), (4.0, 26.0)])
    def test_the_loss_weighs_the_penalty_by_beta(self, beta: float, expected: float) -> None:
        assert Elbo(torch.tensor(10.0), torch.tensor(3.0), torch.tensor(4.0), None).loss(beta).item() == expected


class TestCalibration:
    def test_sigma_goes_to_the_root_of_the_mean_squared_error(self) -> None:
        model = VAE(VAEConfig(frame_height=8, frame_width=8, likelihood="calibrated"))
        assert model.sigma.item() == pytest.approx(math.sqrt(0.5))
        model.calibrate(torch.tensor(0.01))
        assert model.sigma.item() == pytest.approx(math.sqrt(0.5 + (0.01 - 0.5) / CALIBRATION_STEPS))
        for _ in range(400):
            model.calibrate(torch.tensor(0.01))
        assert model.sigma.item() == pytest.approx(0.1, rel=1e-6)

    def test_sigma_stays_above_one_level_of_a_byte(self) -> None:
        model = VAE(VAEConfig(frame_height=8, frame_width=8, likelihood="calibrated"))
        for _ in range(1000):
            model.calibrate(torch.tensor(0.0))
        assert model.sigma.item() == pytest.approx(1 / 255, rel=1e-4)

    def test_only_training_moves_it_and_only_behind_the_terms(self) -> None:
        model, x = nearly_deterministic_model("calibrated"), random_input(4)
        for untouched in (elbo(model.train(), x).reconstruction, model.eval().loss(batch_of(x)).figures["reconstruction"]):
            assert untouched > 0
            assert model.sigma.item() == pytest.approx(math.sqrt(0.5))
        before = model.train().loss(batch_of(x)).figures
        assert before["reconstruction"].item() == pytest.approx(
            elbo(nearly_deterministic_model("gaussian"), x)[0].item(), rel=1e-3
        )
        assert before["sigma"] == model.sigma
        assert model.sigma.item() < math.sqrt(0.5)

    @pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
    def test_other_likelihoods_keep_theirs(self, likelihood: str) -> None:
        model = nearly_deterministic_model(likelihood)
        assert "sigma" not in model.train().loss(batch_of(random_input(4))).figures
        assert model.sigma.item() == pytest.approx(math.sqrt(0.5))

    def test_the_gradient_is_that_of_the_present_sigma(self) -> None:
        """Moving σ in place must not reach into the graph of the step that moved it."""
        fixed = nearly_deterministic_model("gaussian", sigma=0.1)
        learned = nearly_deterministic_model("calibrated", sigma=0.1)
        for model in (fixed, learned):
            model.train().loss(batch_of(random_input(4))).minimised.backward()
        for one, other in zip(fixed.parameters(), learned.parameters(), strict=True):
            assert torch.equal(one.grad, other.grad)


def random_input(batch: int) -> torch.Tensor:
    return frames_to_input(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (batch, 8, 8, 3), dtype=np.uint8)))


def batch_of(x: torch.Tensor, step: int = 0) -> Batch:
    """A batch of one process, with the same noise at every call."""
    noise = torch.randn(len(x), 3, generator=torch.Generator().manual_seed(0))
    return Batch(x, None, noise, step, alone)


class TestLoss:
    def test_it_is_the_bound_with_beta_in_units_of_squared_errors(self) -> None:
        annealed = {"beta": 3.0, "beta_warmup_steps": 4, "sigma": 0.1, "free_bits": 0.5}
        model, batch = nearly_deterministic_model("gaussian", **annealed), batch_of(random_input(4), step=2)
        terms, loss = elbo(model, batch.x, batch.noise, free_bits=0.5), model.loss(batch)
        assert loss.figures == {"loss": terms.loss(1.5), "reconstruction": terms.reconstruction, "kl": terms.kl, "beta": 1.5}
        assert loss.minimised.item() == pytest.approx(2 * 0.1**2 * terms.loss(1.5).item(), rel=1e-6)


def nearly_deterministic_model(likelihood: str, **settings: object) -> VAE:
    """A model whose posteriors have a standard deviation of about 1e-5."""
    torch.manual_seed(0)
    model = VAE(VAEConfig(frame_height=8, frame_width=8, latent_dim=3, likelihood=likelihood, **settings))
    with torch.no_grad():
        model.to_posterior.weight[3:] = 0
        model.to_posterior.bias[3:] = -80
    return model
