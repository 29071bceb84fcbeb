"""The network's shapes, what goes in, and what the reparameterisation lets through."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from torch import nn

from worldmodel_v.errors import ConfigError
from worldmodel_v.models import ConvVAE, Posterior, VAEConfig, frames_to_input


def random_frames(count: int, size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("size", "channels"),
    [(8, [32]), (16, [32, 64]), (32, [32, 64, 128]), (64, [32, 64, 128, 256]), (128, [32, 64, 128, 256, 256])],
)
def test_frames_of_every_size_come_out_as_they_went_in(size: int, channels: list[int]) -> None:
    model = ConvVAE(VAEConfig(frame_size=size, latent_dim=5))
    assert model.config.channels == channels
    x = frames_to_input(random_frames(2, size))
    posterior = model.encode(x)
    assert posterior.mu.shape == posterior.logvar.shape == (2, 5)
    logits = model.decode_logits(posterior.mu)
    assert logits.shape == x.shape
    assert logits.dtype == posterior.mu.dtype == torch.float32
    torch.testing.assert_close(model.decode(posterior.mu), torch.sigmoid(logits), rtol=0, atol=0)


def test_the_layers_for_64_have_exactly_these_shapes() -> None:
    model = ConvVAE(VAEConfig(frame_size=64, latent_dim=32))
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == {
        "encoder.0.weight": (32, 3, 4, 4),
        "encoder.0.bias": (32,),
        "encoder.2.weight": (64, 32, 4, 4),
        "encoder.2.bias": (64,),
        "encoder.4.weight": (128, 64, 4, 4),
        "encoder.4.bias": (128,),
        "encoder.6.weight": (256, 128, 4, 4),
        "encoder.6.bias": (256,),
        "to_posterior.weight": (64, 4096),
        "to_posterior.bias": (64,),
        "from_latent.weight": (4096, 32),
        "from_latent.bias": (4096,),
        "decoder.1.weight": (256, 128, 4, 4),
        "decoder.1.bias": (128,),
        "decoder.3.weight": (128, 64, 4, 4),
        "decoder.3.bias": (64,),
        "decoder.5.weight": (64, 32, 4, 4),
        "decoder.5.bias": (32,),
        "decoder.7.weight": (32, 3, 4, 4),
        "decoder.7.bias": (3,),
    }
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convolutions) == 8
    assert {(layer.kernel_size, layer.stride, layer.padding) for layer in convolutions} == {((4, 4), (2, 2), (1, 1))}


def test_a_rectifier_follows_every_layer_but_the_last_of_each_half() -> None:
    model = ConvVAE(VAEConfig(frame_size=64))
    kinds = [[type(layer).__name__ for layer in half] for half in (model.encoder, model.decoder)]
    assert kinds == [["Conv2d", "ReLU"] * 4, ["ReLU", "ConvTranspose2d"] * 4]


@pytest.mark.parametrize("size", [-64, 0, 1, 4, 12, 63, 65, 96])
def test_a_size_that_is_no_power_of_two_from_8_is_refused(size: int) -> None:
    text = f"the VAE needs frames whose size is a power of two from 8, got {size}"
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        VAEConfig(frame_size=size)


def test_other_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--latent-dim must be 1 to 4096, got 0$"):
        VAEConfig(latent_dim=0)
    with pytest.raises(ConfigError, match=r"^--likelihood: expected gaussian or bernoulli, got 'poisson'$"):
        VAEConfig(likelihood="poisson")


def test_the_defaults_are_the_papers() -> None:
    assert dataclasses.asdict(VAEConfig()) == {"frame_size": 64, "latent_dim": 32, "likelihood": "gaussian"}


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

    def test_gradients_reach_every_weight_of_the_network(self) -> None:
        torch.manual_seed(0)
        model = ConvVAE(VAEConfig(frame_size=8, latent_dim=3))
        x = frames_to_input(random_frames(4, 8))
        model.decode(model.encode(x).sample(torch.Generator().manual_seed(0))).sum().backward()
        assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())
