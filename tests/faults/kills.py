"""A kill behind a chosen step of a piece of work."""

import os
import signal
from collections.abc import Callable

from worldmodel_v import steps


def killed_behind(step: int, work: Callable[[], object]) -> bool:
    """Whether a fork that does the work was killed behind its step of this number; False if it has fewer."""
    process = os.fork()
    if not process:
        left = step

        def listen(_: steps.Step) -> None:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

        steps.listener = listen
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
