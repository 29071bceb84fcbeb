"""Ray's errors, turned into ours and shortened. Ray's own hold the tracebacks of other processes."""

import re
from typing import Any

from worldmodel_v.errors import ClusterNotUsable, WorldModelError, one_line
from worldmodel_v.untrusted import shortened

NO_MODULE = re.compile(r"No module named '([\w.]+)'")


def lack_of_a_module(error: BaseException) -> ClusterNotUsable | None:
    """The error to raise if a worker died because its node cannot import what it was sent, else None. Ray words this in
    several ways."""
    if not any(sign in str(error) for sign in ("failed to import", "No module named", "on <module 'worldmodel_v")):
        return None
    last, missing = _lines(error)[-1], NO_MODULE.search(str(error))
    if missing and missing[1].partition(".")[0] != "worldmodel_v":
        return ClusterNotUsable(
            f"a worker lacks the module {missing[1]} ({last})",
            remedy="install it on every node, or have its folder on their Python path (wm-pipeline submit --working-dir "
            "sends one), or do without workers",
        )
    return ClusterNotUsable(
        f"a node of the cluster cannot import this package ({last})",
        remedy="install worldmodel_v in the same version on every node",
    )


def our_error(error: Any) -> WorldModelError:
    """The error that a worker raised: unchanged if it is ours, otherwise a WorldModelError that names it."""
    cause = error.cause
    if isinstance(cause, WorldModelError):
        return cause
    return WorldModelError(f"a worker failed with {one_line(cause)}", remedy="this is a defect, please report it")


def ends(error: BaseException) -> str:
    """A message's first and last line: Ray may put a whole traceback of another process into one."""
    first, last = _lines(error)[0], _lines(error)[-1]
    return first if first == last else f"{first} {last}"


def first_line(error: BaseException) -> str:
    """The first line of a message, or the error's class if there is no message."""
    return _lines(error)[0]


def _lines(error: BaseException) -> list[str]:
    """The first and the last line of a message, shortened."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return [shortened(lines[0]), shortened(lines[-1])]
