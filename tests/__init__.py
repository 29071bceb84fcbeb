"""The tests, and what their processes and all that these start have in common."""

import os
import shutil
from pathlib import Path

MEMORY, ROOM_IN_IT = Path("/dev/shm"), 6_000_000_000

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that wait for each other leave the cores to others
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_IN_IT:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))  # where a sync costs no time
