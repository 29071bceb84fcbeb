"""Tasks in this process, one after another."""

from collections.abc import Callable, Generator, Iterable

from worldmodel_v.errors import EpisodeFailed
from worldmodel_v.execution.descriptors import Descriptors, most
from worldmodel_v.execution.executor import Failure, Run, Task, try_task
from worldmodel_v.progress import Progress
from worldmodel_v.steps import Step, reached
from worldmodel_v.surface import option
from worldmodel_v.telemetry import Tally

KEPT_FREE = 64
"""With fewer descriptors left, what an episode gave could not be written."""


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
        run, descriptors = setup(), Descriptors()
        for task in tasks:
            if descriptors.are_leaking:
                raise _leak(descriptors)
            outcome = try_task(run, task, attempts=attempts, progress=progress, tally=tally)
            is_lost = isinstance(outcome, Failure) or descriptors.num_new > most() - KEPT_FREE
            if descriptors.are_leaking and is_lost:
                raise _leak(descriptors)
            reached(Step.RESULT_RECEIVED)
            yield task, outcome


def _leak(descriptors: Descriptors) -> EpisodeFailed:
    return EpisodeFailed(
        f"the environment or the policy leaks descriptors: {descriptors.num_new} more files are open than before its first "
        f"episode, and {most()} may be",
        remedy=f"close them when an episode ends, or ask for {option('workers')}, which are then replaced; what is "
        "committed is kept, and the same command continues",
    )
