"""The seam: what collecting and encoding need from an executor, which runs their tasks.

A task is a few numbers or the bytes of a shard; its result is the bytes of a finished shard. Workers write nothing, and a
result depends only on its task. So a task that ran twice leaves no trace, and the files do not depend on the number of workers.
Any object with the method of `Executor` can be passed to `collect` and `encode`.
"""

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from worldmodel_v.errors import EpisodeFailed, WorkerLost
from worldmodel_v.progress import Progress, Silent
from worldmodel_v.steps import Step, reached
from worldmodel_v.telemetry import Tally

Task = TypeVar("Task")
Run = Callable[[Task], bytes]

ATTEMPTS = 4
"""How many attempts a task has before it is given up."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A task that was given up."""

    error: EpisodeFailed | WorkerLost
    """How the last attempt ended."""

    reason: str
    """The same, in a few words."""

    attempts: int
    seconds: float
    """How long the last attempt took, from when the task was handed out."""

    @property
    def died(self) -> bool:
        """Whether the last attempt ended because its worker died."""
        return isinstance(self.error, WorkerLost)


class Executor(Protocol):
    """Runs tasks: in this process (`Here`), on a Ray cluster (`RayPool`), or wherever your own executor runs them."""

    def try_tasks(
        self,
        setup: Callable[[], Run[Task]],
        tasks: Iterable[Task],
        *,
        attempts: int,
        progress: Progress,
        tally: Tally,
    ) -> Generator[tuple[Task, bytes | Failure]]:
        """Yield every task once, in any order, with its result, or with the Failure of its last attempt, out of `attempts`.

        Call `setup` once in each worker (a thread, a process, a node). It returns the function that turns a task into its
        result, for that worker alone. `setup`, tasks and results can be pickled; this function cannot.

        A task is made when it is taken from `tasks`, and may be as large as a shard. Take a few for each worker, and the next
        one when a result arrives, so that memory does not grow with the number of tasks. If `tasks` raises, raise its error.

        An attempt that ends in EpisodeFailed, or with its worker's death (WorkerLost), counts as one of `attempts`. Raise any
        other error of an attempt; this ends the run. `try_task` makes all attempts of a task in this process, and reports them
        to `progress` and `tally`.

        A caller that stops early closes the generator; the workers then end.
        """


def try_task(run: Run[Task], task: Task, *, attempts: int, progress: Progress, tally: Tally) -> bytes | Failure:
    """Run a task in this process, and again if it ends in EpisodeFailed, or in WorkerLost if another process did the work;
    several threads may each run one at once."""
    attempt, start = 1, time.monotonic()
    while True:
        try:
            return perform(run, task)
        except (EpisodeFailed, WorkerLost) as error:
            if attempt >= attempts:
                return Failure(error=error, reason=str(error), attempts=attempt, seconds=time.monotonic() - start)
            attempt, start = attempt + 1, time.monotonic()
            tally.count(retries=1)
            message = f"{error}; {task} is tried again (attempt {attempt})"
            facts = {"stage": tally.stage, "task": str(task), "attempt": attempt, "reason": str(error)}
            progress.event("task_retried", message, warning=True, **facts)


def perform(run: Run[Task], task: Task) -> bytes:
    """Run a task once, and announce its steps (see `steps`)."""
    reached(Step.TASK_TAKEN)
    result = run(task)
    reached(Step.TASK_DONE)
    return result


def map_tasks(
    executor: Executor,
    setup: Callable[[], Run[Task]],
    tasks: Iterable[Task],
    progress: Progress | None = None,
    tally: Tally | None = None,
) -> Generator[tuple[Task, bytes]]:
    """Yield every task with its result, in order of completion; raises the error of a task that was given up."""
    progress, tally = progress or Silent(), tally or Tally("tasks", Path())
    with closing(executor.try_tasks(setup, tasks, attempts=ATTEMPTS, progress=progress, tally=tally)) as outcomes:
        for task, outcome in outcomes:
            if isinstance(outcome, Failure):
                raise outcome.error
            yield task, outcome
