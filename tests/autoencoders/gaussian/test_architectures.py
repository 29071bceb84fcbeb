"""Every network by name: its shapes, its limits, that all of it learns, and that it can learn."""

import itertools
import re

import numpy as np
import pytest
import torch
from torch import nn

from worldmodel_v.autoencoders import frames_to_input
from worldmodel_v.autoencoders.blocks import ResidualBlock, halvings
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig, elbo
from worldmodel_v.autoencoders.gaussian.architectures import ARCHITECTURES
from worldmodel_v.errors import ConfigError
from worldmodel_v.preprocessing import MAX_SIDE
from worldmodel_v.storage import layout

NAMES = list(ARCHITECTURES)
SMALLEST = {name: architecture.min_size for name, architecture in ARCHITECTURES.items()}


def random_input(count: int, height: int, channels: int = 3, width: int | None = None) -> torch.Tensor:
    frames = np.random.default_rng(0).integers(0, 256, (count, height, width or height, 3), dtype=np.uint8)
    return frames_to_input(torch.from_numpy(frames), channels)


def make(name: str, size: int, **settings: object) -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(architecture=name, frame_height=size, frame_width=size, **settings))


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "size"),
    [
        *[(name, size) for name in ("conv", "resnet") for size in (8, 16, 32, 64, 128)],
        *[("mlp", size) for size in (8, 16, 32, 64)],
        ("ha2018", 64),
    ],
)
def test_frames_of_every_size_come_out_as_they_went_in(name: str, size: int, channels: int) -> None:
    model = make(name, size, latent_dim=5, channels=channels)
    x = random_input(2, size, channels)
    posterior = model.posterior(x)
    assert posterior.mu.shape == posterior.logvar.shape == (2, 5)
    logits = model.decode_logits(posterior.mu)
    assert logits.shape == x.shape
    assert logits.dtype == posterior.mu.dtype == torch.float32
    torch.testing.assert_close(model.decode_z(posterior.mu), torch.sigmoid(logits), rtol=0, atol=0)


SHAPES = [(16, 16), (24, 40), (40, 24), (48, 80), (56, 88), (96, 96), (72, 16), (200, 120), (1000, 16), (8, 1016)]
"""Height and width: no powers of two, sides that become odd at one depth or another, one side much longer than the other."""


@pytest.mark.parametrize("name", ["conv", "resnet"])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_frames_of_every_shape_come_out_as_they_went_in_and_can_be_learnt(name: str, height: int, width: int) -> None:
    torch.manual_seed(0)
    model = VAE(VAEConfig(architecture=name, frame_height=height, frame_width=width, latent_dim=5))  # type: ignore[arg-type]
    x = random_input(2, height, width=width)
    terms = elbo(model, x, torch.Generator().manual_seed(0))
    terms.loss(1.0).backward()
    assert model.decode_logits(model.posterior(x).mu).shape == x.shape
    for weight_name, weight in model.named_parameters():
        assert weight.grad is not None, weight_name
        assert weight.grad.abs().sum() > 0, weight_name


def test_frames_of_every_size_come_down_to_4_to_7_rows_and_columns_and_back() -> None:
    sides = range(8, MAX_SIDE + 1, 8)
    for shape in itertools.product(sides, sides):
        stages = halvings(shape)
        assert [stage.before for stage in stages] == [shape, *(stage.after for stage in stages[:-1])]
        assert 4 <= min(stages[-1].after) <= max(stages[-1].after) <= 7
        assert all(
            0 <= added < stride for stage in stages for added, stride in zip(stage.output_padding, stage.stride, strict=True)
        )


@pytest.mark.parametrize("name", ["conv", "resnet"])
@pytest.mark.parametrize(("height", "width"), [*itertools.permutations((8, 24, 88, 1000, 1016), 2), (1000, 1000), (1024, 1024)])
def test_the_largest_frames_come_out_as_they_went_in(name: str, height: int, width: int) -> None:
    """On PyTorch's meta device, which knows shapes and computes nothing."""
    with torch.device("meta"):
        model = VAE(VAEConfig(architecture=name, frame_height=height, frame_width=width))  # type: ignore[arg-type]
        assert model.decode_logits(model.posterior(torch.empty(1, 3, height, width)).mu).shape == (1, 3, height, width)


