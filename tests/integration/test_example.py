"""The downstream example: an MDN-RNN trained on toy latents for a few steps."""

import json
import math
import runpy
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from tests.builders import action_space, imported
from tests.commands import run
from tests.conftest import stamp_config
from tests.data.made_latents import write_latents
from worldmodel_v.autoencoders import save
from worldmodel_v.autoencoders.gaussian import VAE, load_vae
from worldmodel_v.collection import collect
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.schema import ActionSpace

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_mdn_rnn.py"
SHORT = {"--steps": "3", "--batch-size": "4", "--length": "8", "--dream-steps": "6", "--holdout-every": "4", "--device": "cpu"}


def shortly(*options: str) -> list[str]:
    """Options of the example, and those of a short run that they do not set."""
    return [*options, *(word for name, value in SHORT.items() if name not in options for word in (name, value))]


def run_example(latents: Path, vae: Path, out: Path, *options: str) -> tuple[str, str]:
    """What it says on both outputs."""
    return run(EXAMPLE, "--latents", latents, "--vae", vae, "--out", out, *shortly(*options), COLUMNS="120")


@pytest.fixture(scope="module")
def discrete_latents(tmp_path_factory: pytest.TempPathFactory, stamp_vae: Path) -> Path:
    """Latents of the toy world with its five discrete actions."""
    folder = tmp_path_factory.mktemp("discrete")
    collect(stamp_config(folder / "rollouts", env_kwargs='{"discrete": true}'))
    encode(EncodeConfig(data=folder / "rollouts", vae=stamp_vae, out=folder / "latents", device="cpu"))
    return folder / "latents"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, stamp_latents: Path, stamp_vae: Path) -> Path:
    """What the example wrote from the toy latents."""
    return succeed(stamp_latents, stamp_vae, tmp_path_factory.mktemp("trained") / "out")


def succeed(latents: Path, vae: Path, out: Path) -> Path:
    """Run the example and compare what it printed with what it wrote."""
    printed, told = run_example(latents, vae, out)
    assert f"its weights, metrics.json and the dream, dream.gif, are in {out}\n" in told
    assert {file.name for file in out.iterdir()} == {"metrics.json", "dream.gif", "mdn_rnn.safetensors"}
    for name, scores in json.loads((out / "metrics.json").read_text())["scores"].items():
        (row,) = (line for line in printed.splitlines() if name in line)
        assert f" {scores['nll']:.2f} " in row
        assert f" {scores['reward_mse']:.3f} " in row
        assert f" {scores['termination_log_loss']:.5f} " in row
    return out


def assert_finite_metrics(out: Path) -> None:
    metrics = json.loads((out / "metrics.json").read_text())
    scores = metrics.pop("scores")
    assert scores.keys() == {"MDN-RNN", "linear", "last latent + noise", "constant Gaussian"}
    assert metrics.keys() == {"steps", "train_windows", "train_nll", "heldout_transitions", "heldout_terminations"}
    assert metrics["steps"] == 3
    assert metrics["heldout_transitions"] % 8 == 0
    assert math.isfinite(metrics["train_nll"])
    for values in scores.values():
        assert values.keys() == {"nll", "reward_mse", "termination_log_loss"}
        assert all(map(math.isfinite, values.values()))


def assert_a_dream_that_starts_from_what_was_recorded(path: Path) -> None:
    """The frame it starts from and six dreamed steps: two panels of 64x64, a gap of 2, three times as large, below labels."""
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"], gif.info["duration"]) == (7, (3 * 130, 26 + 3 * 64), 0, 40)
        frames = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)])
    labels, frames = frames[:, :26], frames[:, 26:]
    assert (labels == labels[0]).all()
    for half in np.split(labels[0], 2, axis=1):
        assert len(np.unique(half)) > 1  # something is written over each panel
    recorded, dreamed = frames[:, :, : 3 * 64], frames[:, :, -3 * 64 :]
    np.testing.assert_array_equal(recorded[0], dreamed[0])
    assert any((left != right).any() for left, right in zip(recorded[1:], dreamed[1:], strict=True))
    np.testing.assert_array_equal(frames[:, ::3, ::3], frames[:, 2::3, 2::3])  # magnified, not smoothed


def test_the_example_trains_measures_and_dreams(trained: Path) -> None:
    assert_finite_metrics(trained)
    assert_a_dream_that_starts_from_what_was_recorded(trained / "dream.gif")


def test_the_example_has_a_help() -> None:
    shown, _ = run(EXAMPLE, "--help", COLUMNS="120")
    assert "--temperature FLOAT" in shown
    assert "examples:" not in shown


