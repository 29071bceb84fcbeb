"""The pool's records: its workers, their tasks in flight, and the queue of tasks to come."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic

from worldmodel_v.execution.executor import Task


@dataclass(eq=False)
class Hand:
    """A worker as the driver sees it."""

    actor: Any
    has_started: bool = False
    host: str | None = None
    pid: int | None = None
    died_at: Any = None
    """The reference of the task that it ran when it died. The death counts as an attempt of this task only."""

    load: int = 0
    """Tasks in flight."""

    leaks: bool = False
    """Whether it holds so much more memory, or so many more open files, that it gets no further task."""

    @property
    def name(self) -> str:
        return f"process {self.pid} on {self.host}" if self.has_started else "at its start"


@dataclass(eq=False)
class HandedOut(Generic[Task]):
    """A task in flight."""

    task: Task
    attempt: int
    worker: Hand
    at: float = field(default_factory=time.monotonic)


class Queue(Generic[Task]):
    """Tasks to hand out, each with the number of its attempt: first those put back, then the iterator's, taken when needed."""

    def __init__(self, tasks: Iterator[Task]) -> None:
        self._tasks = tasks
        self._next: deque[tuple[Task, int]] = deque()
        self.error: Exception | None = None
        """What the iterator raised. There are no further tasks then, and those before it run first."""

    def holds(self, number: int) -> bool:
        """Whether at least `number` tasks are left to hand out."""
        while len(self._next) < number:
            try:
                self._next.append((next(self._tasks), 1))
            except StopIteration:
                return False
            except Exception as error:
                self.error = error
                return False
        return True

    def pop(self) -> tuple[Task, int]:
        return self._next.popleft()

    def put_back(self, task: Task, attempt: int) -> None:
        self._next.appendleft((task, attempt))