def test_a_frame_is_halved_in_both_directions_then_in_the_longer_one() -> None:
    maps = {shape: [stage.after for stage in halvings(shape)] for shape in ((64, 64), (24, 88), (72, 8))}
    assert maps == {
        (64, 64): [(32, 32), (16, 16), (8, 8), (4, 4)],
        (24, 88): [(12, 44), (6, 22), (6, 11), (6, 5)],
        (72, 8): [(36, 4), (18, 4), (9, 4), (4, 4)],
    }
    layers = [(stage.kernel_size, stage.stride, stage.output_padding) for stage in halvings((24, 88))]
    assert layers == [*[((4, 4), (2, 2), (0, 0))] * 2, ((3, 4), (1, 2), (0, 0)), ((3, 4), (1, 2), (0, 1))]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_weight_and_a_batch_can_be_learnt(name: str) -> None:
    model = make(name, SMALLEST[name], latent_dim=8, likelihood="calibrated")
    x = random_input(4, SMALLEST[name])
    noise = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    errors = []
    for step in range(25):
        terms = elbo(model, x, noise)
        optimizer.zero_grad()
        terms.loss(0.01).backward()
        if step == 0:
            for weight_name, weight in model.named_parameters():
                assert weight.grad is not None, weight_name
                assert weight.grad.abs().sum() > 0, weight_name
        optimizer.step()
        errors.append((model.decode_z(model.posterior(x).mu) - x).square().mean().item())
    assert errors[-1] < 0.9 * errors[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_frames_latent_does_not_depend_on_the_frames_beside_it(name: str) -> None:
    model = make(name, SMALLEST[name], latent_dim=4).train()
    x = random_input(3, SMALLEST[name])
    torch.testing.assert_close(model.posterior(x).mu[:1], model.posterior(x[:1]).mu, rtol=1e-4, atol=1e-5)


def test_conv_for_64_has_exactly_these_layers() -> None:
    model = make("conv", 64, likelihood="gaussian")
    assert shapes(model) == {
        **{"encoder.0.weight": (32, 3, 4, 4), "encoder.0.bias": (32,)},
        **{"encoder.2.weight": (64, 32, 4, 4), "encoder.2.bias": (64,)},
        **{"encoder.4.weight": (128, 64, 4, 4), "encoder.4.bias": (128,)},
        **{"encoder.6.weight": (256, 128, 4, 4), "encoder.6.bias": (256,)},
        **{"to_posterior.weight": (64, 4096), "to_posterior.bias": (64,)},
        **{"from_latent.weight": (4096, 32), "from_latent.bias": (4096,)},
        **{"decoder.1.weight": (256, 128, 4, 4), "decoder.1.bias": (128,)},
        **{"decoder.3.weight": (128, 64, 4, 4), "decoder.3.bias": (64,)},
        **{"decoder.5.weight": (64, 32, 4, 4), "decoder.5.bias": (32,)},
        **{"decoder.7.weight": (32, 3, 4, 4), "decoder.7.bias": (3,)},
    }
    assert set(model.state_dict()) == set(shapes(model))
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert {(layer.kernel_size, layer.stride, layer.padding) for layer in convolutions} == {((4, 4), (2, 2), (1, 1))}
    kinds = [[type(layer).__name__ for layer in half] for half in (model.encoder, model.decoder)]
    assert kinds == [["Conv2d", "ReLU"] * 4, ["ReLU", "ConvTranspose2d"] * 4]


def test_ha2018_has_exactly_the_papers_layers() -> None:
    model = make("ha2018", 64)
    assert shapes(model) == {
        **{"encoder.0.weight": (32, 3, 4, 4), "encoder.0.bias": (32,)},
        **{"encoder.2.weight": (64, 32, 4, 4), "encoder.2.bias": (64,)},
        **{"encoder.4.weight": (128, 64, 4, 4), "encoder.4.bias": (128,)},
        **{"encoder.6.weight": (256, 128, 4, 4), "encoder.6.bias": (256,)},
        **{"to_posterior.weight": (64, 1024), "to_posterior.bias": (64,)},
        **{"from_latent.weight": (1024, 32), "from_latent.bias": (1024,)},
        **{"decoder.0.weight": (1024, 128, 5, 5), "decoder.0.bias": (128,)},
        **{"decoder.2.weight": (128, 64, 5, 5), "decoder.2.bias": (64,)},
        **{"decoder.4.weight": (64, 32, 6, 6), "decoder.4.bias": (32,)},
        **{"decoder.6.weight": (32, 3, 6, 6), "decoder.6.bias": (3,)},
    }
    assert sum(weight.numel() for weight in model.parameters()) == 4_348_547
    kinds = [[type(layer).__name__ for layer in half] for half in (model.encoder, model.decoder)]
    assert kinds == [["Conv2d", "ReLU"] * 4, ["ConvTranspose2d", "ReLU"] * 3 + ["ConvTranspose2d"]]
    strides = {layer.stride for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)}
    assert strides == {(2, 2)}


