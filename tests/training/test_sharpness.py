"""Losses against blur: exact values, what they do to a step, and which they refuse."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands import run
from tests.extending.my_tokenizer import Tokenizer
from tests.training.test_train import config, lines
from worldmodel_v.autoencoders import Batch, Loss, Reconstructed, registry
from worldmodel_v.autoencoders.artifact import read_training
from worldmodel_v.autoencoders.reconstruction import reconstructed
from worldmodel_v.data import read_frames
from worldmodel_v.errors import ConfigError, ModelNotUsable, OutputNotUsable
from worldmodel_v.evaluation import evaluate_frames
from worldmodel_v.storage import open_dataset
from worldmodel_v.training import LoopConfig, TrainConfig, train, train_config
from worldmodel_v.training.checkpoint import load_checkpoint
from worldmodel_v.training.extras import Extras, Made
from worldmodel_v.training.run import TrainingRun
from worldmodel_v.training.sharpness.adversarial import DELTA, MAX_ADAPTIVE_WEIGHT, Adversarial, adaptive_weight, last_layer
from worldmodel_v.training.sharpness.discriminator import Discriminator, discriminator_loss, generator_loss
from worldmodel_v.training.sharpness.error_weights import WeightedErrors, error_weights, gradient
from worldmodel_v.training.sharpness.health import judge_discriminator
from worldmodel_v.training.sharpness.perceptual import feature_distance, load_network
from worldmodel_v.training.window import WINDOW, WindowWatch

NETWORKS = "tests.training.perceptual_networks"
TOKENIZER = "tests.extending.my_tokenizer:Tokenizer"
ALL = {"error_weight": "gradient", "adversarial": 0.5, "adversarial_start": 2, "perceptual": 0.1}
CPU = torch.device("cpu")


def pictures(count: int = 4, size: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def made_of(model: nn.Module, x: torch.Tensor, frames: torch.Tensor, minimised: torch.Tensor) -> Made:
    batch, made = Batch(x, None, None, 0, lambda mean: mean), Reconstructed(frames, (frames - x).square())
    return Made(batch, lambda: made, minimised, model)  # type: ignore[arg-type]


class TestErrorWeights:
    @pytest.mark.parametrize("kind", ["gradient", "error"])
    def test_their_mean_is_one_for_each_frame_and_none_is_below_a_half(self, kind: str) -> None:
        x, frames = pictures(), pictures(seed=1)
        x[0] = frames[0] = 0.5  # no edge and no error
        weights = error_weights(kind, x, frames).expand_as(x)  # type: ignore[arg-type]
        torch.testing.assert_close(weights.mean(dim=(1, 2, 3)), torch.ones(4))
        assert weights.min() >= 0.5
        assert (weights[0] == 1).all()
        assert weights[1].max() > 1.2

    def test_a_dot_and_its_neighbours_have_the_gradient_by_hand(self) -> None:
        x = torch.zeros(1, 1, 5, 5)
        x[0, 0, 2, 2] = 0.5
        expected = torch.zeros(5, 5)
        expected[2, 2] = math.sqrt(4 * 0.25)
        expected[1, 2] = expected[3, 2] = expected[2, 1] = expected[2, 3] = 0.5
        assert gradient(x)[0, 0].tolist() == expected.tolist()
        weights = error_weights("gradient", x, x)[0, 0]
        assert weights[2, 2].item() == pytest.approx(0.5 + 0.5 * 1 / (3 / 25))

    def test_errors_weigh_themselves_as_a_constant(self) -> None:
        x, frames = torch.zeros(1, 1, 1, 4), torch.tensor([[[[0.1, 0.3, 0.0, 0.0]]]], requires_grad=True)
        made = made_of(nn.Linear(1, 1), x, frames, torch.tensor(0.0))
        term = WeightedErrors("error").term(made)
        assert float(term.figures["weighted_error"].detach()) == pytest.approx(0.01 * 1.0 + 0.09 * 2.0)
        assert float(term.value.detach()) == pytest.approx(0.01 * 0.0 + 0.09 * 1.0)
        term.value.backward()
        assert frames.grad is not None
        torch.testing.assert_close(frames.grad[0, 0, 0], torch.tensor([0.0, 2 * 0.3, 0.0, 0.0]))

    @pytest.mark.parametrize("kind", ["fsq", "vq", "categorical", "gaussian"])
    @pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
    def test_the_errors_that_autoencoders_tell_are_those_in_their_loss(self, kind: str, likelihood: str) -> None:
        settings = train_config(kind)(data="d", out="o", autoencoder=kind, likelihood=likelihood)
        built = registry.configure(kind, settings, frame_height=16, frame_width=16, condition_dim=0)
        model, x = registry.create(kind, built).eval(), pictures()
        noise = None if model.noise_shape is None else torch.randn(4, *model.noise_shape)
        loss = model.loss(Batch(x, None, noise, 0, lambda mean: mean))
        assert loss.reconstructed is not None
        made = loss.reconstructed()
        reconstruction = loss.figures.get("reconstruction", loss.minimised)
        torch.testing.assert_close(made.errors.flatten(1).sum(1).mean(), reconstruction)
        assert made.frames.shape == x.shape
        assert 0 <= made.frames.min() <= made.frames.max() <= 1

    def test_cross_entropies_are_the_errors_of_probabilities(self) -> None:
        x, logits = pictures(1), torch.randn(1, 3, 16, 16)
        made = reconstructed("bernoulli", logits, x)
        torch.testing.assert_close(made.errors, nn.functional.binary_cross_entropy(made.frames, x, reduction="none"))


class TestDiscriminator:
    def test_hinge_losses_by_hand(self) -> None:
        real, made = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.5, 0.0])
        assert discriminator_loss(real, made).item() == pytest.approx(((0 + 0.5 + 2) / 3 + (0 + 1.5 + 1) / 3) / 2)
        assert discriminator_loss(torch.zeros(3), torch.zeros(3)).item() == 1
        assert generator_loss(made).item() == pytest.approx(2.5 / 3)

    def test_the_norm_of_every_layer_is_one_also_after_steps(self) -> None:
        torch.manual_seed(0)
        network = Discriminator(3)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for _ in range(30):
            optimizer.zero_grad()
            discriminator_loss(*network(torch.cat([pictures(2), 0.5 * pictures(2)])).scores.chunk(2)).backward()
            optimizer.step()
        for layer in (*network.hidden, network.score):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2) <= 1.05

    def test_it_judges_frames_of_any_size_patch_by_patch(self) -> None:
        judged = Discriminator(1)(torch.rand(2, 1, 24, 40))
        assert judged.scores.shape == (2, 1, 3, 5)
        assert [each.shape[1:] for each in judged.features] == [(32, 12, 20), (64, 6, 10), (128, 3, 5)]

    def test_it_tells_recorded_frames_from_blurred_ones_after_some_steps(self) -> None:
        torch.manual_seed(0)
        adversarial = Adversarial(0.0, 1.0, 0, 3, CPU)
        x = pictures(8)
        blurred = nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
        from worldmodel_v.training.share import ALONE

        losses = []
        for _ in range(150):
            adversarial.term(made_of(nn.Linear(1, 1), x, blurred, torch.tensor(0.0)))
            losses.append(float(adversarial.learn(ALONE, 1.0)["discriminator_loss"]))
        assert losses[0] > 0.9
        assert losses[-1] < 0.5


class TestAdaptiveWeight:
    def test_it_is_the_ratio_of_gradients_at_the_last_layer(self) -> None:
        model = nn.Module()
        model.decoder = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 3, bias=False))
        out = model.decoder(torch.ones(1, 2))
        rec, gan = (3 * out).square().sum(), -0.01 * out.sum()
        hidden = model.decoder[0](torch.ones(1, 2)).detach()
        of_rec = (18 * out.detach()).T @ hidden
        of_gan = torch.full((3, 1), -0.01) @ hidden
        made = made_of(model, pictures(1), pictures(1), rec)
        expected = of_rec.norm() / (of_gan.norm() + DELTA)
        torch.testing.assert_close(adaptive_weight(made, rec, gan), expected)
        assert not adaptive_weight(made, rec, gan).requires_grad
        assert adaptive_weight(made, rec, 0 * gan).item() == MAX_ADAPTIVE_WEIGHT

    @pytest.mark.parametrize("kind", list(registry.BUILT_IN))
    def test_the_last_layer_draws_the_frame(self, kind: str) -> None:
        built = registry.configure(
            kind, train_config(kind)(data="d", out="o", autoencoder=kind), frame_height=16, frame_width=16, condition_dim=0
        )
        model = registry.create(kind, built)
        assert last_layer(model) is list(model.decoder.modules())[-1].weight


def test_the_distance_of_features_by_hand() -> None:
    real, made = [torch.zeros(1, 2, 2, 2), torch.zeros(1, 4)], [torch.full((1, 2, 2, 2), 0.5), torch.tensor([[1.0, 0, 0, 0]])]
    assert feature_distance(real, made, 12).item() == 12 * (0.25 + 0.25)
    assert feature_distance(real, real, 12).item() == 0


@pytest.mark.parametrize("kind", ["gaussian", "fsq"])
def test_all_of_them_together_are_recorded_and_add_up(tiny_rollouts: Path, tmp_path: Path, kind: str) -> None:
    settings = {"steps": 4, "batch_size": 32, "holdout_every": 4, "device": "cpu", "log_every": 1, "checkpoint_every": 4}
    grid = {"token_grid": 2} if kind == "fsq" else {}
    train(train_config(kind)(data=tiny_rollouts, out=tmp_path / "vae", autoencoder=kind, **settings, **grid, **ALL))
    before, after = lines(tmp_path / "vae", "train")[:2], lines(tmp_path / "vae", "train")[2:]
    for record in before:
        assert not {"generator_loss", "discriminator_loss", "adversarial_weight", "perceptual"} & record.keys()
    for record in after:
        assert record["perceptual"] > 0
        assert record["adversarial_weight"] > 0
        assert 0 < record["discriminator_loss"] <= 1.5
        if kind == "fsq":  # its own loss is the sum of errors
            added = 0.1 * record["perceptual"] + record["adversarial_weight"] * record["generator_loss"]
            assert record["minimised"] == pytest.approx(record["weighted_error"] + added, rel=1e-4)
            assert record["loss"] != pytest.approx(record["weighted_error"], rel=1e-3)


def own_step(data: Path, **settings: object) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    run = TrainingRun(config(data, Path(), batch_size=32, **settings), {}, CPU, open_dataset(data), None)
    batches = run.batches()
    terms = run.take_step(next(batches))
    batches.close()
    return {name: float(value) for name, value in terms.items()}, run.checkpoint().tensors


def test_without_them_nothing_is_recorded_added_or_saved(tiny_rollouts: Path) -> None:
    plain = config(tiny_rollouts, Path("out"))
    assert not {name for name in plain.identity() if "adversarial" in name or "perceptual" in name or "error" in name}
    terms, tensors = own_step(tiny_rollouts)
    assert "minimised" not in terms
    assert not [name for name in tensors if name.startswith("extra.")]
    objective = lambda batch: None  # noqa: E731
    assert Extras().around(None, objective) is objective  # type: ignore[arg-type]


def test_before_its_start_a_discriminator_changes_no_weight(tiny_rollouts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldmodel_v.training.parts.MOST_PARTS", 1)
    (_, plain), (_, waiting) = (own_step(tiny_rollouts, **each) for each in ({}, {"adversarial": 1.0, "adversarial_start": 3}))
    assert all(torch.equal(waiting[name], tensor) for name, tensor in plain.items())


def test_the_identity_names_what_has_an_effect(tmp_path: Path) -> None:
    def identity(**settings: object) -> set[str]:
        names = config(tmp_path, tmp_path, steps=2000, **settings).identity()
        return {name for name in names if any(word in name for word in ("adversarial", "perceptual", "error"))}

    assert identity(error_weight="error") == {"error_weight"}
    assert identity(adversarial=0.5) == {"adversarial", "adversarial_start"}
    assert identity(perceptual=0.5) == {"perceptual", "perceptual_network", "adversarial_start"}
    own = {"perceptual", "perceptual_network", "perceptual_network_sha256"}
    assert identity(perceptual=0.5, perceptual_network=f"{NETWORKS}:edges") == own


@pytest.mark.parametrize(
    "changes",
    [
        {"likelihood": "calibrated", **ALL},
        {"adversarial": 1.0, "adversarial_start": 2, "precision": "bf16", "optimizer": "sgd", "learning_rate": 1e-6},
        {"adversarial": 1.0, "adversarial_start": 4, "checkpoint_activations": True},
        {"perceptual": 1.0, "perceptual_network": f"{NETWORKS}:edges", "channels": 1, "schedule": "cosine"},
    ],
    ids=str,
)
def test_a_training_that_was_stopped_at_any_step_is_resumed_exactly(
    tiny_rollouts: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    from tests.extending.own_loop import train_until

    train(config(tiny_rollouts, tmp_path / "unbroken", **changes))
    stopped = config(tiny_rollouts, tmp_path / "stopped", **changes)
    for step in (1, 3, 4, 5):
        train_until(stopped, step)
    assert train(stopped).new_steps == 1
    for name in ("checkpoint.safetensors", "vae.safetensors"):
        one, other = ((tmp_path / run) for run in ("stopped", "unbroken"))
        if name.startswith("vae"):
            assert (one / name).read_bytes() == (other / name).read_bytes()
    first, second = load_checkpoint(tmp_path / "stopped"), load_checkpoint(tmp_path / "unbroken")
    assert first is not None
    assert second is not None
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())
    assert any(name.startswith("extra.") for name in first.tensors)
    weights = (tmp_path / "stopped" / "vae.safetensors").read_bytes()
    assert b"extra." not in weights
    assert b"discriminator" not in weights


def test_evaluations_know_nothing_of_the_weights(tiny_rollouts: Path, tmp_path: Path) -> None:
    """The bound that training records of held-out frames is the one that any VAE with these weights has."""
    from worldmodel_v.autoencoders.gaussian import load_vae

    report = train(config(tiny_rollouts, tmp_path / "vae", error_weight="error"))
    frames = read_frames(open_dataset(tiny_rollouts), lambda episode: episode % 4 == 3, 2000)
    again = evaluate_frames(load_vae(tmp_path / "vae").model, frames, CPU)
    assert report.heldout["elbo_nats"] == pytest.approx(again["elbo_nats"], rel=1e-6)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"adversarial": -1.0}, "adversarial: expected at least 0, got -1.0"),
            ({"perceptual": -0.1}, "perceptual: expected at least 0, got -0.1"),
            (
                {"adversarial": 1.0, "steps": 500},
                "adversarial_start=1000: leaves no steps of 500 for the discriminator; lower it, or ask for more steps",
            ),
            ({"adversarial_start": 5}, "adversarial_start=5: no discriminator is trained; leave it out"),
            (
                {"perceptual_network": f"{NETWORKS}:edges"},
                f"perceptual_network='{NETWORKS}:edges': is for perceptual, which is 0; leave it out",
            ),
            (
                {"adversarial": 1.0, "adversarial_start": 1, "compile": True},
                "compile=True: cannot be combined with adversarial, which needs gradients of the decoder's last layer alone; "
                "leave it out",
            ),
        ],
    )
    def test_what_makes_no_sense(self, changes: dict[str, object], text: str) -> None:
        with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
            TrainConfig(data="data", out="out", **changes)  # type: ignore[arg-type]

    def test_an_unknown_weighting(self) -> None:
        with pytest.raises(ConfigError, match=r"^error_weight: expected"):
            TrainConfig(data="data", out="out", error_weight="edges")  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("vgg16", "unknown; expected discriminator, or module:factory of your own"),
            ("no_such_module:x", "cannot be loaded: No module named 'no_such_module'"),
            (f"{NETWORKS}:NOT_CALLABLE", "NOT_CALLABLE is not callable; expected a factory"),
            (f"{NETWORKS}:fails", "cannot be built: RuntimeError: no weights here; it is called as factory()"),
            (f"{NETWORKS}:no_module", "returned a str; expected a torch.nn.Module"),
            (f"{NETWORKS}:no_list", "gives a Tensor; expected a list of feature maps"),
            (f"{NETWORKS}:no_maps", "gives no feature map; expected"),
            (f"{NETWORKS}:whole_numbers", "gives a Tensor among them that is no tensor of floats; expected"),
            (f"{NETWORKS}:one_for_all", "gives a map of the shape (1, 3, 8, 8) for two frames; expected"),
            (f"{NETWORKS}:constant", "gives a map without gradients; expected"),
            (f"{NETWORKS}:infinite", "gives a map with NaN or infinite values for a black frame; expected"),
            (f"{NETWORKS}:wants_one_channel", "fails on frames: RuntimeError: "),
        ],
    )
    def test_a_perceptual_network_that_gives_nonsense(self, name: str, text: str) -> None:
        with pytest.raises(ConfigError, match=f"^perceptual_network='{name}': {re.escape(text)}"):
            load_network(name, (8, 8))

    def test_it_is_refused_before_anything_is_written(self, tiny_rollouts: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="gives no feature map"):
            train(config(tiny_rollouts, tmp_path / "vae", perceptual=1.0, perceptual_network=f"{NETWORKS}:no_maps"))
        assert not (tmp_path / "vae").exists()

    @pytest.mark.parametrize("changes", [{"error_weight": "error"}, {"adversarial": 1.0, "adversarial_start": 1}])
    def test_an_autoencoder_that_gives_no_reconstructions(
        self, tiny_rollouts: Path, tmp_path: Path, changes: dict[str, object]
    ) -> None:
        with pytest.raises(ConfigError, match=rf"^autoencoder='{TOKENIZER}': its loss gives no reconstructions"):
            train(own_config(tiny_rollouts, tmp_path / "vae", **changes))
        assert not (tmp_path / "vae").exists()

    def test_another_perceptual_network_than_before(
        self, tiny_rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its file is the same, what it loads is not."""
        from tests.extending.own_loop import train_until
        from tests.training import perceptual_networks

        settings = config(tiny_rollouts, tmp_path / "vae", perceptual=1.0, perceptual_network=f"{NETWORKS}:edges")
        train_until(settings, 2)
        original = perceptual_networks.Edges

        def changed() -> nn.Module:
            network = original()
            network.scale.data.fill_(3.0)
            return network

        monkeypatch.setattr(perceptual_networks, "Edges", changed)
        with pytest.raises(ModelNotUsable, match="the perceptual network has other weights than before"):
            train(settings)

    def test_other_losses_than_before(self, tiny_rollouts: Path, tmp_path: Path) -> None:
        train(config(tiny_rollouts, tmp_path / "vae"))
        with pytest.raises(OutputNotUsable, match="was trained with other settings: error_weight"):
            train(config(tiny_rollouts, tmp_path / "vae", error_weight="error"))


