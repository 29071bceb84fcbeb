"""Every failure that a user can meet, and what its one line is made of.

A message says where, what is wrong, what was expected, what was found and what to do next. An error keeps these parts beside
it, for a program and for the JSON log. The command line prints the message and leaves with the class's `exit_code`: 2 for a
mistake in what was asked, 1 for work that failed. A message is put into words when the error is made, for the surface of that
moment (`worldmodel_v.surface`). Message and parts survive pickling on their way back from a worker.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worldmodel_v.interrupts import is_interruption
from worldmodel_v.surface import MAX_LENGTH, option
from worldmodel_v.untrusted import printable, shortened

PARTS = ("where", "field", "expected", "got", "remedy")
MAX_CLAUSE = 2000
"""Characters of `what` and `expected` that a message shows: a defect, or a stranger, may have put megabytes there."""


@contextmanager
def retold(tell: Callable[[BaseException], "WorldModelError"]) -> Iterator[None]:
    """Around other people's code: whatever they raise is raised as `tell` puts it, `SystemExit` and what else is no
    `Exception` too. Errors of ours pass, and interruptions by the user. A fork of this process that they made ends here."""
    process = os.getpid()
    try:
        yield
    except BaseException as error:
        _end_a_fork_of(process, error)
        if isinstance(error, WorldModelError) or is_interruption(error):
            raise
        raise tell(error) from error
    _end_a_fork_of(process)


def _end_a_fork_of(process: int, error: BaseException | None = None) -> None:
    """End this process if it is another one: it would do the work of that one a second time."""
    if os.getpid() != process:
        code = error.code if isinstance(error, SystemExit) else int(error is not None)
        os._exit(code if isinstance(code, int) else int(code is not None))


def one_line(error: BaseException) -> str:
    """The class and the first line of an error of somebody else's, to stand inside a message of ours; not all of a long one."""
    remark = " (it asked Python to exit)" if isinstance(error, SystemExit) else ""
    return f"{type(error).__name__:.{MAX_LENGTH}}: {first_line(error) or 'no message'}{remark}"


def first_line(error: BaseException) -> str:
    """The first line of a message of somebody else's, shortened; empty if there is none."""
    return shortened(_said(lambda: str(error), "__str__").lstrip().partition("\n")[0].rstrip())


def shown(value: Any) -> str:
    """A value of somebody else's and its type, in a line, even if its `__repr__` fails."""
    said = shortened(_said(lambda: repr(value), "__repr__"))
    return f"{' '.join(said.split()):.100} ({type(value).__name__:.{MAX_LENGTH}})"


def _said(say: Callable[[], str], method: str) -> str:
    try:
        return str.__getitem__(say(), slice(None))  # a subclass of str may be anything
    except BaseException as error:
        if is_interruption(error):
            raise
        return f"(its {method} raises {type(error).__name__:.{MAX_LENGTH}})"


class WorldModelError(Exception):
    """Base class: work that was asked for correctly, and failed.

    `what` may be a whole sentence. Of the parts that are given, the message is made:

        where: what; expected …, got …; remedy
        --field: expected …, got 'value'; remedy
        --field value: what; expected …; remedy
    """

    exit_code = 1

    where: str | None
    """The path or URL that it is about, file:line where there is one."""

    field: str | None
    """The name of the setting that it is about, as in its config."""

    expected: str | None
    """In words."""

    got: Any
    """The setting's value, or in words what was found."""

    remedy: str | None
    """What to do next, in words."""

    def __init__(
        self,
        what: str = "",
        *,
        where: Any = None,
        field: str | None = None,
        expected: str | None = None,
        got: Any = None,
        remedy: str | None = None,
    ) -> None:
        self.what, self.where, self.field = what, None if where is None else str(where), field
        self.expected, self.got, self.remedy = expected, got, remedy
        self._shown = self._message()
        super().__init__(self._shown)

    @property
    def parts(self) -> dict[str, Any]:
        """`where`, `field`, `expected`, `got` and `remedy`, those that there are."""
        return {name: part for name in PARTS if (part := getattr(self, name)) is not None}

    def __str__(self) -> str:
        return self._shown

    def _message(self) -> str:
        return printable(_in_a_line(self))


def _in_a_line(error: WorldModelError) -> str:
    subjects = [] if error.where is None else [error.where]
    clauses = [shortened(error.what, MAX_CLAUSE)] if error.what else []
    got = error.got
    if error.field is not None:
        subjects.append(option(error.field, got if error.what else None))
        got = None if error.what or got is None else f"{str(got) if isinstance(got, Path) else got!r:.{MAX_LENGTH}}"
    found = [
        f"{word} {shortened(str(part), MAX_CLAUSE)}"
        for word, part in (("expected", error.expected), ("got", got))
        if part is not None
    ]
    clauses += [", ".join(found)] if found else []
    clauses += [error.remedy] if error.remedy else []
    return ": ".join([*subjects, "; ".join(clauses)])


