"""Frames that are completed with the help of a prior, where the most probable latent is known."""

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from worldmodel_v.evaluation.coder import GaussianCoder
from worldmodel_v.evaluation.completion import _touched, have_places, most_probable
from worldmodel_v.evaluation.prior import Prior, PriorFit

NOTHING = np.zeros((3, 0), np.float32)
HOLE = np.zeros((8, 8), bool)
HOLE[2:6, 2:6] = True


class Levels(torch.nn.Module):
    """z_0 is the logit of all visible pixels, z_1 that of the pixels in the hole."""

    class config:  # noqa: N801
        channels = 3
        latent_dim = 2
        likelihood = "gaussian"

    sigma = 0.05

    def encode(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"mu": torch.zeros(len(x), 2)}

    def decode_logits(self, z: torch.Tensor) -> torch.Tensor:
        hole = torch.from_numpy(HOLE)
        return torch.where(hole, z[:, 1, None, None], z[:, 0, None, None])[:, None].expand(-1, 3, -1, -1)

    def decode(self, latents: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.decode_logits(latents["mu"]).sigmoid()


def completed(likelihood: str) -> np.ndarray:
    model = Levels()
    model.config.likelihood = likelihood  # type: ignore[misc]
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double()
    prior = Prior(
        PriorFit(kind="full-covariance", nll_nats=None, standard_normal_nll_nats=0.0),
        MultivariateNormal(torch.zeros(2).double(), covariance),
        None,
    )
    level = np.round(255 / (1 + np.exp(-np.array([-1.0, 0.0, 1.0])))).astype(np.uint8)
    frames = np.where(HOLE[..., None], np.uint8(128), level[:, None, None, None] * np.ones((8, 8, 3), np.uint8))
    with torch.no_grad():  # as a caller may have it
        return most_probable(GaussianCoder(model, torch.device("cpu")), prior, frames, HOLE, NOTHING)  # type: ignore[arg-type]


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_what_is_visible_decides_and_the_prior_where_nothing_is_seen(likelihood: str) -> None:
    """E[z_1 | z_0] = 0.9 z_0; what is visible says z_0 almost exactly."""
    found = completed(likelihood)
    logits = np.log(found / (255.0 - found))
    np.testing.assert_allclose(logits[:, ~HOLE].mean(axis=(1, 2)), [-1, 0, 1], atol=0.05)
    np.testing.assert_allclose(logits[:, HOLE].mean(axis=(1, 2)), [-0.9, 0, 0.9], atol=0.05)


def test_a_frame_is_completed_the_same_in_any_number_of_threads() -> None:
    found = []
    for threads in (1, 2):
        of_caller = torch.get_num_threads()
        torch.set_num_threads(threads)
        found.append(completed("gaussian"))
        torch.set_num_threads(of_caller)
    np.testing.assert_array_equal(*found)


def test_tokens_whose_part_of_the_frame_touches_the_hole() -> None:
    np.testing.assert_array_equal(_touched(HOLE, (4, 4)), np.pad(np.ones((2, 2), bool), 1))
    np.testing.assert_array_equal(_touched(HOLE, (2, 2)), np.ones((2, 2), bool))
    odd = np.zeros((40, 24), bool)
    odd[39, 0] = True
    np.testing.assert_array_equal(_touched(odd, (3, 2)), [[False, False], [False, False], [True, False]])
    assert have_places((3, 2))
    assert not have_places((32,))