def own_config(data: Path, out: Path, kind: str = TOKENIZER, **settings: object) -> LoopConfig:
    common = {"steps": 4, "batch_size": 8, "holdout_every": 4, "device": "cpu", "log_every": 1}
    return train_config(kind)(data=data, out=out, **common, **settings)  # type: ignore[no-any-return]


class Drawing(Tokenizer):
    """A user's own autoencoder that gives its reconstructions."""

    def loss(self, batch: Batch) -> Loss:
        features = self.encoder(batch.x)
        frames = self.decoder(features + (features.round() - features).detach())
        errors = (frames - batch.x).square()
        return Loss(errors.flatten(1).sum(1).mean(), {}, lambda: Reconstructed(frames, errors))


def test_an_autoencoder_of_ones_own_that_gives_its_reconstructions_takes_all_losses(
    tiny_rollouts: Path, tmp_path: Path
) -> None:
    train(own_config(tiny_rollouts, tmp_path / "vae", f"{__name__}:Drawing", **ALL))
    last = lines(tmp_path / "vae", "train")[-1]
    added = 0.1 * last["perceptual"] + last["adversarial_weight"] * last["generator_loss"]
    assert last["minimised"] == pytest.approx(last["weighted_error"] + added, rel=1e-4)


class TestHealth:
    @pytest.mark.parametrize(("loss", "name"), [(0.01, "discriminator_wins"), (1.0, "discriminator_silent"), (0.6, None)])
    def test_a_discriminator_that_teaches_nothing_is_found_after_a_window(self, loss: float, name: str | None) -> None:
        watch = WindowWatch("discriminator_loss", judge_discriminator)
        assert watch.judge(500, {"loss": 1.0}) is None
        findings = [watch.judge(step, {"discriminator_loss": loss}) for step in range(1000, 1000 + WINDOW + 1, 20)]
        assert findings[:-1] == [None] * (len(findings) - 1)
        assert (findings[-1].name if findings[-1] else None) == name

    def test_its_text_has_the_remedy(self) -> None:
        watch = WindowWatch("discriminator_loss", judge_discriminator)
        watch.judge(1000, {"discriminator_loss": 0.01})
        finding = watch.judge(1200, {"discriminator_loss": 0.03})
        assert finding is not None
        assert finding.text == (
            "step 1200: the discriminator wins, its loss is 0.020 over 200 steps: it tells every reconstruction from a frame, "
            "so the decoder learns nothing from it; lower adversarial, or let it start later (adversarial_start)"
        )


