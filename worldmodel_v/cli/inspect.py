"""`wm-inspect`: what a dataset or model is, in one screen; verification; a picture of frames."""

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from worldmodel_v.cli.main import run
from worldmodel_v.cli.overview import print_overview
from worldmodel_v.errors import ConfigError
from worldmodel_v.progress import Progress

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Show what a dataset or model directory is, and how far the work on it is; this does not disturb a process that writes it.

    With --verify, every byte is checked against the index; the command fails and names each damaged shard.
    """

    path: tyro.conf.Positional[str | Path]
    """A directory that wm-collect, wm-train or wm-encode wrote, or the URL of a dataset."""

    state: bool = False
    """Show only how far it is and who works on it: fast, also for thousands of shards."""

    verify: bool = False
    """Check every byte and row of a dataset."""

    alignment: bool = False
    """Judge whether the actions of a dataset are in the right rows: aligned, late or early by some rows, or undecidable."""

    preview: Path | None = None
    """Write frames of some episodes, a row each, to this PNG, which may not lie in the dataset."""

    data: str | Path | None = None
    """For latents: check that they were made from these rollouts; a directory, or its URL."""

    vae: Path | None = None
    """For latents: check that this VAE made them."""


def main() -> None:
    """Entry point of `wm-inspect`."""
    run("wm-inspect", InspectConfig, inspect, show=print_overview)


def inspect(config: InspectConfig, progress: Progress) -> dict[str, Any]:
    """The facts of a directory, after the checks that were asked for; raises WorldModelError."""
    from worldmodel_v import inspection
    from worldmodel_v.evaluation.grids import to_png
    from worldmodel_v.storage import to_place
    from worldmodel_v.storage.publish import publish

    checked: dict[str, Any] = {}
    if config.preview is not None:
        inspected = to_place(config.path)
        _require_free(config.preview, inspected if isinstance(inspected, Path) else None)
    if config.verify:
        checked["verified"] = inspection.require_intact(config.path, progress)
    if config.alignment:
        checked["alignment"] = inspection.judge_alignment(config.path, progress)
    facts = inspection.describe_run(config.path) if config.state else inspection.describe(config.path)
    if config.data is not None or config.vae is not None:
        inspection.require_binding(config.path, data=config.data, vae=config.vae)
    if config.preview is not None:
        publish(config.preview, to_png(inspection.preview(config.path)))
        checked["preview"] = str(config.preview)
    return facts | checked


def _require_free(picture: Path, inspected: Path | None) -> None:
    """Raise ConfigError unless a picture can be written there without loss: outside of `inspected`, to a new file or a PNG."""
    folder = picture.absolute().parent
    if not folder.is_dir():
        raise ConfigError("its folder is not there", field="preview", got=picture, remedy="make it first")
    if inspected and inspected.resolve() in (folder.resolve(), *folder.resolve().parents):
        what, remedy = f"lies in {inspected}, which is only looked at", "give a file outside of it"
        raise ConfigError(what, field="preview", got=picture, remedy=remedy)
    try:
        mode = picture.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        remedy = f"give a file, such as {picture / 'preview.png'}"
        raise ConfigError("is a directory", field="preview", got=picture, remedy=remedy)
    if not (stat.S_ISREG(mode) and _begins_as_png(picture)):
        what, remedy = "is there and is no PNG, so it is not replaced", "give a new file"
        raise ConfigError(what, field="preview", got=picture, remedy=remedy)


def _begins_as_png(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(PNG_SIGNATURE)) == PNG_SIGNATURE
