"""Sentences that say what a figure means."""

import pytest

from worldmodel_v.autoencoders.gaussian.likelihood import Bound
from worldmodel_v.autoencoders.gaussian.posterior import AggregatedPosterior
from worldmodel_v.autoencoders.tokens import CodeUse
from worldmodel_v.evaluation import verdicts
from worldmodel_v.evaluation.attributes import Attribute
from worldmodel_v.evaluation.inpainting import Inpainting


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
    found = verdicts.on_activity(active, 32, beta=1.0, sizes={"latent_dim": 32})
    assert found.tone == tone
    assert found.text.startswith(text)


def test_what_would_make_a_map_or_levels_smaller_or_larger_is_named_by_their_settings() -> None:
    text = verdicts.on_activity(200, 256, beta=1.0, sizes={"latent_channels": 4, "latent_grid": 8}).text
    assert "56 of 256 latents are silent. A smaller latent_channels or latent_grid would do as well" in text
    assert "lower beta or raise top_dim or bottom_dim" in verdicts.on_fidelity(20.0, 0.5, ["top_dim", "bottom_dim"]).text


def test_silent_latents_are_no_fault_where_a_high_beta_asks_for_them() -> None:
    assert verdicts.on_activity(3, 32, beta=4.0, sizes={"latent_dim": 32}).tone == "note"
    assert verdicts.on_activity(0, 32, beta=4.0, sizes={"latent_dim": 32}).tone == "bad"


def aggregated(kl_nats: float) -> AggregatedPosterior:
    moments = {"max_abs_mean": 0.0, "min_variance": 1.0, "max_variance": 1.0, "max_correlation": 0.0}
    return AggregatedPosterior(**moments, kl_nats=kl_nats, mean=[0.0] * 10, variance=[1.0] * 10)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_far_from_the_prior_is_no_fault_where_nothing_asks_for_the_prior(beta: float) -> None:
    far = verdicts.on_prior(aggregated(60.0), beta)
    assert far.tone == "note"
    assert f"At beta={beta} the training does not aim at that" in far.text
    assert "higher" not in far.text
    assert verdicts.on_prior(aggregated(0.1), beta).tone == "good"


def test_far_from_the_prior_is_one_where_a_high_beta_asks_for_it() -> None:
    far = verdicts.on_prior(aggregated(60.0), 4.0)
    assert (far.tone, verdicts.on_prior(aggregated(1.0), 4.0).tone) == ("bad", "fair")
    assert "a still higher beta brings them nearer (60.0 nats from N(0, I))" in far.text


def test_a_hole_is_told_in_levels_and_a_vae_that_never_saw_one_is_not_blamed() -> None:
    sides = {"num_frames": 1, "rounds": 8, "hole": (0, 1, 0, 1)}
    found = verdicts.on_inpainting(Inpainting(**sides, mse=0.04, prior_mse=None, mean_fill_mse=0.01, seen_mse=0.0001))
    assert found.tone == "note"
    assert "off by 51.0 alone (of 255 levels, root mean square), the mean colour by 25.5" in found.text
    helped = verdicts.on_inpainting(Inpainting(**sides, mse=0.04, prior_mse=0.0025, mean_fill_mse=0.01, seen_mse=0.0001))
    assert helped.tone == "good"
    assert "off by 51.0 alone, 12.8 with the fitted prior (of 255 levels" in helped.text


def bound(bits: float, sigma: float | None) -> Bound:
    return Bound(elbo_nats=0.0, log_likelihood_nats=0.0, kl_nats=0.0, bits_per_dimension=bits, sigma=sigma)


def test_a_bound_that_costs_more_than_a_raw_byte_is_told() -> None:
    worse, better = verdicts.on_bound(bound(8.83, 0.7071)), verdicts.on_bound(bound(3.1, 0.05))
    assert worse is not None
    assert better is not None
    assert (worse.tone, better.tone) == ("note", "good")
    assert "fixed σ of 0.71 is far wider than the errors" in worse.text
    assert "3.10 bits" in better.text
    assert verdicts.on_bound(bound(8.83, None)) is None


def test_a_learned_sigma_that_does_not_fit_is_no_choice_of_the_recipe() -> None:
    found = verdicts.on_bound(bound(22.0, 0.02), is_learned=True)
    assert found is not None
    assert found.tone == "fair"
    assert "the learned σ of 0.02 does not fit the errors on these frames" in found.text


@pytest.mark.parametrize(
    ("r2", "achieved", "tone"), [(0.8, 0.9, "good"), (0.8, 0.1, "fair"), (0.5, 0.9, "fair"), (0.3, 0.9, "note")]
)
def test_an_edit_is_good_if_it_is_predicted_and_drawn(r2: float, achieved: float, tone: str) -> None:
    attribute = Attribute(
        factor="speed", r2=r2, rms_error=1.0, change_per_sigma=1.0, weights=[], direction=[], achieved=achieved
    )
    found = verdicts.on_edits([attribute])
    assert found.tone == tone
    assert f"speed {r2:.2f}" in found.text
    assert f"show {achieved:.0%} of the change" in found.text


@pytest.mark.parametrize(
    ("bits", "tone", "text"),
    [
        (
            40.0,
            "good",
            "The codes are well used: 40 of the 60 bits that a frame's tokens can hold are used, and 7 of 64 codes",
        ),
        (20.0, "fair", "The codes are partly used"),
        (
            6.0,
            "note",
            "Few of the codes are needed for these frames: a smaller codebook, or fewer tokens, would do as well",
        ),
        (0.5, "bad", "The codebook has collapsed: all frames have nearly the same tokens. 7 of 64 codes are dead."),
    ],
)
def test_codes_are_judged_by_the_bits_that_are_used(bits: float, tone: str, text: str) -> None:
    size = {"num_codes": 64, "num_tokens": 10, "num_values": 64}
    use = CodeUse(perplexity=20.0, dead_codes=7, entropy_bits_per_token=[bits / 10] * 10, shares=[1.0], **size)
    found = verdicts.on_codes(use)
    assert found.tone == tone
    assert found.text.startswith(text)


def test_only_a_vae_is_told_to_change_what_it_has() -> None:
    assert "lower beta or raise latent_dim" in verdicts.on_fidelity(20.0, 0.5, ["latent_dim"]).text
    assert "beta" not in verdicts.on_fidelity(20.0, 0.5).text
