"""In a real browser: frames and forecasts are PyTorch's, the controls work, and nothing is fetched or refused."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from benchmarks._browser import CHROMIUM, Browser
from tests.builders import imported
from tests.evaluation.conftest import write_rollouts, write_vae
from tests.integration.test_example import EXAMPLE
from tests.view.conftest import HIDDEN, MIXTURES, mdn_rnn_bytes
from tests.view.test_network import SIZES, made_relative
from tests.view.test_page import HOSTILE
from worldmodel_v.autoencoders import frames_to_input, output_to_frames
from worldmodel_v.autoencoders.artifact import describe
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig, load_vae
from worldmodel_v.evaluation.walks import interpolate
from worldmodel_v.storage import open_dataset
from worldmodel_v.untrusted import printable
from worldmodel_v.view import ViewConfig, ViewReport, view

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]


@pytest.fixture(scope="module")
def browser(stamp_page: ViewReport, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The toy world's page, with a dream."""
    with Browser(stamp_page.out, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def decoded(browser: Browser, inputs: np.ndarray) -> np.ndarray:
    """RGB bytes (n, H, W, 3) of latents with their condition, as the page decodes them."""
    frames = browser.value(f"{json.dumps(inputs.tolist())}.map((each) => [...worldView.decoder.decode(each)])")
    height, width = (browser.value(f"worldView.page.{side}") for side in ("height", "width"))
    return np.array(frames, np.uint8).reshape(len(inputs), height, width, 4)[..., :3]


@pytest.mark.parametrize(("architecture", "shape"), SIZES)
@torch.no_grad()
def test_frames_are_those_of_pytorch_to_within_a_grey_level(architecture: str, shape: tuple[int, int], tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = VAEConfig(architecture=architecture, frame_height=shape[0], frame_width=shape[1], latent_dim=5)
    model = VAE(config).eval()
    for parameter in model.decoder.parameters():
        parameter.mul_(1.5)  # as large as after training
    size = {"frame_height": shape[0], "frame_width": shape[1]}
    data = write_rollouts(tmp_path / "data", size=shape, spec=size)
    vae = write_vae(tmp_path / "vae", data, model=model)
    report = view(ViewConfig(vae=vae, data=data, out=tmp_path / "page.html", device="cpu"))
    z = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    with Browser(report.out, tmp_path / "profile") as browser:
        found = decoded(browser, z)
        assert browser.complaints == []
    expected = output_to_frames(model.decode_z(torch.from_numpy(z))).numpy()
    assert len(np.unique(expected)) > 20
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_vae_with_a_condition_gets_that_of_its_frame(tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data")
    vae = write_vae(tmp_path / "vae", data, condition=("action",), condition_dim=2, channels=1)
    report = view(ViewConfig(vae=vae, data=data, out=tmp_path / "page.html", device="cpu"))
    with Browser(report.out, tmp_path / "profile") as browser:
        shown = browser.value("{ const e = worldView.here.episode; return [...e.decodedAt(2, worldView.decoder)]; }")
        number = browser.value("worldView.here.episode.episode")
    found = np.array(shown, np.uint8).reshape(8, 8, 4)[..., :3]
    episode, model = open_dataset(data)[number], load_vae(vae).model
    condition = torch.from_numpy(episode.action[2:3])
    x = frames_to_input(torch.from_numpy(episode.pixels[2:3]), 1)
    expected = output_to_frames(model.decode(model.encode(x, condition), condition)).detach().numpy()[0]
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_frames_in_the_page_are_the_recorded_ones(browser: Browser, stamp_rollouts: Path) -> None:
    for position in (0, 3):
        code = "{ const e = await worldView.episodes[%d].load(); return [e.episode, [...e.frames.at(7)], [...e.action]]; }"
        number, frame, actions = browser.value(code % position)
        episode = open_dataset(stamp_rollouts)[number]
        np.testing.assert_array_equal(np.array(frame, np.uint8).reshape(64, 64, 4)[..., :3], episode.pixels[7])
        np.testing.assert_array_equal(np.array(actions[:-1], np.float32), episode.action.astype(np.float32).ravel()[:-1])


@torch.no_grad()
def test_forecasts_are_those_of_the_example(browser: Browser, stamp_page: ViewReport, stamp_rollouts: Path) -> None:
    """The state after five rows, and the mixture, reward and end that come out of it."""
    episode = open_dataset(stamp_rollouts)[3]
    z = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 5, 8)).astype(np.float32))
    with example_model(stamp_page.out.parent, stamp_rollouts) as model:
        forecast, _ = model(z, torch.from_numpy(episode.action[None, :5]), None, 0.7)
    code = """{
      const { model } = worldView, rows = %s, actions = %s;
      let state = model.begin(), found;
      rows.forEach((z, t) => { found = model.forecast(z, actionVector(actions[t]), state); state = found.state; });
      const mixtures = rows[0].map((_, latent) => model.mixture(found, latent, 0.7));
      return { mixtures, reward: found.reward, end: found.end };
    }"""
    actions = episode.action[:5].reshape(5, -1).tolist()
    found = browser.value(code % (json.dumps(z[0].tolist()), json.dumps(actions)))
    components, weights = forecast.next_z.component_distribution, forecast.next_z.mixture_distribution.probs
    for name, expected in {"weights": weights, "means": components.mean, "sigmas": components.stddev}.items():
        values = np.array([each[name] for each in found["mixtures"]])
        np.testing.assert_allclose(values, expected[0, -1].numpy(), rtol=5e-3, atol=2e-3)
    assert found["reward"] == pytest.approx(float(forecast.reward[0, -1]), abs=2e-3)
    assert found["end"] == pytest.approx(float(torch.sigmoid(forecast.termination[0, -1])), abs=1e-4)