def test_resnet_grows_by_resizing_and_has_no_transposed_convolution() -> None:
    model = make("resnet", 64)
    kinds = [type(layer).__name__ for layer in model.decoder]
    assert kinds == ["ResidualBlock", "GroupNorm", "SiLU", "Upsample", "Conv2d"] * 4
    assert not [layer for layer in model.modules() if isinstance(layer, nn.ConvTranspose2d | nn.BatchNorm2d)]
    assert {layer.mode for layer in model.modules() if isinstance(layer, nn.Upsample)} == {"nearest"}


def test_a_residual_block_adds_to_what_it_gets() -> None:
    torch.manual_seed(0)
    block, x = ResidualBlock(8), torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(block(x), x + block.change(x))
    for weight in block.change[-1].parameters():
        nn.init.zeros_(weight)
    assert torch.equal(block(x), x)


def test_mlp_has_one_hidden_layer_of_400_each_way() -> None:
    assert shapes(make("mlp", 8, latent_dim=20, channels=1)) == {
        **{"encoder.1.weight": (400, 64), "encoder.1.bias": (400,)},
        **{"to_posterior.weight": (40, 400), "to_posterior.bias": (40,)},
        **{"from_latent.weight": (400, 20), "from_latent.bias": (400,)},
        **{"decoder.2.weight": (64, 400), "decoder.2.bias": (64,)},
    }


@pytest.mark.parametrize(
    ("name", "size", "text"),
    [
        ("ha2018", 32, "architecture='ha2018': takes frames of 64x64, these are 32x32; "),
        ("ha2018", 128, "architecture='ha2018': takes frames of 64x64, these are 128x128; "),
        ("mlp", 128, "architecture='mlp': takes frames of 8x8 to 64x64, these are 128x128; "),
        ("conv", 8192, "architecture='conv': takes frames of 8x8 to 1024x1024, these are 8192x8192; "),
        ("vit", 64, "architecture: expected one of conv, ha2018, resnet, mlp, got 'vit'"),
    ],
)
def test_what_an_architecture_does_not_take_is_refused(name: str, size: int, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}") as refusal:
        VAEConfig(architecture=name, frame_height=size, frame_width=size)  # type: ignore[arg-type]
    if name in ARCHITECTURES:
        assert str(refusal.value).endswith("choose another architecture, or collect with another frame_size")


def test_both_sides_must_be_within_the_limits() -> None:
    VAEConfig(architecture="mlp", frame_height=8, frame_width=64)
    for height, width in ((8, 72), (72, 8)):
        text = f"architecture='mlp': takes frames of 8x8 to 64x64, these are {height}x{width}; "
        with pytest.raises(ConfigError, match=f"^{re.escape(text)}"):
            VAEConfig(architecture="mlp", frame_height=height, frame_width=width)


def test_the_largest_frames_can_be_recorded() -> None:
    assert layout.PIXEL_CHUNK_ROWS * MAX_SIDE**2 * 3 <= layout.MAX_CHUNK_BYTES
