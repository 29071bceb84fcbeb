"""The site builds without a warning, and needs no network."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks._browser import CHROMIUM, Browser
from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {path: path.read_text() for path in site.rglob("*.html")}
    assert (site / "howto" / "environments.html") in pages
    for path, text in pages.items():
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="(?:https?:)?//[^"]*"|<link[^>]*\shref="https?://[^"]*"', text)
        assert not loaded, f"{path}: {loaded}"


def test_no_list_is_run_into_its_paragraph(site: Path) -> None:
    """GitHub makes a list of lines that begin with "- " under a paragraph, MkDocs does only after an empty line."""
    for path in site.rglob("*.html"):
        text = re.sub(r"<(pre|script|style).*?</\1>", "", path.read_text(), flags=re.DOTALL)
        assert not re.search(r"^(- |\* |\d+\. )", text, flags=re.MULTILINE), path


def test_the_first_page_shows_the_dream(site: Path) -> None:
    shown = re.search(r'<iframe src="([^"#]+)#dream"', (site / "index.html").read_text())
    assert shown
    assert 1e6 < (site / shown[1]).stat().st_size < 4e6


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_dream_of_the_first_page_moves(tmp_path: Path) -> None:
    with Browser(ROOT / "docs" / "dream.html", tmp_path, part="dream") as browser:
        top = "document.getElementById('dream').getBoundingClientRect().top"
        margin = "parseFloat(getComputedStyle(document.getElementById('dream')).scrollMarginTop)"
        assert browser.value(f"{top} - {margin}") == pytest.approx(0, abs=1)  # where its address leads
        shown = "[...document.getElementById('dreamed').getContext('2d').getImageData(0, 0, 64, 64).data].join()"
        browser.value("worldView.dream.begin()")
        before = browser.value(shown)
        browser.value("worldView.dream.step(0)")
        assert browser.complaints == []
        assert browser.value(shown) != before
