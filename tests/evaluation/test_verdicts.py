"""Sentences that say what a figure means."""

import pytest

from worldmodel_v.autoencoders.gaussian.likelihood import Bound
from worldmodel_v.evaluation import verdicts
from worldmodel_v.evaluation.attributes import Attribute


@pytest.mark.parametrize(("value", "expected"), [(31, "good"), (30, "good"), (27, "fair"), (24.9, "bad")])
def test_more_is_better_where_the_good_threshold_is_the_higher_one(value: float, expected: str) -> None:
    assert verdicts.graded(value, 30, 25) == expected


@pytest.mark.parametrize(("value", "expected"), [(0.5, "good"), (1.0, "good"), (1.5, "fair"), (2.1, "bad")])
def test_less_is_better_where_it_is_the_lower_one(value: float, expected: str) -> None:
    assert verdicts.graded(value, 1.0, 2.0) == expected


@pytest.mark.parametrize(
    ("active", "tone", "text"),
    [
        (32, "good", "All 32 latents carry information; none has collapsed."),
        (31, "fair", "1 of 32 latents is silent."),
        (23, "fair", "9 of 32 latents are silent. A latent_dim of 23 would do as well"),
        (3, "bad", "29 of 32 latents are silent."),
        (0, "bad", "The posterior has collapsed: no latent says anything."),
    ],
)
def test_silent_latents_are_counted(active: int, tone: str, text: str) -> None:
    found = verdicts.on_activity(active, 32)
    assert found.tone == tone
    assert found.text.startswith(text)


def bound(bits: float, sigma: float | None) -> Bound:
    return Bound(elbo_nats=0.0, log_likelihood_nats=0.0, kl_nats=0.0, bits_per_dimension=bits, sigma=sigma)


def test_a_bound_that_costs_more_than_a_raw_byte_is_told() -> None:
    worse, better = verdicts.on_bound(bound(8.83, 0.7071)), verdicts.on_bound(bound(3.1, 0.05))
    assert worse is not None
    assert better is not None
    assert (worse.tone, better.tone) == ("fair", "good")
    assert "σ of 0.71 is far wider than the errors" in worse.text
    assert "3.10 bits" in better.text
    assert verdicts.on_bound(bound(8.83, None)) is None


@pytest.mark.parametrize(
    ("r2", "achieved", "tone"), [(0.8, 0.9, "good"), (0.8, 0.1, "fair"), (0.5, 0.9, "fair"), (0.3, 0.9, "bad")]
)
def test_an_edit_is_good_if_it_is_predicted_and_drawn(r2: float, achieved: float, tone: str) -> None:
    attribute = Attribute(factor="speed", r2=r2, change_per_sigma=1.0, weights=[], direction=[], achieved=achieved)
    found = verdicts.on_edits([attribute])
    assert found.tone == tone
    assert f"speed {r2:.2f}" in found.text
    assert f"show {achieved:.0%} of the change" in found.text
