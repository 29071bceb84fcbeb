"""The whole import: open the recording, hash its files, let the core of collection write the episodes, judge the alignment.

The blocks, shards, resumption and commits are those of `collection`. So a kill loses at most the shard under way, a rerun
continues, and the number of workers changes nothing in the files. Memory holds the episodes of one shard.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worldmodel_v.alignment import judge, read_rows
from worldmodel_v.collection import CollectionConfig
from worldmodel_v.collection.collector import collect_into
from worldmodel_v.errors import ConfigError
from worldmodel_v.importing.config import ImportConfig
from worldmodel_v.importing.recording import Recording, named, reading
from worldmodel_v.importing.source import ImportSource
from worldmodel_v.importing.source_files import SourceFiles
from worldmodel_v.interrupts import raised_again_if_lost
from worldmodel_v.notebook import shown
from worldmodel_v.process import output_to_stderr
from worldmodel_v.progress import Progress
from worldmodel_v.storage import DatasetWriter, open_dataset


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import found and did."""

    out: Path
    """The dataset's directory."""

    format: str

    episodes: int
    """Episodes in the dataset now."""

    frames: int
    """Rows in the dataset now: one more than the actions of each episode."""

    new_episodes: int
    """Episodes that this run added; 0 if everything was there."""

    notes: list[str]
    """What the recording lacks and what was done about it, and what else was left out: one sentence each."""

    alignment: str | None
    """Whether the actions are in the right rows: aligned, late or early by some rows, or undecidable; None if not judged."""


@raised_again_if_lost()
def import_recordings(config: ImportConfig, progress: Progress | None = None) -> ImportReport:
    """Make `config.out` a dataset of the episodes of `config.from_`; continues what is there.

    Raises UsageError (DatasetNotUsable, ConfigError, OutputNotUsable, PackageMissing, …) if the recording or the directory is
    not usable, also in the middle if a file is damaged, and WriteFailed; everything committed by then stays.
    """
    progress = shown(progress)
    with output_to_stderr():
        with named(str(config.from_)), reading(config.from_):
            recording = config.open()
        episodes = _num_episodes(config, recording)
        files = SourceFiles.of(recording, progress)
        files.require_same(config.out)
        source = ImportSource.of(config, recording, files)
        collection = CollectionConfig(
            out=config.out,
            episodes=episodes,
            workers=config.workers,
            episodes_per_shard=config.episodes_per_shard,
            episode_timeout=0,
        )
        with DatasetWriter(config.out.absolute(), source.spec):  # begins it
            files.put_beside(config.out.absolute())
        collected = collect_into(source, collection, progress, stage="import")
        files.require_unchanged()
    return ImportReport(
        **asdict(collected),
        format=config.name,
        notes=source.notes,
        alignment=_judged(config.out, progress) if config.alignment else None,
    )


def _num_episodes(config: ImportConfig, recording: Recording) -> int:
    """How many are wanted; raises ConfigError if there are fewer, or if one that is left out is not there."""
    if wrong := [number for number in config.skip if not 0 <= number < recording.num_episodes]:
        raise ConfigError(field="skip", expected=f"0 to {recording.num_episodes - 1}", got=wrong[0])
    skipped = len({*config.skip})
    most = recording.num_episodes - skipped
    if skipped and not most:
        raise ConfigError(f"leaves out all {skipped} episodes", field="skip", remedy="leave out fewer")
    wanted = most if config.episodes is None else config.episodes
    if not 1 <= wanted <= most:
        has = f"has besides the {skipped} skipped ones" if skipped else "has"
        raise ConfigError(field="episodes", expected=f"at most {most}, which {config.from_} {has}", got=wanted)
    return wanted


def _judged(out: Path, progress: Progress) -> str:
    """The verdict on the dataset's rows in words; a warning goes to `progress` unless it leaves nothing to say."""
    verdict = judge(read_rows(open_dataset(out), progress), progress)
    facts: dict[str, Any] = {"verdict": verdict.answer, "rows": verdict.rows, "possible": list(verdict.possible)}
    is_wrong = verdict.answer in ("late", "early")
    remedy = "; the recording has its actions in other rows than its format says" if is_wrong else ""
    message = f"import: the actions are {verdict}: {verdict.evidence}{remedy}"
    progress.event("alignment_judged", message, warning=is_wrong, stage="import", evidence=verdict.evidence, **facts)
    return str(verdict)
