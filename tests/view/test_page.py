"""What is in a page, how large it is, that strangers' text stays text, and that it appears whole or not at all."""

import base64
import gzip
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.builders import FullDisk
from tests.cli.test_bad_input import Refusal
from tests.conftest import stamp_config
from tests.evaluation.conftest import write_rollouts, write_vae
from tests.evaluation.test_report import Page
from tests.view.conftest import WriteRnn, data_of
from tests.view.test_network import made_relative
from worldmodel_v.autoencoders import save
from worldmodel_v.autoencoders.gaussian import VAE, VAEConfig
from worldmodel_v.autoencoders.tokens.fsq import FSQ, FSQConfig
from worldmodel_v.collection import collect
from worldmodel_v.errors import ConfigError, ModelFailed, WriteFailed
from worldmodel_v.storage import open_dataset
from worldmodel_v.untrusted import printable
from worldmodel_v.view import ViewConfig, ViewReport, stage, view
from worldmodel_v.view.config import MAX_BYTES
from worldmodel_v.view.episodes import shares
from worldmodel_v.view.latents import principal_components
from worldmodel_v.view.page import MARK, as_json

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&lt;\u2028"


def test_it_is_one_file_that_names_no_other(stamp_page: ViewReport) -> None:
    content = stamp_page.out.read_bytes()
    assert content.startswith(MARK)
    assert len(content) <= MAX_BYTES
    assert stamp_page.bytes == len(content)
    page = Page(content.decode())
    assert {name for tag, attributes in page.elements for name in attributes if name in ("src", "href")} == {"href"}
    links = [attributes["href"] for _, attributes in page.elements if "href" in attributes]
    assert links == ["#episodes", "#latents", "#dream"]


def test_every_element_has_a_name_for_screen_readers(stamp_page: ViewReport) -> None:
    page = Page(stamp_page.out.read_text())
    labelled = {attributes["for"] for tag, attributes in page.elements if tag == "label"}
    for tag, attributes in page.elements:
        if tag in ("input", "select"):
            assert attributes.get("aria-label") or attributes["id"] in labelled
        if tag == "canvas" and attributes.get("aria-hidden") != "true":
            assert attributes["role"] == "img"


def test_the_policy_allows_its_own_style_and_scripts_alone(stamp_page: ViewReport) -> None:
    text = stamp_page.out.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy
    contents = re.findall(r"<(?:style|script)>(.*?)</(?:style|script)>", text, flags=re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in contents]
    assert len(hashes) == 3
    assert re.findall(r"'sha256-([^']+)'", policy) == [*hashes[1:], hashes[0]]
    assert " style=" not in text.partition("<body>")[2].partition("<script")[0]


