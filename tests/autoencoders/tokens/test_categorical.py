"""Categorical variables: probabilities, draws, gradients and the KL, by hand and against torch.distributions."""

import math

import pytest
import torch
from torch.distributions import Categorical as Reference
from torch.distributions import kl_divergence

from tests.autoencoders.kinds import batch_of, frames, made
from worldmodel_v.autoencoders.tokens.categorical import Categorical, drawn, kl_to_uniform, mixed, straight_through


def some_logits(*shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_a_hundredth_of_the_uniform_distribution_is_mixed_in() -> None:
    found = mixed(torch.tensor([math.log(3.0), 0.0, -math.inf, -math.inf]), 0.01)
    assert found.tolist() == pytest.approx([0.99 * 0.75 + 0.0025, 0.99 * 0.25 + 0.0025, 0.0025, 0.0025])
    probs = mixed(some_logits(50, 7), 0.01)
    assert probs.min() >= 0.01 / 7
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(50))


def test_a_class_is_drawn_where_its_cumulative_probability_passes_the_number() -> None:
    probs = torch.tensor([0.2, 0.5, 0.3]).expand(5, 3)
    noise = torch.special.ndtri(torch.tensor([1e-9, 0.199, 0.201, 0.699, 1 - 1e-7], dtype=torch.float64))
    assert drawn(probs, noise).tolist() == [0, 0, 1, 1, 2]
    assert drawn(probs[:2], torch.tensor([-math.inf, math.inf])).tolist() == [0, 2]


def test_classes_are_drawn_as_often_as_they_are_probable() -> None:
    probs = mixed(some_logits(1, 5), 0.01)
    noise = torch.randn(20000, generator=torch.Generator().manual_seed(1))
    shares = drawn(probs.expand(20000, 5), noise).bincount(minlength=5) / 20000
    torch.testing.assert_close(shares, probs[0], atol=0.012, rtol=0)


def test_what_the_decoder_gets_is_one_hot_with_the_gradient_of_the_probabilities() -> None:
    logits, weights = some_logits(4, 6).requires_grad_(), torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    probs = mixed(logits, 0.01)
    tokens = torch.tensor([5, 0, 3, 3])
    z = straight_through(tokens, probs)
    assert torch.equal(z.detach(), torch.eye(6)[tokens])
    found = torch.autograd.grad((z * weights).sum(), logits, retain_graph=True)[0]
    expected = torch.autograd.grad((probs * weights).sum(), logits)[0]
    torch.testing.assert_close(found, expected)


def test_the_kl_is_that_of_torch_distributions() -> None:
    probs = mixed(some_logits(20, 9).double(), 0.01)
    uniform = Reference(probs=torch.full((20, 9), 1 / 9, dtype=torch.float64))
    torch.testing.assert_close(kl_to_uniform(probs), kl_divergence(Reference(probs=probs), uniform))
    torch.testing.assert_close(kl_to_uniform(torch.eye(4))[0], torch.tensor(math.log(4)))


def test_the_loss_is_the_error_of_drawn_classes_and_the_weighted_kl() -> None:
    model, x = made("categorical", beta=0.5).eval(), frames()
    assert isinstance(model, Categorical)
    batch = batch_of(model, x)
    assert batch.noise is not None
    probs = mixed(model.logits(x), 0.01)
    error = (model.decode({"tokens": drawn(probs, batch.noise)}) - x).square().sum() / len(x)
    kl = kl_to_uniform(probs).sum() / len(x)
    found = model.loss(batch)
    torch.testing.assert_close(found.figures["reconstruction"], error)
    torch.testing.assert_close(found.figures["kl"], kl)
    torch.testing.assert_close(found.minimised, error + 0.5 * kl)
