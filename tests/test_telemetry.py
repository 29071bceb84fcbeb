"""What a run counts, and that Ray's agents offer exactly that to Prometheus."""

import functools
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.builders import Sayings, make_shard, rollout_spec
from tests.conftest import stamp_config
from tests.execution.test_ray_pool import deadly
from worldmodel_v.collection import collect
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.errors import WorkerLost
from worldmodel_v.execution import RayPool, WorkerSettings, connection, map_tasks
from worldmodel_v.execution.executor import ATTEMPTS
from worldmodel_v.storage import DatasetWriter, open_dataset
from worldmodel_v.telemetry import COUNTERS, GAUGES, Tally

SECONDS_TO_EXPORT = 120.0
"""Ray exports every ten."""

SECONDS_UNTIL_FORGOTTEN = 35.0
"""An agent drops a gauge after twenty, and has the last value up to ten seconds late."""


def offered(url: str, **labels: str) -> dict[str, float]:
    """Our metrics at a node's agent that carry these labels, by name."""
    from prometheus_client.parser import text_string_to_metric_families

    with urllib.request.urlopen(url, timeout=60) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = (sample for family in families if "worldmodel_v" in family.name for sample in family.samples)
    return {sample.name: sample.value for sample in samples if labels.items() <= sample.labels.items()}


def when_offered(url: str, expected: dict[str, float], **labels: str) -> dict[str, float]:
    """`offered` as soon as it holds what is expected, or at last. An agent drops a gauge that nobody has set for 20 s."""
    give_up = time.monotonic() + SECONDS_TO_EXPORT
    while (found := offered(url, **labels)) != expected and time.monotonic() < give_up:
        time.sleep(0.5)
    return found


def expected(**values: int) -> dict[str, float]:
    """What Prometheus shall find: the counters that are not 0, which have the unit's suffix, and the gauges."""
    suffixes = {**dict.fromkeys(COUNTERS, "_total"), **dict.fromkeys(GAUGES, "")}
    return {f"ray_worldmodel_v_{name}{suffixes[name]}": float(value) for name, value in values.items()}


AT_REST = dict.fromkeys(GAUGES, 0)


def of_dataset(path: Path) -> dict[str, float]:
    """What a run that made all of a dataset leaves behind."""
    dataset = open_dataset(path)
    num_bytes = sum((path / entry.name).stat().st_size for entry in dataset.entries)
    counts = {"frames": dataset.num_rows, "episodes": dataset.num_episodes, "shards": len(dataset.entries)}
    return expected(**counts, bytes=num_bytes, **AT_REST)


def test_a_committed_shard_is_counted_told_and_exported_once(tmp_path: Path) -> None:
    sayings, told = Sayings(), []
    tally = Tally("collect", tmp_path, sayings, shards_left=2)
    tally.export = lambda name, change: told.append((name, change))
    with DatasetWriter(tmp_path / "rollouts", rollout_spec()) as writer:
        entries = [writer.commit(number, make_shard(2 * number)) for number in range(2)]
    for entry in entries:
        tally.committed(entry)
    tally.measure(workers=0, tasks_in_flight=3)
    num_rows, num_bytes = sum(entry.num_rows for entry in entries), sum(entry.bytes for entry in entries)
    assert tally.values == {
        **{"frames": num_rows, "episodes": 4, "shards": 2, "bytes": num_bytes, "retries": 0},
        **{"shards_left": 0, "tasks_in_flight": 3, "workers": 0},
    }
    first = [("frames", entries[0].num_rows), ("episodes", 2), ("shards", 1), ("bytes", entries[0].bytes), ("shards_left", 1)]
    assert told[:5] == first
    assert told[9:] == [("shards_left", 0), ("tasks_in_flight", 3)]
    del told[:]
    tally.remind()
    assert told == [("shards_left", 0), ("tasks_in_flight", 3), ("workers", 0)]
    assert [facts["sha256"] for facts in sayings.facts("shard_committed")] == [entry.sha256 for entry in entries]


@pytest.mark.parametrize(
    ("ports", "told"),
    [
        ([-1], "Ray at h:1: 2 CPUs, nodes: 1"),  # without the extra `cluster`, Ray has no agent that offers metrics
        ([5, 6, -1], "Ray at h:1: 2 CPUs, nodes: 3, metrics: http://h:5/metrics and 1 more"),
    ],
)
def test_only_a_node_that_offers_metrics_is_named(ports: list[int], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "NodeManagerAddress": "h", "MetricsExportPort": port} for port in ports]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(gcs_address="h:1"))
    messages: list[str] = []
    progress = SimpleNamespace(event=lambda name, message, **facts: messages.append(message))
    connection._say_what_is_joined(progress)
    assert messages == [told]


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_local_rays_agent_offers_what_the_datasets_hold(stamp_vae: Path, tmp_path: Path) -> None:
    rollouts, latents = tmp_path / "roll outs ü", tmp_path / "latents"
    sayings = Sayings()
    collect(stamp_config(rollouts, workers=2), sayings)
    (joined,) = sayings.facts("ray_joined")
    (url,) = joined["metrics"]
    quoted = str(tmp_path / "roll%20outs%20%C3%BC")
    assert when_offered(url, of_dataset(rollouts), stage="collect", out=quoted) == of_dataset(rollouts)
    encode(EncodeConfig(data=rollouts, vae=stamp_vae, out=latents, device="cpu", workers=1))
    assert when_offered(url, of_dataset(latents), stage="encode", out=str(latents)) == of_dataset(latents)
    pool = RayPool(WorkerSettings(num_workers=1))
    with pytest.raises(WorkerLost):
        list(map_tasks(pool, deadly, ["poison"], None, Tally("deeds", tmp_path, shards_left=1)))
    failed = expected(retries=ATTEMPTS - 1, **AT_REST | {"shards_left": 1})
    assert when_offered(url, failed, stage="deeds") == failed
    twice = Tally("twice", tmp_path)
    for task in "ab":
        for _ in map_tasks(pool, deadly, [task], None, twice):
            twice.count(frames=5)
    both = expected(frames=10, **AT_REST)
    assert when_offered(url, both, stage="twice") == both


def patient(marker: Path) -> Callable[[str], bytes]:
    """A worker that waits until the marker is there."""

    def run(task: str) -> bytes:
        while not marker.exists():
            time.sleep(0.05)
        return task.encode()

    return run


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_tasks_in_flight_are_offered_as_long_as_they_are(tmp_path: Path) -> None:
    import ray

    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    marker, meanwhile = tmp_path / "marker", expected(shards_left=3, tasks_in_flight=3, workers=2)
    found: list[dict[str, float]] = []

    def look() -> None:
        found.append(when_offered(url, meanwhile, stage="waiting"))
        time.sleep(SECONDS_UNTIL_FORGOTTEN)
        found.append(when_offered(url, meanwhile, stage="waiting"))
        marker.touch()

    watcher = threading.Thread(target=look)
    watcher.start()
    tally = Tally("waiting", tmp_path, shards_left=3)
    tasks = map_tasks(RayPool(WorkerSettings(num_workers=2)), functools.partial(patient, marker), ["a", "b", "c"], None, tally)
    assert sorted(task for task, _ in tasks) == ["a", "b", "c"]
    watcher.join()
    assert found == [meanwhile, meanwhile]