def test_discrete_actions_are_learnt_from_too(discrete_latents: Path, stamp_vae: Path, tmp_path: Path) -> None:
    out = succeed(discrete_latents, stamp_vae, tmp_path / "out")
    assert_finite_metrics(out)
    assert_a_dream_that_starts_from_what_was_recorded(out / "dream.gif")


def test_the_same_seed_gives_the_same_numbers_and_the_same_dream(
    trained: Path, stamp_latents: Path, stamp_vae: Path, tmp_path: Path
) -> None:
    printed, errors = run_example(stamp_latents, stamp_vae, tmp_path / "again", "--quiet", "--json")
    assert errors == ""
    assert json.loads(printed) == json.loads((trained / "metrics.json").read_text())
    for name in ("metrics.json", "dream.gif", "mdn_rnn.safetensors"):
        assert (trained / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


# The forecasts


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The example as a module."""
    return imported(EXAMPLE, "train_mdn_rnn")


TWO_ACTIONS = ActionSpace(action_space(2))


def some_window(num_windows: int = 16, length: int = 8) -> dict[str, torch.Tensor]:
    """Random latents (Z = 3) that move at random, with actions (A = 2), rewards, and a few ends."""
    noise = torch.Generator().manual_seed(3)
    z = torch.randn(num_windows, length + 1, 3, generator=noise).cumsum(dim=1)
    action, reward = (torch.randn(num_windows, length, *shape, generator=noise) for shape in ((2,), ()))
    return {
        **{"z": z[:, :-1], "next_z": z[:, 1:], "action": action, "reward": reward},
        "terminated": torch.rand(num_windows, length, generator=noise) < 0.1,
    }


def test_each_baseline_scores_as_its_formula_does(example: ModuleType) -> None:
    """Against NumPy, on the windows that they were fitted to."""
    window = some_window()
    scores = {
        name: [float(loss.double().sum(dim=-1).mean() if loss.ndim == 3 else loss.double().mean()) for loss in losses]
        for name, forecast in example.baselines(window, TWO_ACTIONS).items()
        for losses in [forecast(window).losses(window)]
    }
    z, next_z, action, reward, ended = (
        window[name].flatten(end_dim=1).double().numpy() for name in ("z", "next_z", "action", "reward", "terminated")
    )

    def nll(residual: np.ndarray, std: np.ndarray) -> float:
        return float((0.5 * (residual / std) ** 2 + np.log(std * np.sqrt(2 * np.pi))).sum(axis=-1).mean())

    x = np.concatenate([z, action, np.ones_like(z[:, :1])], axis=1)
    residual = next_z - x @ np.linalg.lstsq(x, next_z, rcond=None)[0]
    reward_residual = reward - x @ np.linalg.lstsq(x, reward, rcond=None)[0]
    rate = (ended.sum() + 1) / (len(ended) + 2)
    log_loss = -(ended * np.log(rate) + (1 - ended) * np.log1p(-rate)).mean()
    expected = {
        "linear": (nll(residual, residual.std(axis=0, ddof=1)), (reward_residual**2).mean()),
        "last latent + noise": (nll(next_z - z, np.sqrt(((next_z - z) ** 2).mean(axis=0))), reward.var()),
        "constant Gaussian": (nll(next_z - next_z.mean(axis=0), next_z.std(axis=0, ddof=1)), reward.var()),
    }
    for name, (latents, rewards) in expected.items():
        assert scores[name] == pytest.approx([latents, rewards, log_loss], rel=1e-5), name


def test_latents_that_are_a_map_become_vectors_row_by_row(example: ModuleType) -> None:
    window = some_window()
    maps = {name: torch.randn(2, 8, 4, 6, 3) for name in ("z", "next_z")}
    moved = example.moved(window | maps, torch.device("cpu"))
    for name, values in maps.items():
        assert moved[name].shape == (2, 8, 72)
        assert torch.equal(moved[name][..., 3 * (6 * 1 + 2) : 3 * (6 * 1 + 3)], values[:, :, 1, 2])
    assert all(moved[name] is column for name, column in window.items() if name not in maps)


def test_a_forecast_of_the_whole_window_is_that_of_its_steps_one_by_one(example: ModuleType) -> None:
    window = some_window()
    model = example.MdnRnn(window, TWO_ACTIONS)
    together, state, steps = model.forecast(window), None, []
    for t in range(8):
        now = {name: column[:, t : t + 1] for name, column in window.items()}
        forecast, state = model(now["z"], now["action"], state)
        steps.append(forecast.losses(now))
    for whole, parts in zip(together.losses(window), zip(*steps, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(parts, dim=1))


def test_without_features_a_forecast_is_the_average(example: ModuleType) -> None:
    window = some_window()
    model = example.MdnRnn(window, TWO_ACTIONS)
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    forecast, ended = model.forecast(window), window["terminated"]
    torch.testing.assert_close(forecast.reward, window["reward"].mean().expand(ended.shape))
    rate = (ended.sum() + 1) / (ended.numel() + 2)
    torch.testing.assert_close(forecast.termination.sigmoid(), rate.expand(ended.shape))


def test_the_temperature_scales_variances_and_flattens_weights(example: ModuleType) -> None:
    window = some_window()
    model = example.MdnRnn(window, TWO_ACTIONS)
    (cold, _), (hot, _) = (model(window["z"], window["action"], None, temperature) for temperature in (1.0, 4.0))
    torch.testing.assert_close(hot.next_z.component_distribution.variance, 4 * cold.next_z.component_distribution.variance)
    torch.testing.assert_close(
        hot.next_z.mixture_distribution.probs, torch.softmax(cold.next_z.mixture_distribution.logits / 4, dim=-1)
    )


# Bad input


class Refusal:
    """Runs the example, which must end in one line with exit code 2 and write nothing; gives the line after its name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: Path) -> None:
        self._monkeypatch, self._capsys, self._out = monkeypatch, capsys, out

    def __call__(self, latents: Path, vae: Path, *options: str) -> str:
        argv = [EXAMPLE, "--latents", latents, "--vae", vae, "--out", self._out, *shortly(*options)]
        self._monkeypatch.setattr(sys, "argv", list(map(str, argv)))
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(EXAMPLE), run_name="__main__")
        printed = self._capsys.readouterr()
        assert (exit_.value.code, printed.out, self._out.exists()) == (2, "", False)
        (line,) = printed.err.splitlines()
        return line.removeprefix("train_mdn_rnn.py: ")


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refusal:
    return Refusal(monkeypatch, capsys, tmp_path / "out")


