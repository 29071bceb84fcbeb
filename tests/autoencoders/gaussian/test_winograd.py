"""Fast convolutions against those that they stand for: the same numbers, in every width, size and number of frames."""

import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info
from torch import nn

from worldmodel_v.autoencoders.blocks import ResidualBlock
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig, winograd_kernels
from worldmodel_v.autoencoders.gaussian.winograd import (
    MAX_TILES,
    SMALLEST_BATCH,
    FastHalving,
    FastResidualBlock,
    with_fast_convolutions,
)
from worldmodel_v.device import blas_in_one_thread
from worldmodel_v.encoding.inference import inference_encoder, reproducible_arithmetic

WIDTHS_AND_SIZES = [(16, 32), (32, 16), (64, 8), (128, 4), (16, 8), (32, 4)]


def made_block(channels: int) -> ResidualBlock:
    """A block whose every parameter matters."""
    torch.manual_seed(channels)
    block = ResidualBlock(channels).eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    return block


def made_maps(frames: int, channels: int, size: int) -> torch.Tensor:
    return torch.randn(frames, channels, size, size, generator=torch.Generator().manual_seed(size)) * 2 + 0.5


def mean_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).abs().mean())


@pytest.mark.parametrize(("channels", "size"), WIDTHS_AND_SIZES)
@torch.inference_mode()
def test_a_fast_block_is_the_block_to_float32s_last_digits(channels: int, size: int) -> None:
    block, x = made_block(channels), made_maps(SMALLEST_BATCH + 5, channels, size)
    fast = FastResidualBlock(block)
    expected = block(x)
    found = fast(x.clone())
    exact = block.double()(x.double())
    assert found.shape == expected.shape
    assert not torch.equal(found, expected)  # it did go another way
    assert 0 < mean_error(found, exact) < 8 * mean_error(expected, exact)


