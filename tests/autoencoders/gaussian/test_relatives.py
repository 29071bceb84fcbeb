"""What every VAE keeps to, whatever the shape of its latents: parts of a batch, precision, samples; by name."""

import pytest
import torch

from tests.autoencoders.kinds import VAES, batch_of, frames, made, psnr_of_learned_by_heart
from worldmodel_v.autoencoders.gaussian import gaussian_kl, posterior_of


@pytest.mark.parametrize("kind", ["spatial", "ladder"])
def test_it_learns_a_handful_of_frames_by_heart(kind: str) -> None:
    assert psnr_of_learned_by_heart(kind, steps=120, likelihood="gaussian", beta=0.01) > 22


@pytest.mark.parametrize("kind", VAES)
def test_the_mean_over_the_parts_of_a_batch_is_the_whole(kind: str) -> None:
    model, batch = made(kind, likelihood="gaussian").eval(), batch_of(made(kind), frames(4))
    assert batch.noise is not None
    parts = [batch._replace(x=batch.x[rows], noise=batch.noise[rows]) for rows in (slice(2), slice(2, 4))]
    with torch.no_grad():
        whole, halves = model.loss(batch), [model.loss(part) for part in parts]
    torch.testing.assert_close((halves[0].minimised + halves[1].minimised) / 2, whole.minimised)
    for name, value in whole.figures.items():
        assert sum(float(half.figures[name]) for half in halves) / 2 == pytest.approx(float(value), rel=1e-4)


@pytest.mark.parametrize("kind", VAES)
def test_in_bf16_and_with_fast_convolutions_it_encodes_nearly_the_same(kind: str) -> None:
    model, x, cpu = made(kind).eval(), frames(20), torch.device("cpu")
    with torch.no_grad():
        expected = model.encode(x)
        for precision, tolerance in (("fp32", 1e-4), ("bf16", 5e-2)):
            found = model.for_inference(cpu, precision).encode(x)
            for name, values in expected.items():
                torch.testing.assert_close(found[name], values, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", VAES)
def test_what_it_stores_is_what_the_loss_counts_for_the_first_latents_drawn(kind: str) -> None:
    """The KL of the columns is that of the loss without noise: a ladder's bottom is then given the mean of its top."""
    model, x = made(kind).eval(), frames(4)
    batch = batch_of(model, x)
    assert batch.noise is not None
    with torch.no_grad():
        stored = gaussian_kl(posterior_of(model.encode(x))).sum(dim=1).mean()
        kl = model.loss(batch._replace(noise=torch.zeros_like(batch.noise))).figures["kl"]
    torch.testing.assert_close(kl, stored)


@pytest.mark.parametrize("kind", VAES)
def test_samples_are_decoded_from_the_prior(kind: str) -> None:
    model = made(kind).eval()
    with torch.no_grad():
        found = model.samples(3, torch.Generator().manual_seed(5))
        z = torch.randn(3, model.latent_dim, generator=torch.Generator().manual_seed(5))
        assert torch.equal(found, model.decode({"mu": model.shaped(z)}))
