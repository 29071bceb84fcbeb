"""Two levels: precision weighting against the paper's formula, units that do not change the KL, and an unused level."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tests.autoencoders.kinds import frames
from worldmodel_v.autoencoders import Batch
from worldmodel_v.autoencoders.base import Scores
from worldmodel_v.autoencoders.gaussian.ladder import Estimates, LadderConfig, LadderVAE, merged
from worldmodel_v.autoencoders.gaussian.posterior import Posterior, gaussian_kl

TOP, BOTTOM = 2, 3


def made(**changes: object) -> LadderVAE:
    torch.manual_seed(0)
    settings = {"frame_height": 16, "frame_width": 16, "top_dim": TOP, "bottom_dim": BOTTOM, "beta_warmup_steps": 0}
    return LadderVAE(LadderConfig(**{**settings, **changes}))  # type: ignore[arg-type]


def weighted(bottom_up: Estimates, prior: Estimates) -> Normal:
    """The paper's posterior of z_bottom."""
    precisions = [torch.exp(-estimate.logvar) for estimate in (bottom_up, prior)]
    variance = 1 / sum(precisions)
    return Normal(variance * (precisions[0] * bottom_up.mean + precisions[1] * prior.mean), variance.sqrt())


def some_estimates(seed: int) -> Estimates:
    generator = torch.Generator().manual_seed(seed)
    return Estimates(*(3 * torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2)))


def test_by_hand() -> None:
    """m̂ = 3, ŝ² = 1; m = 1, s² = 4: v = 1 / (1 + 1/4) = 0.8, μ = 0.8 (3 + 1/4) = 2.6; in units of s = 2: 0.8 and 0.2."""
    bottom_up = Estimates(torch.tensor([3.0]), torch.tensor([0.0]))
    mu, logvar = merged(bottom_up, Estimates(torch.tensor([1.0]), torch.tensor([4.0]).log()))
    assert mu.item() == pytest.approx((2.6 - 1) / 2)
    assert logvar.exp().item() == pytest.approx(0.8 / 4)


def test_precisions_weigh_both_estimates_and_units_do_not_change_the_kl() -> None:
    bottom_up, prior = some_estimates(0), some_estimates(1)
    expected, s = weighted(bottom_up, prior), (0.5 * prior.logvar).exp()
    found = merged(bottom_up, prior)
    torch.testing.assert_close(prior.mean + s * found.mu, expected.mean)
    torch.testing.assert_close(s * (0.5 * found.logvar).exp(), expected.stddev)
    torch.testing.assert_close(gaussian_kl(found), kl_divergence(expected, Normal(prior.mean, s)))


def test_far_apart_estimates_stay_finite() -> None:
    far = Estimates(torch.tensor([1e3, -1e3]), torch.tensor([-20.0, 20.0]))
    for posterior in (merged(far, Estimates(-far.mean, -far.logvar)), merged(far, far)):
        assert all(values.isfinite().all() for values in posterior)


