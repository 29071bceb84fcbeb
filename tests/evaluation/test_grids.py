"""Where each frame stands in a picture."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from worldmodel_v.autoencoders import frames_to_input
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig
from worldmodel_v.evaluation import Row, frame_grid, reconstruction_grid, sample_grid, to_png
from worldmodel_v.evaluation.grids import to_frames

CPU = torch.device("cpu")


def random_frames(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, height, width, 3), dtype=np.uint8)


def small_vae() -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(frame_height=8, frame_width=8, latent_dim=3))


class TestModelGrids:
    def test_reconstructions_stand_below_their_frames(self) -> None:
        model, frames = small_vae(), random_frames(4, 8, 8)
        with torch.no_grad():
            x = frames_to_input(torch.from_numpy(frames))
            expected = frame_grid([Row("", frames), Row("", to_frames(model.decode_z(model.posterior(x).mu)))])
        np.testing.assert_array_equal(reconstruction_grid(model.train(), frames, CPU), expected)
        assert not model.training

    def test_frames_may_be_a_view_with_steps(self) -> None:
        frames = random_frames(8, 8, 8)
        np.testing.assert_array_equal(
            reconstruction_grid(small_vae(), frames[::2], CPU), reconstruction_grid(small_vae(), frames[::2].copy(), CPU)
        )

    def test_samples_are_decoded_from_the_seeds_latents_row_by_row(self) -> None:
        model = small_vae()
        z = torch.randn(6, 3, generator=torch.Generator().manual_seed(9))
        with torch.no_grad():
            frames = to_frames(model.decode_z(z))
        expected = frame_grid([Row("", frames[:3]), Row("", frames[3:])])
        np.testing.assert_array_equal(sample_grid(model, rows=2, columns=3, seed=9), expected)

    def test_another_seed_gives_other_samples(self) -> None:
        one, other = (sample_grid(small_vae(), rows=1, columns=2, seed=seed) for seed in (1, 2))
        assert (one != other).any()


class TestToFrames:
    def test_it_undoes_frames_to_input(self) -> None:
        frames = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
        np.testing.assert_array_equal(to_frames(frames_to_input(torch.from_numpy(frames))), frames, strict=True)

    @pytest.mark.parametrize(("value", "byte"), [(-1.0, 0), (0.0, 0), (0.4 / 255, 0), (0.6 / 255, 1), (1.0, 255), (1.5, 255)])
    def test_values_are_rounded_and_kept_within_a_byte(self, value: float, byte: int) -> None:
        assert to_frames(torch.full((1, 3, 1, 1), value)).tolist() == [[[[byte] * 3]]]


def test_a_png_holds_the_picture_bit_for_bit() -> None:
    picture = random_frames(1, 30, 17)[0]
    content = to_png(picture)
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), picture, strict=True)


def test_the_same_picture_gives_the_same_png() -> None:
    picture = frame_grid([Row("", random_frames(2, 8, 8))])
    assert to_png(picture) == to_png(picture)


def test_one_channel_becomes_grey() -> None:
    found = to_frames(torch.tensor([0.0, 0.2, 0.6, 1.0]).reshape(1, 1, 2, 2))
    assert found.tolist() == [[[[0] * 3, [51] * 3], [[153] * 3, [255] * 3]]]


def test_a_conditional_vae_is_pictured_under_its_condition() -> None:
    torch.manual_seed(0)
    model = VAE(VAEConfig(frame_height=8, frame_width=8, latent_dim=3, channels=1, condition=("speed",), condition_dim=1))
    model.standardise_by(torch.tensor([3.0]), torch.tensor([2.0]))
    frames, condition = random_frames(2, 8, 8), np.array([[1.0], [5.0]], np.float32)
    with torch.no_grad():
        x, speed = frames_to_input(torch.from_numpy(frames), channels=1), torch.from_numpy(condition)
        expected = to_frames(model.decode_z(model.posterior(x, speed).mu, speed))
        z = torch.randn(2, 3, generator=torch.Generator().manual_seed(9))
        prior = to_frames(model.decode_z(z, torch.full((2, 1), 3.0)))
    np.testing.assert_array_equal(
        reconstruction_grid(model, frames, CPU, condition), frame_grid([Row("", frames), Row("", expected)])
    )
    np.testing.assert_array_equal(sample_grid(model, rows=1, columns=2, seed=9), frame_grid([Row("", prior)]))
