"""The tests, and what their processes and all that these start have in common."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that wait for each other leave the cores to others