def test_windows_longer_than_the_episodes(refuse: Refusal, stamp_latents: Path, stamp_vae: Path) -> None:
    line = refuse(stamp_latents, stamp_vae, "--length", "24")
    assert line.startswith(f"{stamp_latents}: no episode (train) has 24 actions (the longest has ")


def test_a_dream_longer_than_the_held_out_episodes(refuse: Refusal, stamp_latents: Path, stamp_vae: Path) -> None:
    line = refuse(stamp_latents, stamp_vae, "--dream-steps", "16")
    assert line.startswith(f"{stamp_latents}: no episode (held-out) has 24 actions (the longest has ")


def test_latents_of_another_vae(refuse: Refusal, stamp_latents: Path, stamp_vae: Path, tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "vae.safetensors").write_bytes(save(VAE(load_vae(stamp_vae).model.config)))
    line = refuse(stamp_latents, tmp_path / "vae")
    assert line.startswith(
        f"{stamp_latents}: was made by the VAE {load_vae(stamp_vae).sha256[:12]}…, {tmp_path / 'vae'} holds "
    )


def test_latents_without_rewards(refuse: Refusal, stamp_vae: Path, tmp_path: Path) -> None:
    latents = write_latents(tmp_path / "latents", [20, 20], has_reward=False)
    line = refuse(latents, stamp_vae)
    assert line == f"{latents}: holds no rewards, which this model forecasts too; give latents of rollouts with rewards"


def test_paths_that_are_not_there(refuse: Refusal, stamp_latents: Path, stamp_vae: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    assert refuse(nothing, stamp_vae).startswith(f"{nothing}: is no directory; give a directory that ")
    assert refuse(stamp_latents, nothing).startswith(f"{nothing}: holds no vae.safetensors: ")


@pytest.mark.parametrize(
    ("option", "value", "bound"),
    [
        ("--steps", "0", "at least 1"),
        ("--length", "1", "at least 2"),
        ("--dream-steps", "0", "at least 1"),
        ("--temperature", "0.0", "a positive number"),
        ("--learning-rate", "-1.0", "a positive number"),
    ],
)
def test_settings_that_make_no_sense(
    refuse: Refusal, stamp_latents: Path, stamp_vae: Path, option: str, value: str, bound: str
) -> None:
    assert refuse(stamp_latents, stamp_vae, option, value) == f"{option}: expected {bound}, got {value}"


@pytest.mark.slow
def test_stable_baselines3_gets_the_same_returns_from_both_car_racings() -> None:
    printed, _ = run(EXAMPLE.with_name("train_sb3.py"), "--steps", "512")
    ours, theirs, last = printed.splitlines()[-3:]
    assert last == "the returns are equal"
    assert ours.startswith("worldmodel_v.envs:worldmodel_v/CarRacing-v3: ")
    assert theirs.startswith("CarRacing-v3: ")
    assert len(theirs.partition("returns ")[2].split()) == 2
