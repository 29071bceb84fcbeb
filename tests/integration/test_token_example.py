"""The example with tokens: a transformer trained on toy tokens for a few steps."""

import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image, ImageSequence

from tests.builders import action_space, imported
from tests.commands import run
from tests.conftest import stamp_config
from worldmodel_v.autoencoders import save
from worldmodel_v.autoencoders.tokens.fsq import FSQ, FSQConfig
from worldmodel_v.collection import collect
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.progress import Silent
from worldmodel_v.schema import ActionSpace

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_token_transformer.py"
SHORT = ("--steps", 3, "--batch-size", 2, "--length", 4, "--dream-steps", 5, "--holdout-every", 4, "--device", "cpu")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy rollouts at 16x16, FSQ with random weights, and their tokens: 2x2 of 9 values."""
    folder = tmp_path_factory.mktemp("tokens")
    collect(stamp_config(folder / "rollouts", frame_size=16))
    torch.manual_seed(0)
    model = FSQ(FSQConfig(frame_height=16, frame_width=16, token_grid=2, levels=(3, 3)))
    model.to_code.weight.data *= 20  # otherwise random features hardly differ
    (folder / "vae").mkdir()
    (folder / "vae" / "vae.safetensors").write_bytes(save(model))
    encode(EncodeConfig(data=folder / "rollouts", vae=folder / "vae", out=folder / "latents", device="cpu"))
    return folder


def run_example(tokens: Path, out: Path, *options: object) -> tuple[str, str]:
    """What it says on both outputs."""
    return run(EXAMPLE, "--latents", tokens / "latents", "--vae", tokens / "vae", "--out", out, *SHORT, *options, COLUMNS="120")


def test_the_example_trains_measures_dreams_and_saves_the_same_each_time(tokens: Path, tmp_path: Path) -> None:
    printed, told = run_example(tokens, tmp_path / "first")
    assert f"its weights, metrics.json and the dream, dream.gif, are in {tmp_path / 'first'}\n" in told
    metrics = json.loads((tmp_path / "first" / "metrics.json").read_text())
    assert (metrics["steps"], metrics["tokens"], metrics["num_values"]) == (3, 4, 9)
    assert metrics["scores"].keys() == {"transformer", "last tokens", "frequencies"}
    for name, scores in metrics["scores"].items():
        assert all(map(math.isfinite, scores.values()))
        assert 0 < scores["accuracy"] <= 1
        (row,) = (line for line in printed.splitlines() if name in line)
        assert f" {scores['nll_bits']:.1f} " in row
    weights = safetensors.torch.load((tmp_path / "first" / "transformer.safetensors").read_bytes())
    assert weights["token.weight"].shape == (9, 128)
    with Image.open(tmp_path / "first" / "dream.gif") as gif:
        assert 1 < gif.n_frames <= 6  # equal frames that follow each other are one
        assert gif.size == (3 * (16 + 2 + 16), 26 + 3 * 16)
        first = np.asarray(next(iter(ImageSequence.Iterator(gif))).convert("RGB"))[26:]
    np.testing.assert_array_equal(first[:, : 3 * 16], first[:, -3 * 16 :])
    run_example(tokens, tmp_path / "second")
    for name in ("metrics.json", "dream.gif", "transformer.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_latents_that_are_no_tokens_are_refused(stamp_latents: Path, stamp_vae: Path, tmp_path: Path) -> None:
    words = ("--latents", stamp_latents, "--vae", stamp_vae, "--out", tmp_path / "out", *SHORT)
    _, errors = run(EXAMPLE, *words, code=2)
    assert "holds no tokens, but mu, logvar; train with --autoencoder fsq" in errors


def test_tokens_are_refused_by_the_mdn_rnn(tokens: Path, tmp_path: Path) -> None:
    words = ("--latents", tokens / "latents", "--vae", tokens / "vae", "--out", tmp_path / "out")
    _, errors = run(EXAMPLE.with_name("train_mdn_rnn.py"), *words, code=2)
    assert "holds tokens, this model forecasts mu and logvar; give the latents of a VAE" in errors


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module."""
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    return imported(EXAMPLE, "train_token_transformer")


