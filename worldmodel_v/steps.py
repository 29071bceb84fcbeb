"""The named steps of putting work on disk, so that a test can stop a process behind each of them.

Code that changes something durable says so here as soon as it has; in production nobody listens. The tests under
`tests/faults/` kill a process behind the first step of a run, behind the second, and so on to the last, so a new step is
tested from the day that it is named. The habit is SQLite's (https://www.sqlite.org/testing.html, "Crash Testing").
"""

from collections.abc import Callable
from enum import Enum


class Step(Enum):
    """What has just happened."""

    TEMPORARY_OPENED = "a temporary file is there, and empty"
    TEMPORARY_WRITTEN = "the temporary file has its content, which is not synced"
    TEMPORARY_SYNCED = "the temporary file's content is durable"
    LINKED = "a new file has its name"
    REPLACED = "a file of that name has its new content"
    FOLDER_SYNCED = "the name is durable"
    TEMPORARY_REMOVED = "the temporary name is gone"
    FOLDER_BEGUN = "a hidden folder is there, and empty"
    FOLDER_FILLED = "the hidden folder has its content, which is not synced"
    FOLDER_NAMED = "a new folder has its name, and its whole content"
    LINE_WRITTEN = "the index has a new line, which is not synced"
    LINE_SYNCED = "the index's line is durable"
    INDEX_TRIMMED = "a torn last line of the index is gone"
    SHARD_REMOVED = "a shard that nothing can be made of is gone"
    TASK_TAKEN = "a worker has begun a task"
    TASK_DONE = "a worker has a task's result"
    RESULT_RECEIVED = "the committer has a task's result"


listener: Callable[[Step], None] | None = None
"""What is told of every step of this process."""


def reached(step: Step) -> None:
    """Tell the listener, if there is one."""
    if listener is not None:
        listener(step)
