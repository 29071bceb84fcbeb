"""A run's counts as Ray's metrics, which Ray's nodes offer to Prometheus."""

import contextlib
import os
import urllib.parse
from collections.abc import Iterator

from worldmodel_v.telemetry import COUNTERS, GAUGES, Tally


@contextlib.contextmanager
def exported(tally: Tally) -> Iterator[None]:
    """Within the block, Ray's metrics follow the tally: `ray_worldmodel_v_frames_total` and so on, by stage and directory.

    This process sends them to its node's agent, which offers them to Prometheus, every ten seconds and when it leaves the
    cluster (`RAY_metrics_report_interval_ms`). A driver that joined through ray:// has no such agent: nothing is offered.
    """
    from ray.util.metrics import Counter, Gauge

    tags = {"stage": tally.stage, "out": urllib.parse.quote(os.fsencode(tally.out.absolute()))}  # Ray takes only ASCII
    keys = tuple(tags)
    counters = {
        name: Counter(f"worldmodel_v_{name}_total", text, keys).set_default_tags(tags) for name, text in COUNTERS.items()
    }
    gauges = {name: Gauge(f"worldmodel_v_{name}", text, keys).set_default_tags(tags) for name, text in GAUGES.items()}

    def export(name: str, change: int) -> None:
        if name in gauges:
            gauges[name].set(change)
        elif change > 0:  # Ray refuses 0
            counters[name].inc(change)

    tally.export = export
    tally.remind()  # of the gauges alone: if a run joins a cluster twice, Ray has the counters' earlier growth already
    try:
        yield
    finally:
        tally.export = None
