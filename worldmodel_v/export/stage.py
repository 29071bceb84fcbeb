"""A whole export: open and verify the dataset, write the format's files, record where they come from, publish.

`source.json` is next to the files, at a place where no trainer's loader looks. It records the dataset and VAE, how rows align,
what the format lacks, and which episode each sequence is.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from worldmodel_v import __version__
from worldmodel_v.export.config import ExportConfig, Written
from worldmodel_v.export.notes import absent_reward
from worldmodel_v.export.packages import optional
from worldmodel_v.export.source import Source
from worldmodel_v.interrupts import raised_again_if_lost
from worldmodel_v.notebook import shown
from worldmodel_v.progress import Progress
from worldmodel_v.storage.new_directory import new_directory, require_new

SOURCE_NAME = "source.json"


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export wrote."""

    out: Path
    format: str
    episodes: int
    rows: int
    """Rows in the files, padding included."""

    bytes: int
    alignment: str
    """Which action and reward are in the same row as a frame or latent."""

    notes: list[str]
    """What the format lacks, or holds in a different way than the dataset."""


@raised_again_if_lost()
def export(config: ExportConfig, progress: Progress | None = None) -> ExportReport:
    """Write the dataset to `config.out` in the format of `config`; it appears completely or not at all.

    Raises UsageError (PackageMissing, DatasetNotUsable, ShardDamaged, ConfigError, OutputNotUsable, …) before
    anything is written, WriteFailed if the disk fails.
    """
    progress = shown(progress)
    require_new(config.out, config.keeps)
    for module in config.modules:
        optional(module)
    source: Source[Any] = Source(config.data, config.reads, progress)
    config.require_columns(source)
    config.check(source)
    with new_directory(config.out, config.keeps) as folder:
        written = config.write(source, folder, progress)
        written = replace(written, notes=[*written.notes, *absent_reward(source)])
        (folder / SOURCE_NAME).write_text(json.dumps(_provenance(config, source, written), indent=2) + "\n")
        num_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return ExportReport(
        out=config.out,
        format=config.name,
        episodes=len(written.episode_ids),
        rows=written.num_rows,
        bytes=num_bytes,
        alignment=config.alignment,
        notes=written.notes,
    )


def _provenance(config: ExportConfig, source: Source[Any], written: Written) -> dict[str, Any]:
    dataset = source.dataset
    columns = (source.episode_ids.tolist(), source.seeds.tolist(), source.policies, source.num_steps.tolist(), source.origins)
    kept = set(written.episode_ids)
    return {
        "format": config.name,
        "made_by": f"worldmodel_v {__version__}",
        "alignment": config.alignment,
        "notes": written.notes,
        "dataset": {"format": dataset.format, "spec_hash": dataset.spec_hash, "spec": dataset.spec.settings()},
        "episodes": [
            {"episode_id": episode_id, "seed": seed, "policy": policy, "num_steps": num_steps}
            | ({"origin": origin._asdict()} if origin else {})
            for episode_id, seed, policy, num_steps, origin in zip(*columns, strict=True)
            if episode_id in kept
        ],
    }
