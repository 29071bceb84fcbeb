"""`wm-inspect`: what a dataset or model is, in one screen; verification; a picture of frames."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from worldmodel_v.cli.main import run
from worldmodel_v.cli.tables import print_facts
from worldmodel_v.errors import ConfigError
from worldmodel_v.progress import Progress


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Show what a dataset or model directory is, and how far the work on it is; a process that writes there is not disturbed.

    With --verify, every byte is checked against the index, and the command fails naming each shard that is off. With
    --data or --vae, latents are checked to have been made from those rollouts and by that VAE.
    """

    path: tyro.conf.Positional[Path]
    """A directory that wm-collect, wm-train or wm-encode wrote."""

    state: bool = False
    """Show only how far it is and who is at it, opening no shard: for datasets of thousands of shards that are being made."""

    verify: bool = False
    """Check every byte and row of a dataset."""

    preview: Path | None = None
    """Write a PNG with frames of some episodes, one row each."""

    data: Path | None = None
    """For latents: the rollouts that they shall have been made from."""

    vae: Path | None = None
    """For latents: the VAE that shall have made them."""


def main() -> None:
    """Entry point of `wm-inspect`."""
    run("wm-inspect", InspectConfig, inspect, show=print_facts)


def inspect(config: InspectConfig, progress: Progress) -> dict[str, Any]:
    """The facts of a directory, after the checks that were asked for; raises WorldModelError."""
    from worldmodel_v import inspection
    from worldmodel_v.evaluate.grids import to_png
    from worldmodel_v.storage.publish import publish

    checked: dict[str, Any] = {}
    if config.preview is not None and not config.preview.absolute().parent.is_dir():
        raise ConfigError(f"--preview {config.preview}: its folder is not there; make it first")
    if config.verify:
        checked["verified"] = inspection.require_intact(config.path, progress)
    facts = inspection.describe_run(config.path) if config.state else inspection.describe(config.path)
    if config.data is not None or config.vae is not None:
        inspection.require_binding(config.path, data=config.data, vae=config.vae)
    if config.preview is not None:
        publish(config.preview, to_png(inspection.preview(config.path)))
        checked["preview"] = str(config.preview)
    return facts | checked