@contextmanager
def example_model(folder: Path, data: Path) -> Iterator[Any]:
    """The weights of the page in the example's own module, in these sizes."""
    example = imported(EXAMPLE, "train_mdn_rnn")
    nothing = {"z": torch.zeros(2, 1, 8), "reward": torch.zeros(2, 1), "terminated": torch.zeros(2, 1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "HIDDEN", HIDDEN)
        patch.setattr(example, "MIXTURES", MIXTURES)
        model = example.MdnRnn(nothing, open_dataset(data).schema.actions)
        model.load_state_dict(safetensors.torch.load_file(folder / example.WEIGHTS))
        yield model


def test_samples_follow_the_mixture(browser: Browser) -> None:
    code = """{
      const { model } = worldView, found = model.forecast(new Float32Array(8), actionVector(page.actions.rest), model.begin());
      const draws = Array.from({ length: 4000 }, () => [...model.sample(found, 0.5)]);
      return [draws, draws[0].map((_, latent) => model.mixture(found, latent, 0.5))];
    }"""
    draws, mixtures = browser.value(code)
    for values, mixture in zip(np.array(draws).T, mixtures, strict=True):
        weights, means, sigmas = (np.array(mixture[name]) for name in ("weights", "means", "sigmas"))
        mean = weights @ means
        spread = np.sqrt(weights @ (sigmas**2 + means**2) - mean**2)
        assert abs(values.mean() - mean) < 5 * spread / np.sqrt(len(values))
        assert values.std() == pytest.approx(spread, rel=0.2)


def test_sliders_move_the_frame(browser: Browser) -> None:
    browser.value("worldView.latents.begin()")
    start = browser.value("[...worldView.latents.z]")
    browser.value(
        "{ const s = worldView.latents.sliders[0]; s.input.value = s.high; s.input.dispatchEvent(new Event('input')); }"
    )
    moved = browser.value("[...worldView.latents.z]")
    first = browser.value("worldView.page.latents.sliders[0].at")
    assert [i for i in range(8) if moved[i] != start[i]] == [first]
    browser.value("document.getElementById('reset').click()")
    assert browser.value("[...worldView.latents.z]") == start
    browser.value("{ const b = document.getElementById('between'); b.value = 1; b.dispatchEvent(new Event('input')); }")
    np.testing.assert_allclose(
        browser.value("[...worldView.latents.z]"), browser.value("[...worldView.latents.to.z]"), atol=1e-6
    )


@pytest.mark.parametrize("kind", ["spatial", "ladder"])
@torch.no_grad()
def test_a_map_and_two_levels_are_decoded_moved_and_dreamed(kind: str, tmp_path: Path) -> None:
    data, model = write_rollouts(tmp_path / "data"), made_relative(kind, (8, 8), condition=("action",), condition_dim=2)
    for parameter in model.decoder.parameters():
        parameter.mul_(1.5)
    vae = write_vae(tmp_path / "vae", data, model=model)
    rnn = mdn_rnn_bytes(open_dataset(data).schema.actions, describe(vae).sha256, latent_dim=model.latent_dim)
    (tmp_path / "mdn_rnn.safetensors").write_bytes(rnn)
    report = view(ViewConfig(vae=vae, data=data, rnn=tmp_path, out=tmp_path / "page.html", device="cpu"))
    z = torch.randn(6, model.latent_dim, generator=torch.Generator().manual_seed(0))
    condition = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    with Browser(report.out, tmp_path / "profile") as browser:
        found = decoded(browser, torch.cat([z, model.standardised(condition)], dim=1).numpy())
        moved = browser.value("""{
          const { z, start, sliders } = worldView.latents, [{ input, high, direction }, ...others] = sliders;
          input.value = high;
          input.dispatchEvent(new Event("input"));
          const changes = others.map((other) => other.direction.along(z) - other.direction.along(start.z));
          return { at: direction.along(z), value: Number(input.value), changes };
        }""")
        browser.value("document.getElementById('random').click()")
        drawn = browser.value("[...worldView.latents.z]")
        browser.value("document.getElementById('reset').click()")
        again, start = browser.value("[[...worldView.latents.z], [...worldView.latents.start.z]]")
        browser.value("worldView.dream.step(0)")
        assert browser.complaints == []
    expected = output_to_frames(model.decode_z(z, condition)).numpy()
    assert len(np.unique(expected)) > 20
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert moved["at"] == pytest.approx(moved["value"], abs=1e-4)
    np.testing.assert_allclose(moved["changes"], 0, atol=1e-5)
    assert np.isfinite(drawn).all()
    assert drawn != start
    assert again == start


def test_interpolation_is_that_of_the_evaluation(browser: Browser) -> None:
    start, end = np.random.default_rng(3).normal(size=(2, 8))
    asked = f"[{start.tolist()}, {end.tolist()}].map((each) => Float32Array.from(each))"
    found = browser.value(
        f"{{ const [a, b] = {asked}; return [0, 0.25, 0.5, 0.75, 1].map((share) => [...arc(a, b, share)]); }}"
    )
    np.testing.assert_allclose(found, interpolate(start[None], end[None], 5)[0], atol=1e-5)


def wait_for(browser: Browser, condition: str) -> None:
    """Until it holds; fails after ten seconds."""
    code = """{
      const end = performance.now() + 1e4;
      while (!(%s) && performance.now() < end) await new Promise(requestAnimationFrame);
      return performance.now() < end;
    }"""
    assert browser.value(code % condition), condition


def test_an_episode_plays_steps_and_jumps(browser: Browser) -> None:
    click = "document.getElementById('%s').click()"
    browser.value("worldView.part.open(worldView.episodes[0])")
    browser.value("worldView.part.seek(3)")
    browser.value(click % "forward")
    assert browser.value("worldView.here.row") == 4
    browser.value(click % "end")
    assert browser.value("worldView.here.row") == browser.value("worldView.here.episode.rows - 1")
    browser.value(click % "worst")
    assert browser.value("worldView.here.row") == np.argmax(browser.value("[...worldView.here.episode.error]"))
    browser.value("worldView.part.seek(0)")
    browser.value(click % "play")
    wait_for(browser, "worldView.here.row > 5")
    browser.value("worldView.part.player.stop()")


def test_a_key_drives_until_it_is_let_go(browser: Browser) -> None:
    browser.value("worldView.dream.begin()")
    browser.value("document.getElementById('dreamed').focus()")
    move = browser.value("worldView.page.actions.keys[0]")
    browser.key(move["key"], down=True)
    wait_for(browser, f"worldView.dream.action[{move['part']}] === {move['value']}")
    assert browser.value("worldView.dream.steps") > 5
    browser.key(move["key"], down=False)
    wait_for(browser, f"worldView.dream.action[{move['part']}] === worldView.page.actions.rest[{move['part']}]")
    browser.value("worldView.dream.player.stop()")


def test_nothing_was_refused_or_thrown(browser: Browser) -> None:
    assert browser.complaints == []


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_wider_than_the_window(browser: Browser, width: int) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    assert browser.value("innerWidth") == width
    assert browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0


def test_strangers_text_is_only_text(tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data", spec={"env": HOSTILE, "policy": HOSTILE})
    report = view(ViewConfig(vae=write_vae(tmp_path / "vae", data), data=data, out=tmp_path / "page.html", device="cpu"))
    with Browser(report.out, tmp_path / "profile") as browser:
        assert browser.value("document.querySelector('#facts').textContent").count(printable(HOSTILE)) == 2
        assert browser.value("document.querySelectorAll('script').length") == 4
        assert browser.complaints == []


def test_a_browser_that_cannot_run_the_networks_says_so_and_shows_the_frames(stamp_page: ViewReport, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(stamp_page.out.read_text().replace(" 'wasm-unsafe-eval'", "", 1))
    with Browser(page, tmp_path / "profile") as browser:
        for part in ("latents", "dream"):
            said = browser.value(f"document.getElementById('{part}-absent').textContent")
            assert said.startswith("This browser cannot run the networks (")
            assert browser.value(f"document.getElementById('{part}-body').hidden")
        assert browser.value("document.getElementById('recorded').width") == 64
        assert browser.value("document.getElementById('decoded').closest('figure').hidden")
