"""How much memory one episode of a stranger may take."""

import os

SHARE_OF_MEMORY = 0.5


def most_bytes() -> int:
    """Half of the machine's memory."""
    return int(SHARE_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
