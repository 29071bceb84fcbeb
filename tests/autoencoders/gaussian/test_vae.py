"""The network's shapes, what goes in, and what the reparameterisation lets through."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch

from worldmodel_v.autoencoders import frames_to_input
from worldmodel_v.autoencoders.gaussian import VAE, Posterior, VAEConfig, elbo
from worldmodel_v.autoencoders.gaussian.vae import bounded_logvar
from worldmodel_v.errors import ConfigError, ModelNotUsable


def random_frames(count: int, size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [-64, 0, 1, 4, 12, 63, 65, 100])
def test_sides_that_are_no_multiples_of_8_are_refused(size: int) -> None:
    for height, width in ((size, size), (size, 64), (64, size)):
        text = f"the VAE needs frames whose height and width are multiples of 8, got {height}x{width}"
        with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
            VAEConfig(frame_height=height, frame_width=width)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"latent_dim": 0}, "latent_dim: expected 1 to 4096, got 0"),
        ({"likelihood": "poisson"}, "likelihood: expected gaussian, calibrated or bernoulli, got 'poisson'"),
        ({"channels": 2}, "channels: expected 1 or 3, got 2"),
        ({"sigma": 0.0}, "sigma: expected a positive number, got 0.0"),
        ({"sigma": float("nan")}, "sigma: expected a finite number, at most 1e+30, got nan"),
        ({"condition": ("speed",)}, "a condition on ['speed'] cannot have 0 values"),
        ({"condition_dim": 2}, "a condition on [] cannot have 2 values"),
    ],
)
def test_other_settings_that_make_no_sense_are_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        VAEConfig(**settings)  # type: ignore[arg-type]


def test_the_defaults_are_those_of_a_training() -> None:
    assert dataclasses.asdict(VAEConfig()) == {
        **{"frame_height": 64, "frame_width": 64, "latent_dim": 32, "likelihood": "calibrated"},
        **{"architecture": "resnet", "channels": 3, "sigma": math.sqrt(0.5), "condition": (), "condition_dim": 0},
        **{"beta": 1.0, "beta_warmup_steps": 1000, "beta_cycles": 1, "free_bits": 0.0, "kl_tolerance": 0.0},
    }


class TestBoundedLogvar:
    def test_in_the_normal_range_it_is_the_identity_with_gradient_one(self) -> None:
        logvar = torch.linspace(-20, 20, 401, requires_grad=True)
        found = bounded_logvar(logvar)
        assert torch.equal(found, logvar)
        found.sum().backward()
        assert torch.equal(logvar.grad, torch.ones(401))

    def test_beyond_it_grows_as_a_logarithm(self) -> None:
        found = bounded_logvar(torch.tensor([-20 - 99.0, 20 + 99.0]))
        torch.testing.assert_close(found, torch.tensor([-20 - math.log(100), 20 + math.log(100)]))

    def test_nothing_that_a_network_can_say_overflows_and_every_gradient_leads_back(self) -> None:
        logvar = torch.tensor([-1e30, -1e6, -21.0, 21.0, 1e6, 1e15], requires_grad=True)
        bounded = bounded_logvar(logvar)
        assert bounded.exp().isfinite().all()
        assert (0.5 * bounded).exp().isfinite().all()
        bounded.sum().backward()
        assert (logvar.grad > 0).all()

    def test_nan_stays_nan(self) -> None:
        assert bounded_logvar(torch.tensor([math.nan])).isnan().all()

    def test_a_model_thrown_far_off_has_a_finite_loss_and_gradient(self) -> None:
        torch.manual_seed(0)
        model = VAE(VAEConfig(frame_height=8, frame_width=8, latent_dim=3))
        with torch.no_grad():
            model.to_posterior.bias[3:] = 1e6
        loss = elbo(model, frames_to_input(random_frames(4, 8))).loss(1.0)
        loss.backward()
        assert loss.isfinite()
        assert all(weight.grad.isfinite().all() for weight in model.parameters())


class TestCondition:
    CONFIG = VAEConfig(frame_height=8, frame_width=8, latent_dim=3, condition=("speed", "action"), condition_dim=4)

    def test_a_call_without_it_or_with_another_size_is_refused(self) -> None:
        model, x = VAE(self.CONFIG), torch.zeros(2, 3, 8, 8)
        text = "the VAE is conditional on speed, action; expected 4 values a frame, got 0"
        with pytest.raises(ModelNotUsable, match=f"^{re.escape(text)}$"):
            model.posterior(x)
        with pytest.raises(ModelNotUsable, match="expected 4 values a frame, got 3"):
            model.decode_z(torch.zeros(2, 3), torch.zeros(2, 3))
        with pytest.raises(ModelNotUsable, match="the VAE is conditional on nothing; expected 0 values a frame, got 1"):
            VAE(VAEConfig(frame_height=8, frame_width=8)).posterior(x, torch.zeros(2, 1))

    def test_both_halves_hear_it_standardised(self) -> None:
        torch.manual_seed(0)
        model, x = VAE(self.CONFIG), frames_to_input(random_frames(2, 8))
        raw = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
        mean, std = torch.tensor([1.0, -2.0, 30.0, 0.5]), torch.tensor([2.0, 0.5, 10.0, 3.0])
        z = torch.zeros(2, 3)
        expected_mu, expected_logits = model.posterior(x, raw).mu, model.decode_logits(z, raw)
        model.standardise_by(mean, std)
        torch.testing.assert_close(model.posterior(x, raw * std + mean).mu, expected_mu, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.decode_logits(z, raw * std + mean), expected_logits, rtol=1e-4, atol=1e-5)
        assert (model.posterior(x, raw + 1).mu != expected_mu).any()
        assert (model.decode_logits(z, raw + 1) != expected_logits).any()

    def test_a_value_that_never_varies_is_not_divided_by_zero(self) -> None:
        model = VAE(self.CONFIG)
        model.standardise_by(torch.ones(4), torch.tensor([0.0, 1.0, 2.0, 0.0]))
        assert model.condition_std.tolist() == [1.0, 1.0, 2.0, 1.0]
        assert torch.equal(model.typical_condition(5), torch.ones(5, 4))

    def test_a_vae_whose_condition_says_the_answer_leaves_its_latent_alone(self) -> None:
        """Flat frames of one brightness: told it, the VAE needs no z; untold, it does."""
        rng = torch.Generator().manual_seed(0)
        rates = {}
        for condition in ((), ("brightness",)):
            torch.manual_seed(0)
            config = VAEConfig(
                **{"frame_height": 8, "frame_width": 8, "latent_dim": 2, "architecture": "mlp"},
                **{"condition": condition, "condition_dim": len(condition)},
            )
            model = VAE(config)
            optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
            for _ in range(300):
                brightness = torch.rand(32, 1, generator=rng)
                x = brightness[:, :, None, None].expand(-1, 3, 8, 8)
                terms = elbo(model, x, rng, brightness if condition else None)
                optimizer.zero_grad()
                terms.loss(1.0).backward()
                optimizer.step()
            rates[condition] = terms.kl.item()
        assert rates[("brightness",)] < 0.05
        assert rates[()] > 1.0


class TestFramesToInput:
    def test_every_byte_becomes_its_255th_in_float32(self) -> None:
        frames = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(1, 1, 1, 3)
        x = frames_to_input(frames)
        assert x.dtype == torch.float32
        assert x.shape == (1, 3, 16, 16)
        expected = torch.arange(256, dtype=torch.float32) / 255
        for channel in x[0]:
            torch.testing.assert_close(channel.flatten(), expected, rtol=0, atol=0)

    def test_every_value_is_where_it_was(self) -> None:
        frames = random_frames(3, 8)
        x = frames_to_input(frames)
        assert torch.equal((x * 255).round().byte().permute(0, 2, 3, 1), frames)

    def test_the_memory_is_channels_last(self) -> None:
        x = frames_to_input(random_frames(3, 8))
        assert x.stride() == (192, 1, 24, 3)
        assert x.is_contiguous(memory_format=torch.channels_last)

    def test_the_frames_are_left_alone(self) -> None:
        frames = random_frames(3, 8)
        before = frames.clone()
        frames_to_input(frames)
        assert torch.equal(frames, before)

    def test_one_channel_is_the_brightness(self) -> None:
        frames = random_frames(3, 8)
        x = frames_to_input(frames, channels=1)
        assert x.shape == (3, 1, 8, 8)
        red, green, blue = (frames[..., channel].double() / 255 for channel in range(3))
        torch.testing.assert_close(x[:, 0].double(), 0.299 * red + 0.587 * green + 0.114 * blue, rtol=0, atol=1e-6)
        white = torch.full((1, 8, 8, 3), 255, dtype=torch.uint8)
        torch.testing.assert_close(frames_to_input(white, channels=1), torch.ones(1, 1, 8, 8))


class TestSample:
    def test_a_sample_is_mu_plus_sigma_times_the_noise(self) -> None:
        mu, logvar = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(1))
        z = Posterior(mu, logvar).sample(torch.Generator().manual_seed(2))
        noise = torch.randn(7, 5, generator=torch.Generator().manual_seed(2))
        assert torch.equal(z, mu + torch.exp(0.5 * logvar) * noise)

    def test_the_gradient_is_1_to_mu_and_half_sigma_epsilon_to_logvar(self) -> None:
        mu, logvar = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(1))
        mu.requires_grad_()
        logvar.requires_grad_()
        Posterior(mu, logvar).sample(torch.Generator().manual_seed(2)).sum().backward()
        noise = torch.randn(7, 5, generator=torch.Generator().manual_seed(2))
        assert torch.equal(mu.grad, torch.ones(7, 5))
        assert torch.equal(logvar.grad, 0.5 * (torch.exp(0.5 * logvar.detach()) * noise))

    def test_the_noise_is_drawn_from_the_generator_alone(self) -> None:
        posterior = Posterior(torch.zeros(4, 3), torch.zeros(4, 3))
        generator = torch.Generator().manual_seed(5)
        first, second = posterior.sample(generator), posterior.sample(generator)
        assert not torch.equal(first, second)
        assert torch.equal(posterior.sample(torch.Generator().manual_seed(5)), first)
