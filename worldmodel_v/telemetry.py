"""The counters and gauges of a run (frames, episodes, bytes, retries, …), for the progress bar and for Ray's metrics.

Only the process that commits counts, so nothing is counted twice. While a Ray cluster is in use (`execution`), every change
is passed on to Ray, which offers `ray_worldmodel_v_frames_total` and the others to Prometheus.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from worldmodel_v.progress import Progress, Silent
from worldmodel_v.words import counted

if TYPE_CHECKING:  # importing it loads h5py
    from worldmodel_v.storage import IndexEntry

COUNTERS = {
    "frames": "Rows committed by this run.",
    "episodes": "Episodes committed by this run.",
    "shards": "Shards committed by this run.",
    "bytes": "Bytes of the shards committed by this run.",
    "retries": "Tasks tried again because they failed or their worker died.",
}
"""They only grow, from 0 at the start of a run."""

GAUGES = {
    "shards_left": "Shards that are still to be committed.",
    "tasks_in_flight": "Shards handed out to workers whose results have not come back.",
    "workers": "Workers that have started and live.",
}
"""They go up and down."""


class Tally:
    """The counters and gauges of one run of a stage."""

    def __init__(self, stage: str, out: Path, progress: Progress | None = None, *, shards_left: int = 0) -> None:
        self.stage, self.out = stage, out
        self._progress = progress or Silent()
        self.values = dict.fromkeys([*COUNTERS, *GAUGES], 0) | {"shards_left": shards_left}
        self._lock = threading.Lock()
        self.export: Callable[[str, int], None] | None = None
        """Called for every change, with a counter's name and the added amount, or a gauge's name and its value."""

    def count(self, **amounts: int) -> None:
        """Add to counters, from any thread."""
        for name, amount in amounts.items():
            with self._lock:
                self.values[name] += amount
            self._tell(name, amount)

    def measure(self, **values: int) -> None:
        """Set gauges."""
        for name, value in values.items():
            if value != self.values[name]:
                self.values[name] = value
                self._tell(name, value)

    def remind(self) -> None:
        """Tell the gauges again. Ray's agents forget a gauge that nobody has set for two of their intervals, 20 s."""
        for name in GAUGES:
            self._tell(name, self.values[name])

    def committed(self, entry: "IndexEntry") -> None:
        """Count a committed shard, and report it as an event."""
        episodes, rows, num_bytes = entry.num_episodes, entry.num_rows, entry.bytes
        self.count(frames=rows, episodes=episodes, shards=1, bytes=num_bytes)
        self.measure(shards_left=self.values["shards_left"] - 1)
        self._progress.event(
            "shard_committed",
            f"{self.stage}: shard {entry.shard} committed: {counted(episodes, 'episode')}, {rows} rows, {num_bytes} bytes, "
            f"{entry.sha256[:12]}…",
            stage=self.stage,
            shard=entry.shard,
            episodes=episodes,
            rows=rows,
            bytes=num_bytes,
            sha256=entry.sha256,
        )

    def facts(self) -> dict[str, int]:
        """The values that a progress bar shows beside it."""
        return {name: self.values[name] for name in ("frames", "bytes", "shards_left", "tasks_in_flight", "retries")}

    def _tell(self, name: str, change: int) -> None:
        if self.export is not None:
            self.export(name, change)
