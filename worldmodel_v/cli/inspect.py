"""`wm-inspect`: what a dataset or model is, in one screen; verification; a picture of frames; a video of an episode."""

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from annotated_types import Ge

from worldmodel_v.cli.main import run
from worldmodel_v.cli.overview import print_overview
from worldmodel_v.errors import ConfigError
from worldmodel_v.progress import Progress
from worldmodel_v.settings import require_settings
from worldmodel_v.surface import option

SIGNATURES = {".png": (0, b"\x89PNG\r\n\x1a\n"), ".gif": (0, b"GIF8"), ".mp4": (4, b"ftyp")}
"""How the files begin that this command writes, and so may replace: the place, and the bytes there."""

ENDINGS = {"preview": (".png", ""), "video": (".gif", ".mp4")}
"""How the names of what it writes may end."""


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Show what a dataset or model directory is, and how far the work on it is; this does not disturb a process that writes it.

    With --verify, every byte is checked against the index; the command fails and names each damaged shard.
    """

    path: tyro.conf.Positional[str | Path]
    """A dataset (rollouts or latents), a directory that wm-train wrote, or the URL of a dataset."""

    state: bool = False
    """Show only how far it is and who works on it: fast, also for thousands of shards."""

    verify: bool = False
    """Check every byte and row of a dataset."""

    alignment: bool = False
    """Judge whether the actions of a dataset are in the right rows: aligned, late or early by some rows, or undecidable."""

    preview: Path | None = None
    """Write frames of some episodes, a row each, to this PNG, which may not lie in the dataset."""

    video: Path | None = None
    """Write an episode to this file, a .gif or .mp4, which may not lie in the dataset."""

    episode: Annotated[int | None, Ge(0)] = None
    """Which episode the video shows; without it, the first."""

    data: tuple[str | Path, ...] = ()
    """For latents: check that they were made from these rollouts, in the order that wm-encode had; directories or URLs."""

    vae: Path | None = None
    """For latents: check that this VAE made them."""

    def __post_init__(self) -> None:
        require_settings(self)
        if self.episode is not None and self.video is None:
            raise ConfigError("has no effect", field="episode", remedy=f"give {option('video')} too")
        for field, endings in ENDINGS.items():
            file = getattr(self, field)
            if file is not None and file.suffix not in endings:
                named = " or ".join(filter(None, endings))
                raise ConfigError(field=field, expected=f"a name that ends in {named}", got=file)


def main() -> None:
    """Entry point of `wm-inspect`."""
    run("wm-inspect", InspectConfig, inspect, show=print_overview)


def inspect(config: InspectConfig, progress: Progress) -> dict[str, Any]:
    """The facts of a directory, after the checks that were asked for; raises WorldModelError."""
    from worldmodel_v import inspection
    from worldmodel_v.storage import to_place
    from worldmodel_v.storage.publish import publish

    checked: dict[str, Any] = {}
    inspected = to_place(config.path)
    for field in ("preview", "video"):
        if (file := getattr(config, field)) is not None:
            _require_free(file, field, inspected if isinstance(inspected, Path) else None)
    if config.verify:
        checked["verified"] = inspection.require_intact(config.path, progress)
    if config.alignment:
        checked["alignment"] = inspection.judge_alignment(config.path, progress)
    facts = inspection.describe_run(config.path) if config.state else inspection.describe(config.path)
    if config.data or config.vae is not None:
        inspection.require_binding(config.path, data=config.data or None, vae=config.vae)
        checked["checked_against"] = [str(each) for each in (*config.data, config.vae) if each is not None]
    if config.preview is not None:
        from worldmodel_v.evaluation.grids import to_png  # which loads torch

        publish(config.preview, to_png(inspection.preview(config.path)))
        checked["preview"] = str(config.preview)
    if config.video is not None:
        publish(config.video, inspection.video(config.path, config.episode or 0, config.video.suffix, progress))
        checked["video"] = str(config.video)
    return facts | checked


def _require_free(file: Path, field: str, inspected: Path | None) -> None:
    """Raise ConfigError unless a file can be written there without loss: outside of `inspected`, and new or one of its kind."""
    from worldmodel_v.storage.publish import require_folder_of

    require_folder_of(file, field=field, got=file)
    folder = file.absolute().parent
    if inspected and inspected.resolve() in (folder.resolve(), *folder.resolve().parents):
        what, remedy = f"lies in {inspected}, which is only looked at", "give a file outside of it"
        raise ConfigError(what, field=field, got=file, remedy=remedy)
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return
    kind = ".png" if field == "preview" else file.suffix
    if stat.S_ISDIR(mode):
        remedy = f"give a file, such as {file / field}{kind}"
        raise ConfigError("is a directory", field=field, got=file, remedy=remedy)
    if not (stat.S_ISREG(mode) and _begins_as(kind, file)):
        what, remedy = f"is there and is no {kind[1:].upper()}, so it is not replaced", "give a new file"
        raise ConfigError(what, field=field, got=file, remedy=remedy)


def _begins_as(kind: str, file: Path) -> bool:
    place, signature = SIGNATURES[kind]
    with file.open("rb") as opened:
        return opened.read(place + len(signature))[place:] == signature
