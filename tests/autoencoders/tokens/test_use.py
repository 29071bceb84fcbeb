"""How codes are used, against counts by hand."""

import math

import pytest
import torch

from worldmodel_v.autoencoders.tokens import code_use


def test_one_codebook_for_all_places() -> None:
    tokens = torch.tensor([[[0, 1]], [[0, 1]], [[0, 2]], [[0, 3]]])
    found = code_use(tokens, 8, is_shared=True)
    shares = [1 / 2, 1 / 4, 1 / 8, 1 / 8]
    assert found.shares == shares
    assert found.perplexity == pytest.approx(2**1.75)
    assert (found.dead_codes, found.num_codes) == (4, 8)
    assert found.capacity_bits == 6
    assert found.entropy_bits_per_token == pytest.approx([0.0, 1.5])
    assert found.entropy_bits == pytest.approx(1.5)


def test_a_codebook_for_each_place() -> None:
    tokens = torch.tensor([[0, 1], [0, 1], [0, 2], [0, 3]])
    found = code_use(tokens, 8, is_shared=False)
    assert found.perplexity == pytest.approx(math.sqrt(1 * 2**1.5))
    assert (found.dead_codes, found.num_codes) == (7 + 5, 16)
    assert found.shares == pytest.approx([(1 + 1 / 2) / 2, 1 / 8, 1 / 8])
    assert found.entropy_bits == pytest.approx(1.5)
    assert found.capacity_bits == 6


def test_codes_that_are_equally_frequent_have_the_highest_perplexity() -> None:
    tokens = torch.arange(24).reshape(2, 3, 4)
    found = code_use(tokens.to(torch.uint8), 24, is_shared=True)
    assert found.perplexity == pytest.approx(24)
    assert found.dead_codes == 0
    assert found.entropy_bits == pytest.approx(12)