def test_a_step_draws_the_top_and_then_the_bottom_given_it() -> None:
    """The whole loss, from the model's layers and the paper's formulas in z_bottom's own units."""
    model, x = made(likelihood="gaussian").eval(), frames(4)
    noise = torch.randn(4, TOP + BOTTOM, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        loss = model.loss(Batch(x, None, noise, 0, lambda mean: mean))
        features = model.encoder(x).flatten(start_dim=1)
        mean, logvar = model.to_top(features).chunk(2, dim=1)
        top = Normal(mean, (0.5 * logvar).exp())
        z_top = mean + top.stddev * noise[:, :TOP]
        prior = Estimates(*model.top_down(z_top).chunk(2, dim=1))
        bottom = weighted(Estimates(*model.to_bottom(features).chunk(2, dim=1)), prior)
        z_bottom = bottom.mean + bottom.stddev * noise[:, TOP:]
        decoded = torch.sigmoid(model.decoder(model.from_latent(z_bottom).unflatten(1, model._bottom)))
        kl_top = kl_divergence(top, Normal(0.0, 1.0)).sum(dim=1).mean()
        kl_bottom = kl_divergence(bottom, Normal(prior.mean, (0.5 * prior.logvar).exp())).sum(dim=1).mean()
        error = (decoded - x).square().sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(loss.figures["kl_top"], kl_top)
    torch.testing.assert_close(loss.figures["kl_bottom"], kl_bottom)
    torch.testing.assert_close(loss.minimised, error + kl_top + kl_bottom, rtol=1e-4, atol=1e-3)


def test_what_is_stored_is_given_the_mean_of_the_top_and_decodes_to_the_posteriors_mean() -> None:
    model, x = made().eval(), frames(4)
    with torch.no_grad():
        found = model.encode(x)
        drawn = model.posterior(x, None, torch.zeros(4, TOP + BOTTOM))
        features = model.encoder(x).flatten(start_dim=1)
        prior = model.prior_of_bottom(found["mu"][:, :TOP])
        z_bottom = weighted(Estimates(*model.to_bottom(features).chunk(2, dim=1)), prior).mean
        decoded = torch.sigmoid(model.decoder(model.from_latent(z_bottom).unflatten(1, model._bottom)))
    torch.testing.assert_close(Posterior(**found), drawn)
    torch.testing.assert_close(model.decode(found), decoded, rtol=1e-4, atol=1e-5)


def test_the_columns_name_the_levels_side_by_side() -> None:
    columns, (draw,) = made().latents("float16")
    assert [(each.name, each.dtype, each.row_shape) for each in columns] == [(name, "float16", (5,)) for name in draw.columns]
    assert columns[0].parts == ("top_0", "top_1", "bottom_0", "bottom_1", "bottom_2")
    assert draw.name == "z"


def scores_of(mu: torch.Tensor) -> Scores:
    return Scores(latents={"mu": mu, "logvar": torch.zeros_like(mu)}, measures={}, num_values=1)


@pytest.mark.parametrize(("unused", "level"), [(slice(TOP), "top"), (slice(TOP, None), "bottom")])
def test_a_level_that_is_not_used_is_told(unused: slice, level: str) -> None:
    model, mu = made(), torch.randn(50, TOP + BOTTOM, generator=torch.Generator().manual_seed(0))
    mu[:, unused] = 0.0
    figures, health = model.figures(scores_of(mu)), model.health(scores_of(mu))
    assert figures[f"active_{level}"] == 0
    assert figures["active_top"] + figures["active_bottom"] == figures["active_units"]
    assert figures["kl_top_nats"] + figures["kl_bottom_nats"] == pytest.approx(figures["kl_nats"])
    (finding,) = model.findings(900, figures, health)
    assert not finding.is_collapse
    assert finding.text == (
        f"step 900: the {level} level is not used (KL 0 nats, 0 of {TOP if level == 'top' else BOTTOM} latents are active); "
        "lengthen beta_warmup_steps, use free_bits, or train autoencoder='gaussian', which has one level"
    )
    full = torch.randn(50, TOP + BOTTOM, generator=torch.Generator().manual_seed(0))
    assert model.findings(900, model.figures(scores_of(full)), model.health(scores_of(full))) == []


def test_a_condition_reaches_encoder_and_decoder() -> None:
    model = made(condition=("speed",), condition_dim=1).eval()
    model.standardise_by(torch.tensor([3.0]), torch.tensor([2.0]))
    x, conditions = frames(4), [torch.full((4, 1), value) for value in (-50.0, 50.0)]
    with torch.no_grad():
        mu = [model.encode(x, condition)["mu"] for condition in conditions]
        drawn = [model.decode({"mu": mu[0]}, condition) for condition in conditions]
    assert not torch.allclose(mu[0][:, :TOP], mu[1][:, :TOP])
    assert not torch.allclose(mu[0][:, TOP:], mu[1][:, TOP:])
    assert not torch.allclose(*drawn)
