"""Failpoints: the named steps of putting work on disk, so that a test can kill a process after each of them.

Code calls `reached` as soon as it has changed something durable. In production there is no listener. The tests under
`tests/faults/` kill a process after the first step of a run, after the second, and so on to the last. So they test a new
step as soon as it has a name. SQLite tests in this way (https://www.sqlite.org/testing.html, "Crash Testing").
"""

from collections.abc import Callable
from enum import Enum


class Step(Enum):
    """What the process has just done."""

    TEMPORARY_OPENED = "a temporary file is there, and empty"
    TEMPORARY_WRITTEN = "the temporary file has its content, which is not synced"
    TEMPORARY_SYNCED = "the temporary file's content is durable"
    NAME_TAKEN = "a new file's name is taken, by an empty file, where the file system knows no links"
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
"""Called at every step of this process."""


def reached(step: Step) -> None:
    """Call the listener, if there is one."""
    if listener is not None:
        listener(step)