def test_a_whole_training_from_the_command_line_and_its_report(stamp_rollouts: Path, tmp_path: Path) -> None:
    """30 steps with all losses, interrupted by nothing; the report names them and draws their curves."""
    out, eval_ = tmp_path / "vae", tmp_path / "eval"
    words = ["--data", stamp_rollouts, "--device", "cpu"]
    training = ["--out", out, "--steps", 30, "--batch-size", 16, "--architecture", "conv", "--holdout-every", 4]
    losses = [
        "--log-every",
        5,
        "--error-weight",
        "gradient",
        "--adversarial",
        0.5,
        "--adversarial-start",
        10,
        "--perceptual",
        0.1,
    ]
    said = run("wm-train", *words, *training, *losses)
    assert any("no bound of log p(x) any more" in " ".join(text.split()) for text in said)
    last = lines(out, "train")[-1]
    assert {
        "minimised",
        "weighted_error",
        "perceptual",
        "generator_loss",
        "adversarial_weight",
        "discriminator_loss",
    } <= last.keys()
    run("wm-eval", *words, "--vae", out, "--out", eval_, "--frames", 100)
    page = (eval_ / "report.html").read_text()
    assert (
        "error_weight gradient, adversarial 0.5, adversarial_start 10, perceptual 0.1, perceptual_network discriminator" in page
    )
    assert "says nothing)" in page


def test_the_watch_of_a_training_warns_of_it_once() -> None:
    from tests.training.test_health import watch

    watcher, said = watch()
    for step in range(1000, 2000, 20):
        watcher.losses(step, {"discriminator_loss": 0.001})
    assert len(said) == 1
    assert said[0].startswith("warning: step 1200: the discriminator wins")


def test_settings_of_losses_that_a_stranger_wrote_are_refused(tmp_path: Path) -> None:
    settings = {"holdout_every": 4, "data_spec_hash": "f" * 64, "error_weight": "gradient", "adversarial": 0.5}
    (tmp_path / "config.json").write_text(json.dumps({"steps": 5, "training": settings}))
    assert read_training(tmp_path).losses == ("error_weight gradient", "adversarial 0.5")
    for odd in (["gradient"], "a\nb", "x" * 300):
        (tmp_path / "config.json").write_text(json.dumps({"steps": 5, "training": settings | {"error_weight": odd}}))
        with pytest.raises(ModelNotUsable, match="a setting of its losses is"):
            read_training(tmp_path)
