"""What a directory is: a rollout dataset, a latent dataset or a VAE, as plain facts for a screen or a program.

All of this is safe while another process writes there: it takes no lock and writes nothing. Shards and checkpoints appear
whole; in files of lines, an incomplete last line is ignored. For a dataset behind a URL, only its content is known, not which
process works on it.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel_v.alignment import judge, read_rows
from worldmodel_v.coverage import driving
from worldmodel_v.errors import DatasetNotUsable, VerificationFailed
from worldmodel_v.evenly import evenly_spaced
from worldmodel_v.progress import Progress
from worldmodel_v.schema import ROLLOUTS, Column
from worldmodel_v.selection import open_rollouts
from worldmodel_v.settings import local_path
from worldmodel_v.spec import LatentSpec, Spec
from worldmodel_v.storage import Dataset, Location, files, open_dataset, to_place, verify
from worldmodel_v.storage.dataset import SPEC_NAME
from worldmodel_v.storage.index import INDEX_NAME, SHARD_FOLDER, latest_entry
from worldmodel_v.storage.lock import Run, began, is_at_work, read_run
from worldmodel_v.storage.publish import TEMPORARY_PREFIX
from worldmodel_v.storage.reading import readable
from worldmodel_v.untrusted import printable
from worldmodel_v.words import counted

MODEL_NAMES = ("vae.safetensors", "checkpoint.safetensors")
PREVIEW_EPISODES = 6
PREVIEW_FRAMES = 10


KINDS = {"collect": "rollouts", "import": "rollouts", "encode": "latents", "train": "vae"}
"""The kind of directory that each stage makes."""


def describe(path: Location) -> dict[str, Any]:
    """The facts of a dataset or model directory, as JSON values; raises UsageError if it is neither or is damaged.

    It opens every shard, which takes a few milliseconds each; `describe_run` opens none.
    """
    return _describe(path, _describe_dataset, _describe_model)


def describe_run(path: Location) -> dict[str, Any]:
    """How far the work on a directory is, and which process does it, as JSON values; raises UsageError as `describe` does."""
    return _describe(path, _describe_run_of_dataset, _describe_run_of_training)


@readable()
def _describe(
    location: Location, of_dataset: Callable[[Dataset[Spec]], dict], of_model: Callable[[Path], dict]
) -> dict[str, Any]:
    path = to_place(location)
    if not isinstance(path, Path) or (path / SPEC_NAME).exists():
        return of_dataset(open_dataset(path))
    run = read_run(path)
    if any((path / name).exists() for name in MODEL_NAMES) or (run and run.stage == "train"):
        return of_model(path)
    if run and run.stage:  # before anything is written
        return {"kind": KINDS.get(run.stage, "unknown"), "path": str(path), "run": _run(path, run.done or 0, None)}
    if path.is_file():
        raise DatasetNotUsable("is a file", where=path, remedy="give the directory that it lies in")
    found = "no such directory" if not path.is_dir() else f"neither {SPEC_NAME} nor {MODEL_NAMES[0]} is in it"
    raise DatasetNotUsable(found, where=path, remedy="give a directory that wm-collect, wm-train or wm-encode wrote")


def require_intact(path: Location, progress: Progress | None = None) -> str:
    """Verify every byte and row of a dataset, and say what was checked; raises VerificationFailed with every finding."""
    dataset = _require_dataset(path, "verify")
    if findings := verify(dataset, progress):
        raise VerificationFailed("\n".join(map(printable, findings)))
    sizes = {"shard": len(dataset.entries), "episode": dataset.num_episodes, "row": dataset.num_rows}
    return f"{', '.join(counted(number, noun) for noun, number in sizes.items())}: every byte as indexed"


def judge_alignment(path: Location, progress: Progress | None = None) -> dict[str, Any]:
    """Whether the actions of a dataset are in the right rows, as JSON values: the verdict, by how many rows, which shifts are
    possible (late ones positive; none if nothing is known), and the evidence. Takes up to a minute."""
    verdict = judge(read_rows(_require_dataset(path, "judge"), progress), progress)
    facts = {"verdict": verdict.answer, "rows": verdict.rows, "possible": list(verdict.possible)}
    return facts | {"evidence": verdict.evidence}


def require_binding(latents_path: Location, *, data: Location | Iterable[Location] | None, vae: str | Path | None) -> None:
    """Raise DatasetNotUsable unless the latents were made from these rollouts and by this VAE (each checked if given)."""
    latents = open_dataset(latents_path, LatentSpec)
    if vae is not None:
        from worldmodel_v.autoencoders import artifact

        sha256 = artifact.describe(local_path(vae)).sha256
        if latents.spec.vae_sha256 != sha256:
            made_by = latents.spec.vae_sha256
            raise DatasetNotUsable(
                f"was made by the VAE {made_by[:12]}…, {vae} holds {sha256[:12]}…",
                where=latents_path,
                remedy="encode into a new directory",
            )
    if data is not None:
        from worldmodel_v.encoding.stage import require_current

        require_current(latents, open_rollouts(data))


def preview(path: Location) -> np.ndarray:
    """A picture of frames of some episodes, one row each, evenly spaced in time: uint8 RGBA (H, W, 4)."""
    from worldmodel_v.evaluation.canvas import Row, frame_grid

    dataset = _require_frames(path)
    episode_ids = [entry.first_episode + i for entry in dataset.entries for i in range(entry.num_episodes)]
    picked = evenly_spaced(len(episode_ids), PREVIEW_EPISODES)
    rows = []
    for position in picked:
        pixels = dataset.episode(episode_ids[position]).pixels
        rows.append(Row(f"no. {episode_ids[position]}", pixels[evenly_spaced(len(pixels), PREVIEW_FRAMES)]))
    return frame_grid(rows)


def video(path: Location, episode: int, kind: str, progress: Progress | None = None) -> bytes:
    """An episode of rollouts as a file of its own: a video of the kind `.gif` or `.mp4`."""
    from worldmodel_v.evaluation.video import WRITERS

    dataset = _require_frames(path)
    return WRITERS[kind](dataset.episode(episode).pixels, progress)


def _require_frames(path: Location) -> Dataset[Spec]:
    """The rollouts there; raises DatasetNotUsable if there are none."""
    dataset = _require_dataset(path, "draw")
    if dataset.format != ROLLOUTS:
        raise DatasetNotUsable(
            where=path, expected="frames for a picture", got="latents", remedy="give the rollouts that they were made from"
        )
    if not dataset.num_episodes:
        raise DatasetNotUsable("the dataset is empty", where=path, remedy="run wm-collect first")
    return dataset


@readable()
def _require_dataset(location: Location, work: str) -> Dataset[Spec]:
    path = to_place(location)
    if isinstance(path, Path) and not (path / SPEC_NAME).exists() and any((path / name).exists() for name in MODEL_NAMES):
        raise DatasetNotUsable(where=path, expected=f"a dataset to {work}", got="a VAE")
    return open_dataset(path)


def _describe_run_of_dataset(dataset: Dataset[Spec]) -> dict[str, Any]:
    done, shards = dataset.num_episodes, len(dataset.entries)
    return {
        "kind": dataset.format.split("/")[1],
        "path": str(dataset.path),
        "episodes": done,
        "rows": dataset.num_rows,
        "shards": shards,
        "set_aside": [
            {
                "episode": episode.episode,
                "seed": episode.seed,
                "shard": f"{episode.shard} ({counted(episode.num_episodes, 'episode')} from {episode.first_episode})",
                "tries": episode.tries,
                "reason": episode.reason,
            }
            for episode in dataset.set_aside()
        ],
        "bytes": sum(entry.bytes for entry in dataset.entries),
        "run": _run_of_dataset(dataset.path, done) if isinstance(dataset.path, Path) else None,
    }


def _run_of_dataset(path: Path, done: int) -> dict[str, Any] | None:
    entry = latest_entry(path / INDEX_NAME) if done else None
    return _run(path, done, None if entry is None else _time_of_change(path / entry.name))


def _run(path: Path, done: int, latest: datetime | None) -> dict[str, Any] | None:
    """Which process works or worked on a directory, and its progress: `done` of its goal, the last one at the time `latest`.

    None if the directory records no run.
    """
    run = read_run(path)
    if run is None:
        return None
    at_work, begin = is_at_work(path, run), began(path)
    new = done - run.done if run.done is not None else 0
    seconds = (latest - begin).total_seconds() if latest else 0.0
    return {
        "state": _state(run, at_work, done),
        "process": f"{run.pid} on {run.host}",
        "stage": run.stage or None,
        "done": done,
        "wanted": run.goal,
        "started": _text(begin),
        "latest": _text(latest) if latest else None,
        "per_second": round(new / seconds, 3) if new > 0 and seconds > 0 else None,
        "temporaries": sorted(
            name
            for folder in (path, path / SHARD_FOLDER)
            for name in files.names(folder, inside=path)
            if name.startswith(TEMPORARY_PREFIX)
        ),
    }


def _state(run: Run, at_work: bool | None, done: int) -> str:
    if at_work:
        return "running"
    if run.goal is not None and done >= run.goal:
        return "complete"
    return "stopped" if at_work is False else f"not known here: look on {run.host}"


def _time_of_change(file: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(files.lstat(file).st_mtime, UTC)
    except OSError:
        return None


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _describe_dataset(dataset: Dataset[Spec]) -> dict[str, Any]:
    lengths: list[np.ndarray] = []
    returns: list[np.ndarray] = []
    columns: dict[str, str] = {}
    ends = {"terminated": 0, "truncated": 0}
    state_names: tuple[str, ...] = ()
    for _, shard in dataset.shards():
        lengths.append(shard.ep_len - 1)
        returns.append(shard.returns)
        columns = {column.name: _column_text(column, *shard.columns[column.name]) for column in dataset.schema.data_columns}
        state_names = shard.state_names
        for name in ends:
            ends[name] += int(shard.rows(name).sum())
    facts = _describe_run_of_dataset(dataset)
    num_bytes = facts["bytes"]
    return facts | {
        "bytes_per_row": round(num_bytes / dataset.num_rows, 1) if dataset.num_rows else None,
        "steps_per_episode": _spread(lengths),
        "return": None if dataset.schema["reward"].absent else _spread(returns),
        "ends": ends,
        "columns": columns,
        "state_names": list(state_names),
        "driving": driving(dataset),
        "settings": dataset.spec.all_settings(),
        "spec_hash": dataset.spec_hash,
    }


def _describe_run_of_training(path: Path) -> dict[str, Any]:
    from worldmodel_v.training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    return _training(path, checkpoint.step if checkpoint else None)


def _training(path: Path, checkpoint_step: int | None) -> dict[str, Any]:
    """How far a training is: the last step in its metrics, and the step of the checkpoint that it would continue from."""
    from worldmodel_v.autoencoders.artifact import METRICS_NAME
    from worldmodel_v.training.metrics import last_records

    latest = last_records(path)
    step = max((int(record["step"]) for record in latest.values()), default=checkpoint_step or 0)
    return {
        "kind": "vae",
        "path": str(path),
        "run": _run(path, step, _time_of_change(path / METRICS_NAME)),
        "checkpoint_step": checkpoint_step,
        "latest": {group: latest[group] for group in ("train", "held-out") if group in latest},
    }


def _describe_model(path: Path) -> dict[str, Any]:
    from worldmodel_v.autoencoders import artifact
    from worldmodel_v.training.best import load_best
    from worldmodel_v.training.checkpoint import kept_checkpoints, load_checkpoint
    from worldmodel_v.training.publication import read_evaluation

    is_finished = (path / MODEL_NAMES[0]).exists()  # checked first: a VAE published after this counts as unfinished
    checkpoint = load_checkpoint(path)
    facts = _training(path, checkpoint.step if checkpoint else None)
    facts["kept_checkpoints"] = [file.name for file in kept_checkpoints(path)]
    best = load_best(path)
    facts["best"] = {"step": best.step, best.figure: round(best.heldout[best.figure], 2)} if best else None
    settings = checkpoint.settings if checkpoint else None
    if not is_finished:
        return facts | {"finished": False, "settings": settings}
    found = artifact.describe(path)
    published = read_evaluation(path) or {}
    facts |= {"finished": True, "vae_sha256": found.sha256, "autoencoder": found.kind, "latents": found.columns}
    facts |= {"parameters": found.num_parameters, "steps": published.get("steps")}
    facts["weights_of_step"] = published.get("weights_of_step")
    facts["model"] = found.config
    facts["held_out"] = published.get("heldout")
    return facts | {"settings": settings}


def _column_text(column: Column, dtype: np.dtype, shape: tuple[int, ...]) -> str:
    values = "" if column.num_values is None else f", {column.num_values} values"
    return f"{dtype} ({', '.join(['rows', *map(str, shape[1:])])}){values}"


def _spread(parts: list[np.ndarray]) -> dict[str, float] | None:
    if not parts:
        return None
    values = np.concatenate(parts)
    return {name: round(float(getattr(values, name)()), 3) for name in ("min", "mean", "max")}
