"""The operations of a page give what PyTorch gives, for every built-in decoder and all kinds of sizes."""

import pytest
import torch
from torch import nn

from worldmodel_v.autoencoders.gaussian import VAE, GaussianAutoencoder, VAEConfig
from worldmodel_v.autoencoders.registry import autoencoder_class
from worldmodel_v.view.computing import choose_precision, compute
from worldmodel_v.view.network import NotConvertible, convert_decoder

SIZES = [
    *[("resnet", shape) for shape in ((64, 64), (24, 40), (88, 8), (96, 96))],
    *[("conv", shape) for shape in ((64, 64), (24, 40), (88, 8), (96, 96))],
    *[("ha2018", (64, 64)), ("mlp", (16, 24))],
]


def made(architecture: str = "conv", shape: tuple[int, int] = (16, 16), **settings: object) -> VAE:
    torch.manual_seed(1)
    config = VAEConfig(architecture=architecture, frame_height=shape[0], frame_width=shape[1], latent_dim=5, **settings)
    return VAE(config).eval()


def made_relative(kind: str, shape: tuple[int, int], **settings: object) -> GaussianAutoencoder:
    """A VAE with a map of latents, or with two levels."""
    torch.manual_seed(1)
    sizes = {"spatial": {"latent_grid": 4, "latent_channels": 2}, "ladder": {"top_dim": 3, "bottom_dim": 4}}
    made_class = autoencoder_class(kind)
    config = made_class.config_class(frame_height=shape[0], frame_width=shape[1], **sizes[kind], **settings)
    model = made_class(config).eval()
    assert isinstance(model, GaussianAutoencoder)
    return model


def drawn(model: GaussianAutoencoder) -> torch.Tensor:
    return torch.randn(4, model.latent_dim, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("architecture", "shape"), SIZES)
@torch.no_grad()
def test_the_operations_give_the_frames_of_the_decoder(architecture: str, shape: tuple[int, int]) -> None:
    model = made(architecture, shape)
    z = drawn(model)
    operations, weights = convert_decoder(model)
    found = compute(operations, weights.rounded("float32"), z)
    torch.testing.assert_close(found, model.decode_z(z), rtol=0, atol=2e-5)
    assert choose_precision(operations, weights, z, model.decode_z(z)) == "float16"


@pytest.mark.parametrize("shape", [(16, 16), (24, 40)])
@pytest.mark.parametrize("kind", ["spatial", "ladder"])
@torch.no_grad()
def test_a_map_and_two_levels_with_a_condition(kind: str, shape: tuple[int, int]) -> None:
    model = made_relative(kind, shape, condition=("speed",), condition_dim=2)
    model.standardise_by(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 2.0]))
    z, condition = 2 * drawn(model), torch.randn(4, 2)
    operations, weights = convert_decoder(model)
    expected = model.decode_z(z, condition)
    inputs = torch.cat([z, model.standardised(condition)], dim=1)
    torch.testing.assert_close(compute(operations, weights.rounded("float32"), inputs), expected, rtol=0, atol=2e-5)
    assert choose_precision(operations, weights, inputs, expected) == "float16"
    without = made_relative(kind, shape)
    operations, weights = convert_decoder(without)
    torch.testing.assert_close(compute(operations, weights.rounded("float32"), z), without.decode_z(z), rtol=0, atol=2e-5)


@torch.no_grad()
def test_a_grey_decoder_with_a_condition() -> None:
    model = made("resnet", channels=1, condition=("speed", "action"), condition_dim=4)
    model.standardise_by(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 2.0, 1.0, 3.0]))
    z, condition = drawn(model), torch.randn(4, 4)
    operations, weights = convert_decoder(model)
    inputs = torch.cat([z, model.standardised(condition)], dim=1)
    found = compute(operations, weights.rounded("float32"), inputs)
    torch.testing.assert_close(found, model.decode_z(z, condition), rtol=0, atol=2e-5)


def test_a_transposed_convolution_of_one_pixel_becomes_part_of_the_linear_layer() -> None:
    operations, weights = convert_decoder(made("ha2018", (64, 64)))
    assert [operation["op"] for operation in operations][:3] == ["linear", "unflatten", "relu"]
    assert len(weights.rounded("float32")) < 500_000


@torch.no_grad()
def test_large_weights_are_kept_in_full_precision() -> None:
    model = made()
    model.from_latent.weight[0, 0] = 1e6
    z = drawn(model)
    operations, weights = convert_decoder(model)
    assert choose_precision(operations, weights, z, model.decode_z(z)) == "float32"


@torch.no_grad()
def test_other_frames_than_those_of_the_layers_are_refused() -> None:
    model = made()
    z = drawn(model)
    with pytest.raises(NotConvertible, match="do not give its frames"):
        choose_precision(*convert_decoder(model), z, 1 - model.decode_z(z))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Tanh(), "a layer Tanh, which the page cannot compute"),
        (nn.Upsample(scale_factor=2), "a layer Upsample"),
        (nn.Conv2d(8, 8, 3, padding=1, groups=2), "a Conv2d with groups"),
        (nn.Conv2d(8, 8, 3, padding="same"), "or another padding"),
        (nn.Conv2d(8, 8, 3, padding=1, bias=False), "without a bias"),
        (nn.ConvTranspose2d(8, 8, 3, padding=3), "drops part of what it computes"),
    ],
)
def test_a_layer_without_an_operation_is_refused(module: nn.Module, message: str) -> None:
    model = made()
    model.decoder.append(module)
    with pytest.raises(NotConvertible, match=message):
        convert_decoder(model)
