"""Priors of tokens: against exact probabilities, and on other episodes than those they were fitted to."""

import math

import numpy as np
import pytest
import torch

from worldmodel_v.evaluation.token_prior import TokenPrior, TokenPriorFit, fit_token_prior
from worldmodel_v.evaluation.verdicts import on_token_prior

NUM_FRAMES, VALUES = 1200, 5
EPISODES = np.arange(NUM_FRAMES) // 100


def counting(rng: np.random.Generator) -> np.ndarray:
    """Maps (2, 3) whose first token is any of five, and each other one more than that before it: log2 5 bits a frame."""
    return ((rng.integers(VALUES, size=(NUM_FRAMES, 1)) + np.arange(6)) % VALUES).reshape(-1, 2, 3)


@pytest.fixture(scope="module")
def fitted() -> TokenPrior:
    return fit_token_prior(torch.from_numpy(counting(np.random.default_rng(0))), VALUES, EPISODES, seed=0)


def test_it_learns_what_tokens_say_of_each_other(fitted: TokenPrior) -> None:
    assert fitted.fit.bits == pytest.approx(math.log2(VALUES), abs=0.3)
    assert fitted.fit.independent_bits == pytest.approx(6 * math.log2(VALUES), abs=0.1)
    assert fitted.surprise is not None
    assert fitted.surprise.mean() == pytest.approx(fitted.fit.bits)


def test_its_samples_follow_the_rule(fitted: TokenPrior) -> None:
    drawn = fitted.sample(200)
    assert drawn.shape == (200, 2, 3)
    flat = drawn.reshape(200, 6)
    assert ((flat[:, 1:] - flat[:, :-1]) % VALUES == 1).mean() > 0.95
    assert len(np.unique(flat[:, 0])) == VALUES
    np.testing.assert_array_equal(drawn, fitted.sample(200))


def test_hidden_tokens_are_filled_from_those_before_and_the_others_stay(fitted: TokenPrior) -> None:
    tokens = counting(np.random.default_rng(1))[:20]
    hidden = np.array([[False, True, True], [False, True, False]])
    torn = np.where(hidden, 0, tokens)
    np.testing.assert_array_equal(fitted.filled(torn, hidden), tokens)
    np.testing.assert_array_equal(fitted.filled(torn, np.zeros_like(hidden)), torn)


def test_each_place_sees_only_those_before_it(fitted: TokenPrior) -> None:
    tokens = torch.from_numpy(counting(np.random.default_rng(1))[:4].reshape(4, 6))
    changed = tokens.clone()
    changed[:, 3] = (changed[:, 3] + 1) % VALUES
    with torch.no_grad():
        before, after = fitted.network(tokens), fitted.network(changed)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert (after[:, 4] - before[:, 4]).abs().max() > 0.1


def test_independent_tokens_need_their_entropy_of_uint16_as_of_int64() -> None:
    tokens = np.random.default_rng(0).integers(VALUES, size=(400, 2))
    narrow, wide = (
        fit_token_prior(torch.from_numpy(tokens.astype(dtype)), VALUES, EPISODES[:400], seed=0).fit
        for dtype in ("uint16", "int64")
    )
    assert narrow == wide
    assert narrow.bits == pytest.approx(2 * math.log2(VALUES), rel=0.1)
    assert narrow.independent_bits == pytest.approx(2 * math.log2(VALUES), rel=0.05)


def test_tokens_that_another_episode_never_has_are_possible_and_unlikely(fitted: TokenPrior) -> None:
    tokens = counting(np.random.default_rng(0))
    tokens[777] = [[0, 0, 0], [0, 0, 0]]
    prior = fit_token_prior(torch.from_numpy(tokens), VALUES + 1, EPISODES, seed=0)
    assert prior.surprise is not None
    assert prior.surprise.argmax() == 777
    assert np.isfinite(prior.surprise).all()


def test_a_single_episode_and_few_frames() -> None:
    prior = fit_token_prior(torch.zeros(3, 1, dtype=torch.int64), 2, np.zeros(3, int), seed=0)
    assert (prior.fit.bits, prior.surprise, prior.sample(4).shape) == (None, None, (4, 1))
    assert on_token_prior(prior.fit).text == "There is a single episode, so how well it fits others is not known."


def test_the_verdict_says_how_many_bits_are_saved() -> None:
    text = on_token_prior(TokenPriorFit(bits=120.4, independent_bits=310.0)).text
    assert text == (
        "Fitted to half of the episodes, it needs 120 bits for the tokens of a frame of the others. With tokens independent of "
        "each other it would need 310."
    )
    text = on_token_prior(TokenPriorFit(bits=310.0, independent_bits=120.0)).text
    assert text.endswith("would need 120. It follows these few frames too closely.")
