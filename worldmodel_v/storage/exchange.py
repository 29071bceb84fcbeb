"""Two folders change places in one step, which Python's own calls cannot do: `renameat2` of Linux."""

import ctypes
import errno
import os
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""From fcntl.h and stdio.h of Linux."""

CANNOT = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}
"""The errors of a system, or a file system, that lacks it."""


def exchange(one: Path, other: Path) -> None:
    """Give each of two paths of one file system the content of the other; raises OSError, one of `CANNOT` if that is lacked."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(other))
    if libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))
