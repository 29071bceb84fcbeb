"""How work is reported without printing: stages report to a `Progress`, which the command line provides.

Stages report two things: how far a task is, and what has happened (events). An event has a line for people, and a name and
facts for programs; the `Progress` decides which of them it shows. Rejected for all of them: `logging` with its global handlers,
beside which the bars would need a second way to the same terminal. Warnings go there where nobody gave a `Progress`.

The events and their facts. Most events also have their `stage` (collect, import, train, eval, encode, select):

    started             out, spec_hash (the SHA-256 of the settings), done, total, unit
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
    frames_stacked      frames, layout (what was taken for RGB is three grey frames)
    not_reproducible    episode, seed, steps (column -> the first step at which its two plays differ)
    alignment_judged    verdict, rows, possible (see `alignment`), evidence
    evaluated           step, psnr_db, kl_nats, elbo_nats, …
    checkpoint_written  step, steps
    training_warning    (a message alone)
    finished            out, and what was done
    verified            path
    uploading           folder, repo
    note                (a message alone)

The command line adds `progress`, `working` (seconds; ten seconds without a task or an event), `interrupted` and `failed`.
"""

import logging
import time
from collections import deque
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

from worldmodel_v.untrusted import printable
from worldmodel_v.words import sized

RATE_SECONDS, RATE_SAMPLES = 60.0, 10
"""A rate is that of the last minute, or of so many advances if they took longer."""

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
    """Reports nothing."""

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


class OnlyWarnings(Silent):
    """The default of every stage when called from Python, except in a notebook (`notebook`): warnings go to the logger
    `worldmodel_v`. Unless the program sets it up otherwise, Python prints them on standard error."""

    def event(self, name: str, message: str, *, warning: bool = False, **facts: Any) -> None:
        if warning:
            logging.getLogger("worldmodel_v").warning("%s", printable(message))

    def say(self, message: str) -> None:
        self.event("note", message, warning=True)


def begin(progress: Progress, stage: str, out: Path, spec_hash: str, *, total: int, unit: str, done: int) -> Task:
    """Report that a stage continues from `done` of `total` units into `out`; returns its bar."""
    progress.event(
        "started",
        f"{stage}: {total - done} of {total} {unit} to come into {out} (spec_hash {spec_hash[:12]}…)",
        stage=stage,
        out=out,
        spec_hash=spec_hash,
        done=done,
        total=total,
        unit=unit,
    )
    return progress.task(stage, total, unit, done=done)


class Count:
    """How many of a task's units are done, and how fast.

    The rate is that of the last minute, from the first unit on: starting workers and compiling say nothing about the units to
    come.
    """

    def __init__(self, done: int, total: int) -> None:
        self.done, self.total, self._before, self.began = done, total, done, time.monotonic()
        self._samples: deque[tuple[float, int]] = deque()
        """Moments of the last minute, or the last few, and how many units were done then."""

    def advance(self, amount: int) -> None:
        """So many units more are done."""
        if not amount:
            return
        self.done += amount
        now, samples = time.monotonic(), self._samples
        if len(samples) < RATE_SAMPLES or now - samples[-1][0] >= RATE_SECONDS / RATE_SAMPLES:
            samples.append((now, self.done))
        if len(samples) > RATE_SAMPLES:
            samples.popleft()

    @property
    def is_finished(self) -> bool:
        """Whether all units are done."""
        return self.done >= self.total

    def per_second(self) -> float | None:
        """Units per second: None before the second advance; of a task that had only one, the mean of all its time."""
        now = time.monotonic()
        begin, done = self._samples[0] if self._samples else (now, self.done)
        if self.done == done:
            if not self.is_finished or self.done == self._before:
                return None
            begin, done = self.began, self._before
        return (self.done - done) / max(now - begin, 1e-9)

    def in_words(self, unit: str) -> str:
        """As `12/40 episodes, 1.5/s, 0:00:19 left`; without what is not known yet."""
        rate, left = self.per_second(), self.seconds_left()
        words = [f"{self.done}/{self.total} {unit}"]
        words += [] if rate is None else [rate_in_words(rate)]
        words += [] if left is None or self.is_finished else [f"{duration(left)} left"]
        return ", ".join(words)

    def seconds_left(self) -> float | None:
        """None if that is not known."""
        rate = self.per_second()
        return (self.total - self.done) / rate if rate else None


def rate_in_words(per_second: float) -> str:
    """As 1.5/s, or of what is slow 2.5/min."""
    return f"{per_second:.1f}/s" if per_second >= 0.1 else f"{60 * per_second:.1f}/min"


def duration(seconds: float) -> str:
    """As 0:01:25."""
    return str(timedelta(seconds=round(seconds)))


def facts_text(facts: dict[str, Any]) -> str:
    """The facts beside a bar, in a line."""
    return " ".join(f"{name}={_fact_text(name, value)}" for name, value in facts.items())


def _fact_text(name: str, value: Any) -> str:
    if name == "bytes":
        return sized(value).replace(" ", "")
    return f"{value:.1f}" if isinstance(value, float) else str(value)
