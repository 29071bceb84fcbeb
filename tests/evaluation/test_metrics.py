"""The numbers of an evaluation against values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from worldmodel_v.autoencoders import frames_to_input
from worldmodel_v.autoencoders.base import Measure, psnr
from worldmodel_v.autoencoders.gaussian import VAE, Posterior, VAEConfig, gaussian_kl
from worldmodel_v.evaluation import evaluate_frames
from worldmodel_v.evaluation.metrics import BATCH_SIZE

CPU = torch.device("cpu")


class KnownVAE(VAE):
    """mu is the frame's mean brightness times each scale, logvar is 0, and every frame is decoded to one value."""

    def __init__(self, scales: list[float], decoded: float = 0.5) -> None:
        super().__init__(VAEConfig(frame_height=8, frame_width=8))
        self.scales, self.decoded = torch.tensor(scales), decoded

    def posterior(self, x: torch.Tensor, condition: None = None) -> Posterior:
        mu = x.mean(dim=(1, 2, 3))[:, None] * self.scales
        return Posterior(mu, torch.zeros_like(mu))

    def decode(self, latents: dict[str, torch.Tensor], condition: None = None) -> torch.Tensor:
        return torch.full((len(latents["mu"]), 3, 4, 4), self.decoded)

    def measures(self, generator: torch.Generator) -> dict[str, Measure]:
        return {}


def flat_frames(*values: int) -> np.ndarray:
    return np.repeat(np.array(values, np.uint8), 48).reshape(len(values), 4, 4, 3)


class TestPSNR:
    @pytest.mark.parametrize(
        ("squared_error", "num_values", "decibels"), [(48.0, 48, 0.0), (12.0, 48, 6.0206), (0.48, 48, 20.0), (0.0048, 48, 40.0)]
    )
    def test_it_is_ten_times_the_logarithm_of_one_over_the_mean_squared_error(
        self, squared_error: float, num_values: int, decibels: float
    ) -> None:
        found = psnr(torch.tensor([squared_error], dtype=torch.float64), num_values)
        assert found.tolist() == pytest.approx([decibels], abs=1e-4)

    def test_a_perfect_frame_has_a_finite_one(self) -> None:
        assert psnr(torch.zeros(1, dtype=torch.float64), 48).item() == pytest.approx(10 * math.log10(48e12))

    def test_it_is_averaged_over_frames_and_not_taken_of_the_average(self) -> None:
        found = evaluate_frames(KnownVAE([1.0], decoded=0.0), flat_frames(255, 51), CPU)
        assert found["psnr_db"] == pytest.approx((0 + 10 * math.log10(25)) / 2, rel=1e-5)
        assert found["squared_error"] == pytest.approx((48 + 48 / 25) / 2, rel=1e-5)


class TestActiveUnits:
    def test_latents_are_counted_whose_mean_varies_by_more_than_a_hundredth(self) -> None:
        """Half of the frames are black and half white, so a latent of scale s has a mean of variance s² / 4."""
        frames = flat_frames(*[0, 255] * 10)
        assert evaluate_frames(KnownVAE([0.0, 0.199, 0.201, -0.201, 3.0]), frames, CPU)["active_units"] == 3
        assert evaluate_frames(KnownVAE([0.0, 0.1, 0.199]), frames, CPU)["active_units"] == 0

    def test_the_variance_is_that_of_all_frames_and_not_of_a_batch(self) -> None:
        """Each batch is flat, so that only the difference between batches shows."""
        frames = flat_frames(*[0] * BATCH_SIZE, *[255] * BATCH_SIZE)
        found = evaluate_frames(KnownVAE([0.199, 0.201]), frames, CPU)
        assert (found["active_units"], found["latent_dim"], found["num_frames"]) == (1, 2, 2 * BATCH_SIZE)

    def test_the_variance_is_divided_by_the_number_of_frames(self) -> None:
        assert evaluate_frames(KnownVAE([0.199]), flat_frames(0, 255), CPU)["active_units"] == 0

    def test_a_single_frame_has_no_active_units(self) -> None:
        assert evaluate_frames(KnownVAE([100.0]), flat_frames(255), CPU)["active_units"] == 0


def test_the_kl_is_summed_over_latents_and_averaged_over_frames() -> None:
    found = evaluate_frames(KnownVAE([1.0, 2.0]), flat_frames(0, 255), CPU)
    assert found["kl_nats"] == pytest.approx((0 + 0.5 * 1 + 0.5 * 4) / 2, rel=1e-6)


@pytest.mark.parametrize("count", [1, BATCH_SIZE, BATCH_SIZE + 1])
def test_a_real_model_is_evaluated_as_frame_by_frame(count: int) -> None:
    torch.manual_seed(0)
    model = VAE(VAEConfig(frame_height=8, frame_width=8, latent_dim=3))
    frames = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    model.train()
    found = evaluate_frames(model, frames, CPU)
    assert not model.training
    with torch.no_grad():
        x = frames_to_input(torch.from_numpy(frames))
        posterior = model.posterior(x)
        errors = (model.decode_z(posterior.mu) - x).double().square().sum(dim=(1, 2, 3))
    assert found["num_frames"] == count
    assert found["latent_dim"] == 3
    assert found["squared_error"] == pytest.approx(errors.mean().item(), rel=1e-5)
    assert found["psnr_db"] == pytest.approx((10 * torch.log10(192 / errors)).mean().item(), rel=1e-5)
    assert found["kl_nats"] == pytest.approx(gaussian_kl(posterior).sum(dim=1).mean().item(), rel=1e-4)


def test_a_conditional_vae_of_one_channel_is_evaluated_frame_by_frame_with_its_condition() -> None:
    torch.manual_seed(0)
    model = VAE(VAEConfig(frame_height=8, frame_width=8, latent_dim=3, channels=1, condition=("speed",), condition_dim=1))
    count = BATCH_SIZE + 3
    frames = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    condition = np.random.default_rng(1).normal(size=(count, 1)).astype(np.float32)
    found = evaluate_frames(model, frames, CPU, condition_NK=condition)
    with torch.no_grad():
        x, speed = frames_to_input(torch.from_numpy(frames), channels=1), torch.from_numpy(condition)
        posterior = model.posterior(x, speed)
        errors = (model.decode_z(posterior.mu, speed) - x).double().square().sum(dim=(1, 2, 3))
    assert found["psnr_db"] == pytest.approx((10 * torch.log10(64 / errors)).mean().item(), rel=1e-5)
    assert found["kl_nats"] == pytest.approx(gaussian_kl(posterior).sum(dim=1).mean().item(), rel=1e-4)
