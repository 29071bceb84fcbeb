"""How many files this process has open: an environment may leak them until the system gives no more."""

import resource
from pathlib import Path

OPEN_FILES = Path("/proc/self/fd")


class Descriptors:
    """The open files of this process since this was made."""

    def __init__(self) -> None:
        self._at_first = _num_open()

    @property
    def num_new(self) -> int:
        """How many more are open than at first; 0 where the system does not say."""
        return _num_open() - self._at_first

    @property
    def are_leaking(self) -> bool:
        """Whether there are so many new ones that half of the allowed ones would be gone."""
        return self.num_new > most() // 2


def most() -> int:
    """How many files this process may have open: `ulimit -n`."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _num_open() -> int:
    try:
        return sum(1 for _ in OPEN_FILES.iterdir())
    except OSError:
        return 0