@torch.inference_mode()
def test_a_map_that_is_not_square_and_memory_in_any_order_are_taken() -> None:
    block = made_block(16)
    x = made_maps(20, 16, 16)[..., :8].contiguous(memory_format=torch.channels_last)
    for given in (x, x.contiguous(), made_maps(20, 16, 24)[:, :, :12].contiguous()):
        torch.testing.assert_close(FastResidualBlock(block)(given.clone()), block(given), atol=2e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_frame_does_not_depend_on_the_frames_beside_it() -> None:
    fast, x = FastResidualBlock(made_block(32)), made_maps(40, 32, 16)
    together, others = fast(x.clone()), made_maps(40, 32, 16).flip(0)
    assert torch.equal(fast(torch.cat([others[:3], x[3:23]]))[3:], together[3:23])
    assert torch.equal(fast(x[:23].clone()), together[:23])
    torch.testing.assert_close(fast(x[3:23].clone()), together[3:23], atol=1e-4, rtol=1e-4)  # at another place


@torch.inference_mode()
def test_few_frames_and_large_maps_go_through_the_block_itself() -> None:
    block = made_block(16)
    too_large = 4 * int(MAX_TILES**0.5) + 4
    for x in (made_maps(SMALLEST_BATCH - 1, 16, 8), made_maps(SMALLEST_BATCH, 16, too_large)):
        assert torch.equal(FastResidualBlock(block)(x.clone()), block(x))


@torch.inference_mode()
def test_flat_maps_and_large_values_stay_finite_and_right() -> None:
    block = made_block(16)
    for x in (torch.zeros(16, 16, 8, 8), torch.full((16, 16, 8, 8), -3.0), made_maps(16, 16, 8) * 1e4):
        torch.testing.assert_close(FastResidualBlock(block)(x.clone()), block(x), atol=2e-4, rtol=1e-4)


@torch.inference_mode()
def test_one_block_may_be_used_by_several_threads_at_once() -> None:
    fast = FastResidualBlock(made_block(16))
    maps = [made_maps(64, 16, 32) + number for number in range(3)]
    expected = [fast(x.clone()) for x in maps]
    found: list[torch.Tensor | None] = [None] * 3

    @torch.inference_mode()
    def work(number: int) -> None:
        for _ in range(5):
            found[number] = fast(maps[number].clone())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for got, wanted in zip(found, expected, strict=True):
        assert got is not None
        assert torch.equal(got, wanted)


HALVINGS = [(16, 32, 32, 32), (16, 32, 16, 8), (64, 128, 8, 8), (16, 32, 48, 24), (32, 64, 8, 40)]
"""Channels in and out, height and width of the input."""


def made_convolution(channels: int, out_channels: int) -> nn.Conv2d:
    torch.manual_seed(channels)
    return nn.Conv2d(channels, out_channels, kernel_size=4, stride=2, padding=1).eval()


@pytest.mark.parametrize(("channels", "out_channels", "height", "width"), HALVINGS)
@torch.inference_mode()
def test_a_fast_convolution_of_stride_2_is_the_convolution_to_float32s_last_digits(
    channels: int, out_channels: int, height: int, width: int
) -> None:
    convolution = made_convolution(channels, out_channels)
    x = made_maps(SMALLEST_BATCH + 5, channels, max(height, width))[:, :, :height, :width]
    fast, before = FastHalving(convolution), x.clone()
    expected, found = convolution(x), fast(x)
    exact = convolution.double()(x.double())
    assert torch.equal(x, before)
    assert found.shape == expected.shape
    assert not torch.equal(found, expected)
    assert 0 < mean_error(found, exact) < 8 * mean_error(expected, exact)


@torch.inference_mode()
def test_few_frames_and_maps_that_tiles_do_not_cover_go_through_the_convolution_itself() -> None:
    convolution = made_convolution(8, 8)
    odd = made_maps(SMALLEST_BATCH, 8, 9)
    for x in (made_maps(SMALLEST_BATCH - 1, 8, 8), made_maps(SMALLEST_BATCH, 8, 12), odd, odd[:, :, :8], odd[..., :8]):
        assert torch.equal(FastHalving(convolution)(x), convolution(x))


@torch.inference_mode()
def test_a_frames_halved_map_does_not_depend_on_the_frames_beside_it() -> None:
    fast, x = FastHalving(made_convolution(16, 32)), made_maps(40, 16, 8)
    together, others = fast(x), made_maps(40, 16, 8).flip(0)
    assert torch.equal(fast(torch.cat([others[:3], x[3:23]]))[3:], together[3:23])
    assert torch.equal(fast(x[:23]), together[:23])
    torch.testing.assert_close(fast(x[3:23]), together[3:23], atol=1e-4, rtol=1e-4)  # at another place


@pytest.mark.parametrize("architecture", ["resnet", "conv"])
def test_a_vae_becomes_a_copy_with_fast_convolutions_and_is_left_as_it_was(architecture: Any) -> None:
    torch.manual_seed(0)
    model = VAE(VAEConfig(frame_height=16, frame_width=16, latent_dim=2, architecture=architecture)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.rand(32, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        fast = with_fast_convolutions(model)
        posterior, expected = fast.posterior(x), model.posterior(x)
    assert {type(module) for module in fast.encoder} & {FastResidualBlock, FastHalving}
    assert not {type(module) for module in model.encoder} & {FastResidualBlock, FastHalving}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    np.testing.assert_allclose(posterior.mu, expected.mu, atol=1e-5)
    np.testing.assert_allclose(posterior.logvar, expected.logvar, atol=1e-5)


@pytest.mark.parametrize("architecture", ["resnet", "conv"])
@pytest.mark.parametrize(
    "frame_shape",
    [
        (24, 40),
        (72, 16),
        *[pytest.param(shape, marks=pytest.mark.slow) for shape in [(96, 96), (48, 80), (200, 120), (8, 104)]],
    ],
)
def test_frames_of_any_shape_are_encoded_as_the_vae_does(architecture: Any, frame_shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    height, width = frame_shape
    model = VAE(VAEConfig(frame_height=height, frame_width=width, latent_dim=2, architecture=architecture)).eval()
    x = torch.rand(SMALLEST_BATCH + 1, 3, *frame_shape).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        posterior, expected = with_fast_convolutions(model).posterior(x), model.posterior(x)
    np.testing.assert_allclose(posterior.mu, expected.mu, atol=1e-5)
    np.testing.assert_allclose(posterior.logvar, expected.logvar, atol=1e-5)


@pytest.mark.parametrize("architecture", ["mlp", "ha2018"])
def test_a_vae_with_nothing_to_make_fast_is_itself(architecture: Any) -> None:
    plain = VAE(VAEConfig(frame_height=64, frame_width=64, latent_dim=2, architecture=architecture))
    assert with_fast_convolutions(plain) is plain


COMPILED_AGAIN = """
import numpy as np, torch
from worldmodel_v.autoencoders.gaussian.winograd import FastHalving, FastResidualBlock
from worldmodel_v.autoencoders.gaussian.winograd_kernels import block_kernel, halving_kernel
from worldmodel_v.autoencoders.blocks import ResidualBlock
x = torch.zeros(16, 16, 8, 8)
with torch.inference_mode():
    FastHalving(torch.nn.Conv2d(16, 32, kernel_size=4, stride=2, padding=1))(x)
    FastResidualBlock(ResidualBlock(16))(x)
for kernel in (block_kernel(16, 8, 64), halving_kernel(16, 8, 32, 64)):
    assert kernel.stats.cache_hits, kernel.stats
"""


@torch.inference_mode()
def test_what_was_compiled_is_found_by_the_next_process() -> None:
    x = made_maps(16, 16, 8)
    FastHalving(made_convolution(16, 32))(x)
    FastResidualBlock(made_block(16))(x)
    subprocess.run([sys.executable, "-c", COMPILED_AGAIN], check=True)


def test_an_encoder_has_its_kernels_before_it_is_used() -> None:
    model = VAE(VAEConfig(latent_dim=4, architecture="resnet")).eval()
    kernels = (winograd_kernels.block_kernel, winograd_kernels.halving_kernel)
    for kernel in kernels:
        kernel.cache_clear()
    encode = inference_encoder(model, torch.device("cpu"))
    before = [kernel.cache_info().currsize for kernel in kernels]
    encode(torch.zeros(SMALLEST_BATCH, 64, 64, 3, dtype=torch.uint8), None)
    assert before == [kernel.cache_info().currsize for kernel in kernels]
    assert min(before) > 0


def test_threads_that_overlap_leave_the_arithmetic_as_it_was() -> None:
    def found() -> tuple[object, ...]:
        with blas_in_one_thread():
            pass  # loads what there is
        blas = tuple(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32, blas

    before = found()
    first, second = reproducible_arithmetic(), reproducible_arithmetic()
    first.__enter__()
    within = found()
    second.__enter__()
    first.__exit__(None, None, None)
    assert found() == within != before
    second.__exit__(None, None, None)
    assert found() == before


def test_products_stay_in_the_thread_that_asks_for_them() -> None:
    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    with blas_in_one_thread():
        pass  # loads what there is
    before = threads()
    with blas_in_one_thread():
        assert threads()
        assert set(threads()) == {1}
    assert threads() == before