def test_frames_are_the_recorded_ones_to_the_bit(stamp_page: ViewReport, stamp_rollouts: Path) -> None:
    data = data_of(stamp_page.out)
    assert [each["episode"] for each in data["episodes"]] == [3, 7, 0, 6]
    assert [each["kind"] for each in data["episodes"]] == ["held out", "held out", "trained on", "trained on"]
    dataset = open_dataset(stamp_rollouts)
    for shown in data["episodes"]:
        pictures = [Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB") for text in shown["recorded"]]
        frames = np.concatenate([np.asarray(picture) for picture in pictures]).reshape(-1, 64, 64, 3)
        episode = dataset[shown["episode"]]
        np.testing.assert_array_equal(frames, episode.pixels)
        actions = np.frombuffer(gzip.decompress(base64.b64decode(shown["action"])), "<f4")
        np.testing.assert_array_equal(actions.reshape(len(frames), -1)[:-1], episode.action.reshape(len(frames), -1)[:-1])
        assert np.isnan(actions[-1])


def test_no_episode_of_other_rollouts_was_trained_on(stamp_vae: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    collect(stamp_config(other, seed=8, episodes=3))
    report = view(ViewConfig(vae=stamp_vae, data=other, out=tmp_path / "page.html", device="cpu"))
    assert [each["kind"] for each in data_of(report.out)["episodes"]] == ["not from its training"] * 3


def test_latents_are_ordered_by_their_kl(stamp_page: ViewReport) -> None:
    latents = data_of(stamp_page.out)["latents"]
    amounts = [slider["amount"] for slider in latents["sliders"]]
    assert amounts == sorted(amounts, reverse=True)
    assert sorted(slider["at"] for slider in latents["sliders"]) == [*range(8)]
    assert all(slider["name"] == f"z{slider['at']}" for slider in latents["sliders"])
    assert latents["components"] is None


def relative(tmp_path: Path, kind: str) -> tuple[Path, Path]:
    """A VAE of another kind for 8x8 frames, and rollouts."""
    data = write_rollouts(tmp_path / "data")
    model = made_relative(kind, (8, 8))
    return write_vae(tmp_path / "vae", data, model=model), data


def test_the_levels_of_a_ladder_have_a_slider_for_each_latent(tmp_path: Path) -> None:
    vae, data = relative(tmp_path, "ladder")
    report = view(ViewConfig(vae=vae, data=data, out=tmp_path / "page.html", device="cpu"))
    assert report.latents.startswith("weights in")
    names = {slider["name"] for slider in data_of(report.out)["latents"]["sliders"]}
    assert names == {"top_0", "top_1", "top_2", "bottom_0", "bottom_1", "bottom_2", "bottom_3"}


def test_a_map_has_sliders_for_its_principal_components(tmp_path: Path) -> None:
    vae, data = relative(tmp_path, "spatial")
    shown = data_of(view(ViewConfig(vae=vae, data=data, out=tmp_path / "page.html", device="cpu")).out)
    sliders = shown["latents"]["sliders"]
    components = floats(shown["latents"]["components"]).reshape(len(sliders), -1)
    mu = np.concatenate([floats(each["mu"]).reshape(each["rows"], -1) for each in shown["episodes"]]).astype(np.float64)
    assert components.shape[1] == mu.shape[1] == 32
    np.testing.assert_allclose(components @ components.T, np.eye(len(sliders)), atol=1e-5)
    along = mu @ components.T
    np.testing.assert_allclose([slider["mean"] for slider in sliders], along.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose([slider["std"] for slider in sliders], along.std(axis=0), rtol=1e-3)
    explained = np.linalg.eigvalsh(np.cov(mu.T))[::-1][: len(sliders)] / np.cov(mu.T).trace()
    np.testing.assert_allclose([slider["amount"] for slider in sliders], 100 * explained, rtol=1e-3)


def test_components_of_frames_that_are_all_the_same() -> None:
    assert principal_components(torch.ones(5, 3)).shape == (0, 3)


def floats(text: str) -> np.ndarray:
    return np.frombuffer(gzip.decompress(base64.b64decode(text)), "<f4")


def test_a_page_has_as_many_frames_as_it_has_room_for(
    monkeypatch: pytest.MonkeyPatch, stamp_page: ViewReport, stamp_vae: Path, stamp_rollouts: Path, tmp_path: Path
) -> None:
    whole, folder = len(stamp_page.out.read_bytes()), stamp_page.out.parent
    taken = sum(len(text) for each in data_of(stamp_page.out)["episodes"] for text in each["recorded"])
    config = ViewConfig(vae=stamp_vae, data=stamp_rollouts, rnn=folder, out=tmp_path / "page.html", device="cpu")
    monkeypatch.setattr(stage, "MAX_BYTES", whole - taken // 2)
    report = view(config)
    assert len(report.out.read_bytes()) <= whole - taken // 2
    assert 8 <= report.frames < stamp_page.frames
    assert data_of(report.out)["episodes"][0]["ending"] == "cut"
    monkeypatch.setattr(stage, "MAX_BYTES", 600_000)
    with pytest.raises(ConfigError, match="4 episodes are too many for a page of 0 MB"):
        view(config)


def test_what_short_episodes_leave_goes_to_longer_ones() -> None:
    assert shares({7: 100, 8: 10, 9: 60}, 100) == {7: 45, 8: 10, 9: 45}
    assert shares({7: 5, 8: 6}, 100) == {7: 5, 8: 6}


def test_text_from_strangers_stays_text(tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data", spec={"env": HOSTILE, "policy": HOSTILE})
    vae = write_vae(tmp_path / "vae", data)
    report = view(ViewConfig(vae=vae, data=data, out=tmp_path / "page.html", device="cpu"))
    text = report.out.read_text()
    assert "alert(1)</script>" not in text
    assert "<img" not in text
    assert data_of(report.out)["title"] == printable(HOSTILE)
    assert len(re.findall("<script", text)) == 4


def test_a_page_inside_of_what_it_shows_is_refused(stamp_vae: Path, stamp_rollouts: Path) -> None:
    for place in (stamp_vae, stamp_rollouts):
        with pytest.raises(ConfigError, match="lies in a directory that is only read; give a directory outside of it"):
            ViewConfig(vae=stamp_vae, data=stamp_rollouts, out=place / "page.html")


def test_weights_that_give_nan_are_refused(tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data")
    model = VAE(VAEConfig(frame_height=8, frame_width=8, latent_dim=3))
    torch.nn.init.constant_(model.to_posterior.bias, float("nan"))
    vae = write_vae(tmp_path / "vae", data, model=model)
    with pytest.raises(ModelFailed, match="mu is NaN or infinite in episode 1; its weights are not usable"):
        view(ViewConfig(vae=vae, data=data, out=tmp_path / "page.html", device="cpu"))
    assert not (tmp_path / "page.html").exists()


def test_json_in_a_script_cannot_end_it() -> None:
    assert "<" not in as_json({"a": "<!--<script>"})


def test_tokens_have_their_episodes_alone(tmp_path: Path) -> None:
    data = write_rollouts(tmp_path / "data")
    vae = write_vae(tmp_path / "vae", data)
    (vae / "vae.safetensors").write_bytes(save(FSQ(FSQConfig(frame_height=8, frame_width=8, token_grid=4))))
    report = view(ViewConfig(vae=vae, data=data, out=tmp_path / "page.html", device="cpu"))
    assert report.latents == "left out: its autoencoder is fsq, which is not gaussian, spatial or ladder"
    shown = data_of(report.out)
    assert shown["latents"]["absent"] in report.latents
    assert all(episode["decoded"] for episode in shown["episodes"])
    with pytest.raises(ConfigError, match="dreams of latents with a Gaussian for each number, which fsq does not have"):
        view(ViewConfig(vae=vae, data=data, out=tmp_path / "other.html", rnn=tmp_path, device="cpu"))


def test_a_decoder_that_is_too_large_is_left_out(
    monkeypatch: pytest.MonkeyPatch, write_rnn: WriteRnn, stamp_vae: Path, stamp_rollouts: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(stage, "MAX_DECODER_BYTES", 1000)
    report = view(ViewConfig(vae=stamp_vae, data=stamp_rollouts, out=tmp_path / "page.html", device="cpu"))
    assert re.fullmatch(r"left out: its decoder would take \d\.\d MB, for which a page has no room", report.latents)
    assert all(episode["decoded"] for episode in data_of(report.out)["episodes"])
    with pytest.raises(ConfigError, match="a dream needs the decoder in the page, which is not possible"):
        view(ViewConfig(vae=stamp_vae, data=stamp_rollouts, out=tmp_path / "page.html", rnn=write_rnn(), device="cpu"))


@pytest.mark.parametrize("kind", ["open", "write", "fsync file", "rename"])
def test_a_full_disk_leaves_the_older_page(
    monkeypatch: pytest.MonkeyPatch, stamp_vae: Path, stamp_rollouts: Path, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "page.html"
    out.write_bytes(MARK + b"older")
    config = ViewConfig(vae=stamp_vae, data=stamp_rollouts, out=out, episodes=1, frames=4, device="cpu")
    with monkeypatch.context() as patch:
        disk = FullDisk(patch, kind, 1)
        with pytest.raises(WriteFailed, match="nothing half-written is visible"):
            view(config)
        assert disk.failed
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    assert out.read_bytes() == MARK + b"older"
    view(config)
    assert len(out.read_bytes()) > 100_000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("page.htm", "--out: expected a name that ends in .html, got '?"),
        ("page.html --frames 7", "--frames 7: 4 episodes need at least 2 frames each; ask for 8 or more"),
        ("absent/page.html", "its folder is not there; make it first"),
        ("mine.html", "is there and is no page of wm-view, so it is not replaced"),
    ],
)
def test_a_place_that_cannot_hold_the_page(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stamp_vae: Path,
    stamp_rollouts: Path,
    tmp_path: Path,
    name: str,
    message: str,
) -> None:
    (tmp_path / "mine.html").write_text("<!doctype html>\nmine")
    refuse = Refusal(monkeypatch, capsys)
    line = refuse("wm-view", "--quiet", "--vae", stamp_vae, "--data", stamp_rollouts, "--out", *f"{tmp_path}/{name}".split())
    assert re.search(message, line)
    assert (tmp_path / "mine.html").read_text() == "<!doctype html>\nmine"
