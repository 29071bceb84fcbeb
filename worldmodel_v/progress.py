"""How work is reported without printing: stages report to a `Progress`, which the command line provides.

Stages report two things: how far a task is, and what has happened (events). An event has a line for people, and a name and
facts for programs; the `Progress` decides which of them it shows. Rejected: `logging` with its global handlers, beside which
the bars would need a second way to the same terminal.

The events and their facts. Most events also have their `stage` (collect, train, eval, encode):

    started             out, settings_hash (a dataset's spec_hash), done, total, unit
    compiling           (a message alone)
    ray_joined          address, nodes, cpus, metrics (where each node offers its metrics to Prometheus)
    worker_started      host, pid
    worker_died         host, pid, reason
    worker_replaced     host, pid (its memory or its open files have grown)
    task_retried        task, attempt, reason
    waiting_for_node    waited_seconds, cpus, free_cpus
    shard_committed     shard, episodes, rows, bytes, sha256
    shard_failed        shard (its episodes are tried one by one later)
    shard_set_aside     shard, episodes (those that fail)
    not_reproducible    episode, seed, steps (column -> the first step at which its two plays differ)
    evaluated           step, psnr_db, kl_nats, elbo_nats, …
    checkpoint_written  step, steps
    training_warning    (a message alone)
    finished            out, and what was done
    verified            path
    note                (a message alone)

The command line adds `progress`, `working` (seconds; ten seconds without a task or an event), `interrupted` and `failed`.
"""

from pathlib import Path
from typing import Any, Literal, Protocol

LogFormat = Literal["text", "json"]
"""How events are written: a line of text each, or a JSON object."""


class Task(Protocol):
    """One bar."""

    def advance(self, amount: int = 1, **facts: Any) -> None:
        """Move on by `amount` units; `facts` are shown beside the bar (loss=…, psnr=…)."""

    def close(self) -> None:
        """End the bar; the last state stays visible."""


class Progress(Protocol):
    """Where stages report. Implementations print, draw or ignore."""

    def task(self, title: str, total: int, unit: str, done: int = 0) -> Task:
        """Begin a bar of `total` units, of which `done` are done already."""

    def event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
        """Something has happened: `message` is one line for a person, `name` and `facts` (JSON values) are for a program."""

    def say(self, message: str) -> None:
        """A warning for people, which no program needs: the event `note`."""


class Silent:
    """Reports nothing: the default of every stage when called from Python, except in a notebook (`notebook`)."""

    def task(self, title: str, total: int, unit: str, done: int = 0) -> "Silent":
        return self

    def advance(self, amount: int = 1, **facts: Any) -> None:
        pass

    def close(self) -> None:
        pass

    def event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
        pass

    def say(self, message: str) -> None:
        pass


def begin(progress: Progress, stage: str, out: Path, settings_hash: str, *, total: int, unit: str, done: int) -> Task:
    """Report that a stage continues from `done` of `total` units into `out`; returns its bar."""
    progress.event(
        "started",
        f"{stage}: {total - done} of {total} {unit} to come into {out} (settings {settings_hash[:12]}…)",
        stage=stage,
        out=out,
        settings_hash=settings_hash,
        done=done,
        total=total,
        unit=unit,
    )
    return progress.task(stage, total, unit, done=done)