class UsageError(WorldModelError):
    """Base class: what was asked for cannot be done as asked.

    Change what the message names, and run it again; the same again fails again.
    """

    exit_code = 2


class ConfigError(UsageError):
    """A setting has a value that makes no sense, alone or beside another; of a pipeline file, with the line where it stands.

    Set the value that the message asks for.
    """


class EnvironmentNotUsable(UsageError):
    """The environment is unknown, cannot be built, gives no images, or has actions that are neither Box, Discrete,
    MultiDiscrete nor MultiBinary.

    Try `gymnasium.make` with the same id and arguments; for pictures, see the options `frames`, `layout` and `wrap`.
    """


class PolicyNotUsable(UsageError):
    """The policy is unknown, cannot be built, or does not keep the protocol of `worldmodel_v.policies`.

    Name a built-in policy, or mend your own: `worldmodel_v.policies.Policy` says what it has to do.
    """


class DatasetNotUsable(UsageError):
    """A directory does not hold the dataset that was expected there, or one that is too small or too uniform for the work.

    Give the directory that the command named in the message wrote, or collect more.
    """


class ModelNotUsable(UsageError):
    """A directory holds no finished autoencoder, its files are damaged, or it does not fit the data.

    Give the directory of a finished training, or train with data like these.
    """


class FramesNotUsable(UsageError):
    """Frames that were handed to an encoder have another type, layout or size than it takes.

    Give uint8 frames (H, W, 3) as the environment gives them, or as they were recorded.
    """


class OutputNotUsable(UsageError):
    """The directory of the results holds other work, or cannot hold these; nothing was started.

    Give a new directory, or the settings that this one was made with.
    """


class DatasetBusy(UsageError):
    """Another process is writing into the dataset.

    Wait for that process or end it, then run the same again.
    """


class ClusterNotUsable(UsageError):
    """No Ray cluster answers at the address, it lacks the resources, its workers have other code of this package, or it has no
    such job; or Ray cannot start here.

    Start Ray or mend the address; install the same code on every node; ask for fewer workers; or work here, without a cluster.
    """


class PackageMissing(UsageError):
    """An optional package is not installed; the message has the line that installs it.

    Run the line in the message.
    """


class NotReadable(UsageError):
    """A file is there, and the system does not let this process read it.

    Change the file's owner or mode, or run as a user who may read it.
    """


class NotAFile(UsageError, OSError):
    """A link, a pipe, a device or a socket is where a file or a folder should be, or one of these in the other's place.

    Put the file or folder itself there; no link is followed inside of a dataset.
    """


class ShardDamaged(UsageError):
    """A shard is missing, truncated, changed, or not what the index and the format promise.

    Restore the shard from a copy, or delete the file and its line in `index.jsonl` and run the stage again.
    """


class RemoteFailed(WorldModelError):
    """A place behind a URL cannot be reached, broke off, or does not answer as it should; the same again may work.

    Run it again; check the address and who you are there.
    """


class ReadFailed(WorldModelError):
    """The system failed to read a file that may be sound, as with too many open files; the same again may work.

    Run it again when the cause that the message names is gone.
    """


class WriteFailed(WorldModelError):
    """Writing stopped halfway; everything committed before is intact.

    Make room, or whatever the message names, and run the same again; it continues.
    """


class EpisodeFailed(WorldModelError):
    """An environment or policy raised an error, or broke its contract, in the middle of an episode.

    Mend the environment or the policy; the message has the seed and the step, so you can see the error again.
    """


class EpisodesSetAside(WorldModelError):
    """Some episodes failed whenever they were tried; all others are committed.

    Mend what the message names, and run the same again: it tries them again.
    """


class WorkerLost(WorldModelError):
    """A piece of work was given to several workers in turn, and each of them died.

    Look for a lack of memory or a crash in native code, and run the same again.
    """


class JobFailed(WorldModelError):
    """A job that was followed to its end failed, or was stopped.

    Read its log (`wm-pipeline logs`), and submit the same again; it continues.
    """


class TrainingFailed(WorldModelError):
    """The loss or a gradient became NaN or infinite, or the posterior collapsed and the training was asked to stop then.

    Train again elsewhere: with a lower learning rate or in fp32; after a collapse, with a lower beta.
    """


class ModelFailed(WorldModelError):
    """An autoencoder, or its export, gives NaN, not what it declares, not what the original gives, or something else for a
    frame beside other frames.

    Train it again, or mend your own autoencoder; an export can leave that format out.
    """


class VerificationFailed(WorldModelError):
    """A dataset does not match its index; the message names every shard that is off, one a line.

    Restore those shards from a copy.
    """

    def _message(self) -> str:
        return "\n".join(map(printable, self.what.split("\n")))
