"""The total correlation of latents: both estimators against exact values, in a training, and what they refuse."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from tests.commands import run
from tests.training.test_sharpness import TOKENIZER, own_config
from tests.training.test_train import config, lines
from worldmodel_v.autoencoders import Batch, Drawn
from worldmodel_v.autoencoders.base import Finding
from worldmodel_v.autoencoders.gaussian.posterior import gaussian_log_density
from worldmodel_v.errors import ConfigError
from worldmodel_v.storage import open_dataset
from worldmodel_v.training import TrainConfig, train
from worldmodel_v.training.checkpoint import load_checkpoint
from worldmodel_v.training.correlation.discriminated import DiscriminatedCorrelation, permuted
from worldmodel_v.training.correlation.health import judge_latent_discriminator, judge_overlap
from worldmodel_v.training.correlation.sampled import KLParts, kl_parts, stratified_log_weights
from worldmodel_v.training.extras import Made
from worldmodel_v.training.run import TrainingRun
from worldmodel_v.training.share import ALONE
from worldmodel_v.training.window import WINDOW, WindowWatch

CPU = torch.device("cpu")
BOTH = ["sampling", "discriminator"]
GRIDS = {"spatial": {"latent_grid": 2}, "fsq": {"token_grid": 2}, "vq": {"token_grid": 2}}
"""Of frames of 8x8."""


def posteriors(count: int, size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """mu and logvar (count, size) whose latents depend on each other, and a z of each: float64."""
    generator = torch.Generator().manual_seed(seed)
    mu = torch.randn(count, size, generator=generator, dtype=torch.float64).cumsum(dim=1)
    logvar = torch.randn(count, size, generator=generator, dtype=torch.float64) - 1
    noise = torch.randn(count, size, generator=generator, dtype=torch.float64)
    return mu, logvar, mu + torch.exp(0.5 * logvar) * noise


def parts_of(z: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor, num_frames: int) -> KLParts:
    return kl_parts(z, (mu, logvar), gaussian_log_density, num_frames)


class TestSampling:
    def test_the_log_density_is_that_of_torch(self) -> None:
        mu, logvar, z = posteriors(5, 3)
        torch.testing.assert_close(gaussian_log_density(z, mu, logvar), Normal(mu, torch.exp(0.5 * logvar)).log_prob(z))

    @pytest.mark.parametrize("num_frames", [6, 1000])
    def test_the_parts_sum_to_the_kl_of_the_same_samples(self, num_frames: int) -> None:
        mu, logvar, z = posteriors(6, 3)
        parts = parts_of(z, mu, logvar, num_frames)
        kl = (Normal(mu, torch.exp(0.5 * logvar)).log_prob(z) - Normal(0, 1).log_prob(z)).sum(dim=1).mean()
        total = parts.mutual_information + parts.total_correlation + parts.dimension_wise_kl
        torch.testing.assert_close(total, kl, rtol=1e-12, atol=0)

    def test_a_batch_that_is_the_dataset_gives_each_part_of_the_mixture(self) -> None:
        """q(z) and its marginals are mixtures of all posteriors, written down one z at a time."""
        mu, logvar, z = posteriors(4, 2)
        expected = np.zeros(3)
        for each, (m, s) in zip(z, zip(mu, logvar, strict=True), strict=True):
            densities = Normal(mu, torch.exp(0.5 * logvar)).log_prob(each).exp()
            own = Normal(m, torch.exp(0.5 * s)).log_prob(each).sum()
            joint, marginals = densities.prod(dim=1).mean().log(), densities.mean(dim=0).log().sum()
            prior = Normal(0, 1).log_prob(each).sum()
            expected += np.array([own - joint, joint - marginals, marginals - prior]) / len(z)
        assert [float(part) for part in parts_of(z, mu, logvar, 4)[:3]] == pytest.approx(list(expected), rel=1e-9)

    def test_the_estimate_of_the_aggregate_has_no_bias(self) -> None:
        """Its mean over all batches of 3 that hold frame 0 of 6 is the mixture of all 6."""
        mu, logvar, z = posteriors(6, 2)
        density = Normal(mu, torch.exp(0.5 * logvar)).log_prob(z[0]).sum(dim=1).exp()
        weights = stratified_log_weights(z[:3], 6).exp()
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(3, dtype=torch.float64))
        batches = [[0, i, j] for i in range(1, 6) for j in range(1, 6) if i != j]
        mean = torch.stack([(weights[0] * density[batch]).sum() for batch in batches]).mean()
        torch.testing.assert_close(mean, density.mean())

    def test_independent_latents_have_none(self) -> None:
        """mu on a grid, so that the aggregate is a product: the parts are its exact values for every sample."""
        values = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)
        mu = torch.cartesian_prod(values, values)
        z = mu + 0.3
        parts = parts_of(z, mu, torch.zeros_like(mu), len(mu))
        assert abs(float(parts.total_correlation)) < 1e-12
        assert float(parts.mutual_information) > 0.5

    def test_posteriors_that_are_equal_say_nothing(self) -> None:
        z = posteriors(8, 3)[2]
        parts = parts_of(z, torch.zeros_like(z), torch.zeros_like(z), 100)
        assert [float(part) for part in parts] == pytest.approx([0, 0, 0, 0.99], abs=1e-12)

    def test_correlated_latents_have_that_of_their_gaussian(self) -> None:
        """mu ~ N(0, S) and σ² = 0.5: q(z) is N(0, S + I / 2), whose total correlation is known in closed form."""
        covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
        torch.manual_seed(0)
        mu = MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance).sample((2000,))
        logvar = torch.full_like(mu, math.log(0.5))
        parts = parts_of(mu + math.sqrt(0.5) * torch.randn_like(mu), mu, logvar, 2000)
        correlation = 0.9 / 1.5
        assert float(parts.total_correlation) == pytest.approx(-0.5 * math.log(1 - correlation**2), abs=0.03)
        assert float(parts.dimension_wise_kl) == pytest.approx(0.5 - math.log(1.5), abs=0.03)
        information = 0.5 * math.log(float(torch.det(covariance + 0.5 * torch.eye(2, dtype=torch.float64))) / 0.25)
        assert float(parts.mutual_information) == pytest.approx(information, abs=0.03)

    def test_without_overlap_it_counts_the_information_of_each_latent(self) -> None:
        mu = torch.arange(4, dtype=torch.float64)[:, None].expand(4, 2) * 1000
        parts = parts_of(mu + 0.1, mu, torch.zeros_like(mu), 50)
        assert float(parts.overlap) == pytest.approx(0, abs=1e-12)
        assert float(parts.mutual_information) == pytest.approx(math.log(50))
        assert float(parts.total_correlation) == pytest.approx(2 * math.log(50) - math.log(50))


def made_of(z: torch.Tensor, step: int = 0) -> Made:
    """As of an autoencoder; the discriminator needs z alone."""
    drawn = Drawn(z.requires_grad_(), (), gaussian_log_density, 1.0)
    batch = Batch(z, None, z.detach(), step, lambda mean: mean)
    return Made(batch, lambda: pytest.fail("no picture is needed"), torch.tensor(0.0), nn.Identity(), drawn)  # type: ignore[arg-type]


class TestDiscriminator:
    def test_permuted_latents_are_the_same_ones_in_other_rows(self) -> None:
        z = torch.randn(50, 4)
        mixed = permuted(z, torch.Generator().manual_seed(1))
        assert torch.equal(mixed.sort(dim=0).values, z.sort(dim=0).values)
        orders = [[z[:, j].tolist().index(value) for value in mixed[:, j].tolist()] for j in range(4)]
        assert all(orders[j] != orders[k] for j in range(4) for k in range(j))
        assert torch.equal(mixed, permuted(z, torch.Generator().manual_seed(1)))

    @pytest.mark.parametrize("correlation", [0.0, 0.8])
    def test_it_finds_the_total_correlation_of_a_gaussian(self, correlation: float) -> None:
        torch.manual_seed(0)
        estimator = DiscriminatedCorrelation(1.0, 2, 0, CPU)
        gaussian = MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, correlation], [correlation, 1.0]]))
        found, bits = [], []
        for step in range(80):
            term = estimator.term(made_of(gaussian.sample((256,)), step))
            assert term.value.requires_grad
            found.append(float(torch.as_tensor(term.figures["total_correlation"]).detach()))
            bits.append(float(estimator.learn(ALONE, 10.0)["latent_discriminator_loss"]))
        assert bits[0] == pytest.approx(1, abs=0.01)
        exact = -0.5 * math.log(1 - correlation**2)
        assert sum(found[-20:]) / 20 == pytest.approx(exact, abs=0.08)

    def test_its_loss_is_a_bit_if_it_guesses(self) -> None:
        estimator = DiscriminatedCorrelation(1.0, 3, 0, CPU)
        with torch.no_grad():
            for each in estimator._network.parameters():
                each.zero_()
        estimator.term(made_of(torch.randn(4, 3)))
        assert float(estimator.learn(ALONE, 1.0)["latent_discriminator_loss"]) == pytest.approx(1)


def own_step(data: Path, **settings: object) -> tuple[dict[str, float], TrainingRun]:
    running = TrainingRun(config(data, Path(), batch_size=32, **settings), {}, CPU, open_dataset(data), None)
    batches = running.batches()
    terms = running.take_step(next(batches))
    batches.close()
    return {name: float(value) for name, value in terms.items()}, running


@pytest.mark.parametrize("likelihood", ["gaussian", "calibrated"])
@pytest.mark.parametrize("estimator", BOTH)
def test_what_is_minimised_has_the_weighted_nats(tiny_rollouts: Path, likelihood: str, estimator: str) -> None:
    """In the units of the loss, of which a nat is 2 σ²; the number of frames is that of the training episodes."""
    changes = {"total_correlation": 3.0, "total_correlation_estimator": estimator, "sigma": 0.5, "beta_warmup_steps": 0}
    if likelihood == "calibrated":
        del changes["sigma"]
    terms, running = own_step(tiny_rollouts, likelihood=likelihood, **changes)
    nat = 2 * (0.5**2 if likelihood == "gaussian" else 0.5)
    assert terms["minimised"] == pytest.approx(nat * (terms["loss"] + 3 * terms["total_correlation"]), rel=1e-5)
    assert running._num_frames() == 6 * 20
    if estimator == "sampling":
        assert 0 < terms["overlap"] < 1
        total = terms["mutual_information"] + terms["total_correlation"] + terms["dimension_wise_kl"]
        assert total == pytest.approx(terms["kl"], abs=1.0)  # that one is exact, this one of samples


@pytest.mark.parametrize("num_frames", [200, 10_000])
def test_descending_the_estimate_makes_latents_independent(num_frames: int) -> None:
    """Posteriors that are free to move, all of one width: their means lose their correlation."""
    torch.manual_seed(0)
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    mu = MultivariateNormal(torch.zeros(2), covariance).sample((200,)).requires_grad_()
    optimizer = torch.optim.Adam([mu], lr=0.02)
    logvar = torch.full_like(mu, math.log(0.3))
    assert torch.corrcoef(mu.detach().T)[0, 1] > 0.85
    for _ in range(150):
        optimizer.zero_grad()
        z = mu + math.sqrt(0.3) * torch.randn_like(mu)
        kl_parts(z, (mu, logvar), gaussian_log_density, num_frames).total_correlation.backward()
        optimizer.step()
    assert abs(torch.corrcoef(mu.detach().T)[0, 1]) < 0.4
    assert (mu.detach().std(dim=0) > 0.5).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"total_correlation": 2.0, "likelihood": "calibrated"},
        {"total_correlation": 2.0, "total_correlation_estimator": "discriminator", "precision": "bf16"},
        {
            **{"total_correlation": 2.0, "total_correlation_estimator": "discriminator", "checkpoint_activations": True},
            **{"adversarial": 0.5, "adversarial_start": 2, "schedule": "cosine"},
        },
    ],
    ids=str,
)
def test_a_training_that_was_stopped_at_any_step_is_resumed_exactly(
    tiny_rollouts: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    from tests.extending.own_loop import train_until

    train(config(tiny_rollouts, tmp_path / "unbroken", **changes))
    stopped = config(tiny_rollouts, tmp_path / "stopped", **changes)
    for step in (1, 3, 4):
        train_until(stopped, step)
    assert train(stopped).new_steps == 2
    one, other = tmp_path / "stopped", tmp_path / "unbroken"
    assert (one / "vae.safetensors").read_bytes() == (other / "vae.safetensors").read_bytes()
    first, second = load_checkpoint(one), load_checkpoint(other)
    assert first is not None
    assert second is not None
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())
    has_network = "total_correlation_estimator" in changes
    assert any(name.startswith("extra.total_correlation.optimizer.") for name in first.tensors) == has_network
    assert {"total_correlation", "minimised"} <= lines(one, "train")[-1].keys()
    assert b"total_correlation" not in (one / "vae.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of PyTorch's compiler, about itself
@pytest.mark.parametrize("estimator", BOTH)
def test_a_compiled_training_is_the_same_but_for_rounding(tiny_rollouts: Path, tmp_path: Path, estimator: str) -> None:
    found = {}
    for compile in (False, True):
        out = tmp_path / str(compile)
        settings = {"steps": 3, "total_correlation": 2.0, "total_correlation_estimator": estimator, "compile": compile}
        train(config(tiny_rollouts, out, **settings))
        found[compile] = [line["minimised"] for line in lines(out, "train")]
    assert found[True] == pytest.approx(found[False], rel=1e-4)


def test_the_identity_names_what_has_an_effect(tmp_path: Path) -> None:
    assert not {name for name in config(tmp_path, tmp_path).identity() if "correlation" in name}
    named = {name for name in config(tmp_path, tmp_path, total_correlation=1.0).identity() if "correlation" in name}
    assert named == {"total_correlation", "total_correlation_estimator"}


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"total_correlation": -1.0}, "total_correlation: expected at least 0, got -1.0"),
            (
                {"total_correlation_estimator": "discriminator"},
                "total_correlation_estimator='discriminator': is for total_correlation, which is 0; leave it out",
            ),
            (
                {"total_correlation": 1.0, "batch_size": 1},
                "batch_size=1: says nothing of how latents depend on each other, which total_correlation asks for; expected at "
                "least 2; a few hundred are better",
            ),
        ],
    )
    def test_what_makes_no_sense(self, changes: dict[str, object], text: str) -> None:
        with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
            TrainConfig(data="data", out="out", **changes)  # type: ignore[arg-type]

    @pytest.mark.parametrize("kind", ["spatial", "ladder", "fsq", "vq", "categorical", TOKENIZER])
    @pytest.mark.parametrize("estimator", BOTH)
    def test_latents_that_are_no_vector_of_independent_numbers(
        self, tiny_rollouts: Path, tmp_path: Path, kind: str, estimator: str
    ) -> None:
        wanted = {"total_correlation": 1.0, "total_correlation_estimator": estimator, **GRIDS.get(kind, {})}
        text = (
            f"autoencoder='{kind}': its latents are no vector of real numbers that are independent, given the frame "
            "(Loss.drawn), so their total correlation cannot be measured; leave total_correlation out, or "
            "train autoencoder='gaussian'"
        )
        with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
            train(own_config(tiny_rollouts, tmp_path / "vae", kind, **wanted))
        assert not (tmp_path / "vae").exists()

    def test_a_single_latent(self, tiny_rollouts: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="only several numbers in a vector can be dependent; leave total_corr"):
            train(config(tiny_rollouts, tmp_path / "vae", latent_dim=1, total_correlation=1.0))


class TestHealth:
    @pytest.mark.parametrize(
        ("judge", "value", "name"),
        [
            (judge_overlap, 0.01, "no_overlap"),
            (judge_overlap, 0.3, None),
            (judge_latent_discriminator, 0.01, "latent_discriminator_wins"),
            (judge_latent_discriminator, 1.0, None),
        ],
    )
    def test_an_estimate_that_says_nothing_is_found_after_a_window(
        self, judge: Callable[[int, float], Finding | None], value: float, name: str | None
    ) -> None:
        watch = WindowWatch("figure", judge)
        findings = [watch.judge(step, {"figure": value}) for step in range(1000, 1000 + WINDOW + 1, 20)]
        assert findings[:-1] == [None] * (len(findings) - 1)
        assert (findings[-1].name if findings[-1] else None) == name

    def test_the_watch_of_a_training_warns_of_it_once_the_kl_has_its_weight(self) -> None:
        from tests.training.test_health import watch

        watcher, said = watch()
        for step in range(0, 1200, 20):
            watcher.losses(step, {"overlap": 0.0})
        assert said == []
        for step in range(2000, 3000, 20):
            watcher.losses(step, {"overlap": 0.0})
        assert len(said) == 1
        assert "the posteriors of a batch hardly overlap (0.000 over 200 steps" in said[0]


@pytest.mark.parametrize("estimator", BOTH)
def test_a_whole_training_from_the_command_line_and_its_report(stamp_rollouts: Path, tmp_path: Path, estimator: str) -> None:
    out, eval_ = tmp_path / "vae", tmp_path / "eval"
    words = ["--data", stamp_rollouts, "--device", "cpu"]
    training = [
        "--out",
        out,
        "--steps",
        12,
        "--batch-size",
        16,
        "--architecture",
        "conv",
        "--holdout-every",
        4,
        "--log-every",
        4,
    ]
    run("wm-train", *words, *training, "--total-correlation", 5, "--total-correlation-estimator", estimator)
    own = {"mutual_information", "dimension_wise_kl", "overlap"} if estimator == "sampling" else {"latent_discriminator_loss"}
    assert {"total_correlation", "minimised", *own} <= lines(out, "train")[-1].keys()
    run("wm-eval", *words, "--vae", out, "--out", eval_, "--frames", 50)
    page = (eval_ / "report.html").read_text()
    assert f"total_correlation 5.0, total_correlation_estimator {estimator}" in page
    assert "Total correlation of the latents (nats)" in page
