"""The page: whole, self-contained, readable without pictures, and safe with any text; in a browser where there is one."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.conftest import write_rollouts, write_vae
from worldmodel_v.evaluation import EvalConfig, EvaluationReport, evaluate
from worldmodel_v.evaluation.stage import PICTURE_NAMES

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
NUM_CURVES = 1
"""The loss: its training measured held-out frames only once."""

VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Every element with its attributes, and all text; fails on elements that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.words = ""
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.words += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(small_evaluation: EvaluationReport) -> Page:
    return Page(small_evaluation.page.read_text())


def test_nothing_is_fetched_from_anywhere(small_evaluation: EvaluationReport, page: Page) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), (tag, name)
        assert not any(name.startswith("on") for name in attributes), tag
    assert not {"script", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    text = re.sub(r'src="data:[^"]*"', "", small_evaluation.page.read_text())
    assert not re.search(r"https?:|@import|url\(", text)


def test_every_picture_is_in_it_with_words_for_those_who_do_not_see_it(page: Page) -> None:
    pictures = page.named("img")
    assert len(pictures) == len(PICTURE_NAMES)
    for picture in pictures:
        assert len(picture["alt"] or "") > 20
        assert int(picture["width"] or 0) > 100
    assert len(page.named("svg")) == 2 + NUM_CURVES
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in page.named("svg"))


def test_every_figure_says_what_to_look_for_and_whether_it_is_good(page: Page) -> None:
    captions = [attributes for tag, attributes in page.elements if tag == "figcaption"]
    verdicts = [attributes["class"] for attributes in page.named("p") if "verdict" in (attributes.get("class") or "")]
    assert len(captions) == len(PICTURE_NAMES) + 1 + NUM_CURVES
    assert len(verdicts) >= len(PICTURE_NAMES) + 1
    assert set(verdicts) <= {"verdict good", "verdict fair", "verdict bad", "verdict note"}


def test_every_section_is_in_the_table_of_contents_and_in_its_order(small_evaluation: EvaluationReport, page: Page) -> None:
    links = [(attributes["href"] or "").removeprefix("#") for attributes in page.named("a")]
    assert links == [attributes["id"] for attributes in page.named("section")]
    assert {"reconstructions", "training", "latents"} <= set(links)
    text = small_evaluation.page.read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert re.findall(r'<li><a href="#[^"]*">(.*?)</a></li>', text) == headings


def test_what_scrolls_is_reached_by_the_keyboard_and_has_a_name(page: Page) -> None:
    scrolling = [attributes for _, attributes in page.elements if attributes.get("class") == "scroll"]
    assert len(scrolling) > len(PICTURE_NAMES)
    assert all(item["tabindex"] == "0" and item["role"] == "region" and item["aria-label"] for item in scrolling)


def test_numbers_are_written_for_people(page: Page) -> None:
    assert not re.search(r"\d[eE][-+]?\d", re.sub(r"[0-9a-f]{12,}", "", page.words))
    assert not re.search(r"\d\.\d{5}", page.words)


def test_without_the_trainings_record_its_curves_are_left_out(small_rollouts: Path, small_vae: Path, tmp_path: Path) -> None:
    vae = shutil.copytree(small_vae, tmp_path / "vae")
    (vae / "metrics.jsonl").unlink()
    page = Page(evaluate(EvalConfig(vae=vae, data=small_rollouts, out=tmp_path / "eval", device="cpu")).page.read_text())
    assert len(page.named("svg")) == 2
    assert "training" not in [attributes["id"] for attributes in page.named("section")]


def test_it_names_the_vae_the_data_and_the_versions(small_evaluation: EvaluationReport, page: Page) -> None:
    assert small_evaluation.vae_sha256 in page.words
    assert "torch " in page.words
    assert f"{small_evaluation.summary.psnr_db:.1f} dB" in page.words.replace("\n", " ")
    assert "one episode in 4" in page.words


def test_text_from_outside_is_escaped(small_rollouts: Path, small_vae: Path, tmp_path: Path) -> None:
    vae = shutil.copytree(small_vae, tmp_path / "<script>alert(1)&'\"")
    text = evaluate(EvalConfig(vae=vae, data=small_rollouts, out=tmp_path / "eval", device="cpu")).page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&amp;&#39;&#34;</code>" in text
    assert vae.name in Page(text).words


def test_what_no_page_should_hold_is_spelled_out(tmp_path: Path) -> None:
    hostile = "a\x1b\x00\u202eb\ud800"
    data = write_rollouts(tmp_path / "data", spec={"env": hostile, "policy": hostile})
    vae = write_vae(tmp_path / "vae", data)
    text = evaluate(EvalConfig(vae=vae, data=data, out=tmp_path / "eval", device="cpu")).page.read_text()
    assert text.count(r"a\x1b\x00\u202eb\ud800") == 3


def browse(page: Path, profile: Path, *flags: str) -> str:
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", "--window-size=1280,4000", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it(small_evaluation: EvaluationReport, tmp_path: Path, dark: bool) -> None:
    shot = tmp_path / "shot.png"
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    browse(small_evaluation.page, tmp_path / "profile", f"--screenshot={shot}", *scheme)
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[:2] == (4000, 1280)
    assert (pixels[10, 10].mean() < 60) == dark
    for band in np.split(pixels[:, 150:1130], 8):
        assert len(np.unique(band.reshape(-1, 3), axis=0)) > 20


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_browser_finds_every_figure(small_evaluation: EvaluationReport, tmp_path: Path) -> None:
    found = Page(browse(small_evaluation.page, tmp_path / "profile", "--dump-dom"))
    assert len(found.named("img")) == len(PICTURE_NAMES)
    assert len(found.named("svg")) == 2 + NUM_CURVES
    assert "What the latents are worth" in found.words