TWO_ACTIONS = ActionSpace(action_space(2))


def some_window(num_windows: int = 8, length: int = 5) -> dict[str, torch.Tensor]:
    """A row of 3 tokens of 7 values, each of which goes up by one if the first action is positive, and stays otherwise."""
    noise = torch.Generator().manual_seed(3)
    action = torch.randn(num_windows, length, 2, generator=noise)
    start = torch.randint(0, 7, (num_windows, 1, 3), generator=noise)
    up = torch.cat([torch.zeros(num_windows, 1, 1), (action[..., :1] > 0).cumsum(dim=1)], dim=1).long()
    rows = (start + up) % 7
    ended = torch.rand(num_windows, length, generator=noise) < 0.1
    return {"tokens": rows[:, :-1], "next_tokens": rows[:, 1:], "action": action, "reward": action[..., 1], "terminated": ended}


def test_a_forecast_knows_its_frame_its_action_and_the_past_alone(example: ModuleType) -> None:
    torch.manual_seed(0)
    window = some_window()
    model = example.TokenTransformer(window, 7, TWO_ACTIONS, length=5).eval()
    before = model.forecast(window)
    for name, change in (("tokens", lambda rows: (rows + 1) % 7), ("action", lambda rows: rows + 1)):
        changed = window | {name: torch.cat([window[name][:, :3], change(window[name][:, 3:])], dim=1)}
        for old, new in zip(before, model.forecast(changed), strict=True):
            torch.testing.assert_close(old[:, :3], new[:, :3])
            assert not torch.allclose(old[:, 3:], new[:, 3:])
    shorter = {name: column[:, :2] for name, column in window.items()}
    for old, new in zip(before, model.forecast(shorter), strict=True):
        torch.testing.assert_close(old[:, :2], new)
    torch.testing.assert_close(before.log_probs.exp().sum(dim=-1), torch.ones(8, 5, 3))


def test_the_baselines_score_as_their_formulas_do(example: ModuleType) -> None:
    window = some_window()
    here, coming = (window[name].reshape(-1, 3).numpy() for name in ("tokens", "next_tokens"))
    counts = np.stack([np.bincount(coming[:, place], minlength=7) + 1 / 7 for place in range(3)])
    frequencies = counts / counts.sum(axis=1, keepdims=True)
    of_what_came = frequencies[np.arange(3), coming]
    stayed = ((here == coming).sum() + 1) / (coming.size + 2)
    expected = {
        "frequencies": -np.log(of_what_came).sum(axis=1).mean(),
        "last tokens": -np.log(stayed * (here == coming) + (1 - stayed) * of_what_came).sum(axis=1).mean(),
    }
    for name, forecast in example.baselines(window, 7).items():
        nll, accuracy, squared_error, _ = forecast(window).losses(window)
        assert float(nll.mean()) == pytest.approx(expected[name], rel=1e-5)
        assert float(squared_error.mean()) == pytest.approx(float(window["reward"].var(unbiased=False)), rel=1e-5)
        if name == "last tokens":
            assert float(accuracy.mean()) == pytest.approx((here == coming).mean())


def test_it_learns_what_an_action_does(example: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    window = some_window(64)

    class Data:
        def sample_batch(self, batch_size: int) -> dict[str, torch.Tensor]:
            return window

    model = example.TokenTransformer(window, 7, TWO_ACTIONS, length=5)
    config = example.TransformerConfig(latents=tmp_path, vae=tmp_path, out=tmp_path, steps=60)
    bits = example.fit(model, Data(), config, torch.device("cpu"), Silent())
    last = example.baselines(window, 7)["last tokens"](window).losses(window)[0].mean() / math.log(2)
    assert bits < 0.5 * float(last)
