"""Tasks in this process, one after another."""

from collections.abc import Callable, Generator, Iterable

from worldmodel_v.execution.executor import Failure, Run, Task, try_task
from worldmodel_v.progress import Progress
from worldmodel_v.steps import Step, reached
from worldmodel_v.telemetry import Tally


class Here:
    """An `Executor` without workers."""

    def try_tasks(
        self,
        setup: Callable[[], Run[Task]],
        tasks: Iterable[Task],
        *,
        attempts: int,
        progress: Progress,
        tally: Tally,
    ) -> Generator[tuple[Task, bytes | Failure]]:
        """As `Executor` says."""
        run = setup()
        for task in tasks:
            outcome = try_task(run, task, attempts=attempts, progress=progress, tally=tally)
            reached(Step.RESULT_RECEIVED)
            yield task, outcome
