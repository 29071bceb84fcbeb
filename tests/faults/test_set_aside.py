"""Episodes that always fail, crash or hang are set aside by name, the rest completes, and a rerun collects them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.builders import Sayings, digests
from tests.commands import finish, options, run, start
from tests.conftest import stamp_config
from tests.faults.bad_world import LeakyWorld
from worldmodel_v.collection import CollectConfig, collect, collector, one_by_one
from worldmodel_v.errors import EpisodeFailed, EpisodesSetAside
from worldmodel_v.execution import ray_pool
from worldmodel_v.inspection import describe
from worldmodel_v.pipeline import run_pipeline
from worldmodel_v.sources.gym import episode_seeds
from worldmodel_v.storage import open_dataset, verify

SEED = 7
SHARDS = {0: [0, 1, 2], 1: [3, 4, 5], 2: [6, 7]}
GONE = "a worker died (The actor died unexpectedly before finishing this task.): a crash in native code, an exit of the process"
BOOM = "in step 2: ValueError: the wheels"
TIMEOUT = 30.0
"""Longer than the first episode of a worker takes, which imports much."""


def seed_of(episode: int) -> int:
    return episode_seeds(SEED, episode)[0]


class World:
    """Eight episodes of the toy world in three shards, some of which are bad."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.marker, self.out = folder, folder / "marker", folder / "out"
        self.marker.touch()

    def settings(self, fault: str, *bad: int, once: bool = False, **changes: Any) -> dict[str, Any]:
        kwargs = {"fault": fault, "seeds": [seed_of(episode) for episode in bad], "marker": str(self.marker), "once": once}
        env = {"env": "tests.faults.bad_world:tests/Bad-v0", "env_kwargs": json.dumps(kwargs), "frame_size": 8}
        return {**env, "episodes": 8, "episodes_per_shard": 3, "seed": SEED, "policy": "random", "workers": 0, **changes}

    def config(self, fault: str, *bad: int, **changes: Any) -> CollectConfig:
        return CollectConfig(out=self.out, **self.settings(fault, *bad, **changes))

    def require_like_unbroken(self, config: CollectConfig, missing: tuple[int, ...] = ()) -> None:
        """Every shard but those that are missing is what a run without a fault makes of these settings."""
        self.marker.unlink(missing_ok=True)
        unbroken = dataclasses.replace(config, out=self.folder / "unbroken", workers=0)
        collect(unbroken)
        expected = digests(unbroken.out)
        for shard in missing:
            del expected[f"{shard:06d}.h5"]
        assert digests(self.out) == expected
        held = [episode for shard, episodes in SHARDS.items() if shard not in missing for episode in episodes]
        findings = verify(open_dataset(self.out))
        assert [finding for finding in findings if "are missing, the first is" not in finding] == []
        assert bool(findings) == (held != list(range(len(held))))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def require_set_aside(config: CollectConfig, *expected: tuple[int, str], committed: int, tries: int = 4) -> None:
    """Collecting leaves these episodes behind, for these reasons, and says so in its error and beside the data."""
    with pytest.raises(EpisodesSetAside) as caught:
        collect(config)
    message = str(caught.value)
    assert message.startswith(f"{config.out}: {committed} episodes are committed, {8 - committed} are set aside with ")
    assert "\n" not in message
    found = describe(config.out)["set_aside"]
    assert [episode["episode"] for episode in found] == [episode for episode, _ in expected]
    for line, (episode, reason) in zip(found, expected, strict=True):
        assert (line["seed"], line["tries"]) == (seed_of(episode), tries)
        assert reason in line["reason"]
        assert f"episode {episode} (seed {seed_of(episode)}, tried {tries} times): {line['reason']}" in message


def test_an_episode_that_always_raises_is_set_aside_and_the_rest_completes(world: World) -> None:
    config = world.config("raise", 5)
    require_set_aside(config, (5, BOOM), committed=5)
    assert (world.out / "set_aside.jsonl").read_text().count("\n") == 1
    assert describe(world.out)["set_aside"][0]["shard"] == "1 (3 episodes from 3)"
    world.require_like_unbroken(config, missing=(1,))


def test_every_bad_episode_is_named(world: World) -> None:
    config = world.config("raise", 3, 5, 7)
    require_set_aside(config, (3, BOOM), (5, BOOM), (7, BOOM), committed=3)
    world.require_like_unbroken(config, missing=(1, 2))


def test_once_the_cause_is_gone_the_same_command_completes_and_forgets(world: World) -> None:
    config = world.config("raise", 4)
    require_set_aside(config, (4, BOOM), committed=5)
    before = digests(world.out)
    require_set_aside(config, (4, BOOM), committed=5)
    assert digests(world.out) == before
    world.marker.unlink()
    assert collect(config).new_episodes == 3
    assert not (world.out / "set_aside.jsonl").exists()
    assert describe(world.out)["set_aside"] == []
    world.require_like_unbroken(config)
    assert collect(config).new_episodes == 0


def test_an_episode_that_fails_once_costs_a_try(world: World) -> None:
    config, sayings = world.config("raise", 4, once=True), Sayings()
    assert collect(config, sayings).new_episodes == 8
    (line,) = sayings.lines
    assert line.endswith("ValueError: the wheels; shard 1 (episodes 3 to 5) is tried again (attempt 2)")
    world.require_like_unbroken(config)


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [pytest.param("raise", BOOM, marks=pytest.mark.slow), pytest.param("exit", GONE, marks=pytest.mark.slow), ("crash", GONE)],
)
def test_workers_that_an_episode_kills_are_replaced_and_the_episode_is_found(world: World, fault: str, reason: str) -> None:
    config = world.config(fault, 5, workers=2)
    require_set_aside(config, (5, reason), committed=5)
    world.require_like_unbroken(config, missing=(1,))


@pytest.mark.usefixtures("local_ray")
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["hang", "hang and hold the GIL"])
def test_an_episode_that_hangs_is_stopped_and_set_aside(world: World, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_by_one, "TRIES_ALONE", 1)
    monkeypatch.setattr(collector, "TRIES_TOGETHER", 1)
    monkeypatch.setattr(one_by_one, "TRIES_TOGETHER", 1)
    config = world.config(fault, 6, workers=2, episode_timeout=TIMEOUT)
    require_set_aside(config, (6, f"it ran longer than the {TIMEOUT:g} s of episode_timeout"), committed=6, tries=2)
    world.require_like_unbroken(config, missing=(2,))


@pytest.mark.usefixtures("local_ray")
def test_a_block_whose_workers_died_and_whose_episodes_are_good_is_made_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "TRIES_TOGETHER", 1)
    config, sayings = world.config("exit", 5, once=True, workers=2), Sayings()
    assert collect(config, sayings).new_episodes == 8
    (line,) = [line for line in sayings.lines if not line.startswith("a worker died")]
    assert line == "shard 1 (episodes 3 to 5) failed 1 times; its episodes are tried one by one when the rest is done"
    world.require_like_unbroken(config)


@pytest.mark.slow
def test_a_command_with_a_ray_of_its_own_names_the_episode_that_crashes(world: World) -> None:
    settings = options(world.settings("crash", 5, workers=2))
    process = start("wm-collect", "--out", world.out, "--quiet", *settings)
    _, errors = process.communicate()
    assert process.returncode == 1
    report = (
        f"wm-collect: {world.out}: 5 episodes are committed, 3 are set aside with 1 shard: episode 5 (seed {seed_of(5)}, tri"
    )
    *of_ray, last = errors.splitlines()
    assert last.startswith(report)
    assert [line for line in of_ray if "(raylet)" not in line] == []  # which tells of dead workers, whatever is asked of it
    world.marker.unlink()
    finish("wm-collect", "--out", world.out, *settings)
    world.require_like_unbroken(world.config("crash", 5))


def test_a_pipeline_stops_there_with_the_same_report(world: World) -> None:
    settings = {name: value for name, value in world.settings("raise", 5).items() if name != "out"}
    file = world.folder / "pipeline.yaml"
    file.write_text(json.dumps({"collect": settings, "train": {"holdout_every": 2}, "encode": {}}))
    with pytest.raises(EpisodesSetAside, match="rollouts: 5 episodes are committed, 3 are set aside with 1 shard: episode 5"):
        run_pipeline(file, world.folder / "all")
    assert [path.name for path in (world.folder / "all").iterdir()] == ["rollouts"]


def test_the_command_leaves_with_1_and_a_report_and_is_inspected(world: World) -> None:
    settings = options(world.settings("raise", 5))
    process = start("wm-collect", "--out", world.out, "--quiet", "--json", *settings)
    output, errors = process.communicate()
    failed = json.loads(output)
    assert (process.returncode, failed["exit_code"], failed["error"]) == (1, 1, "EpisodesSetAside")
    assert errors == f"wm-collect: {failed['message']}\n"
    assert errors.startswith(
        f"wm-collect: {world.out}: 5 episodes are committed, 3 are set aside with 1 shard: episode 5 (seed"
    )
    assert errors.endswith("or collect with another --seed into another directory\n")
    assert errors.count("\n") == 1
    shown = run("wm-inspect", world.out, "--json")[0]
    assert [episode["episode"] for episode in json.loads(shown)["set_aside"]] == [5]
    table = run("wm-inspect", world.out)[0]
    assert f"set aside episode 5 (seed {seed_of(5)}, 4 tries): " in " ".join(table.split())
    world.marker.unlink()
    finish("wm-collect", "--out", world.out, *settings)
    world.require_like_unbroken(world.config("raise", 5))


def test_when_nothing_succeeds_the_run_ends_soon(world: World) -> None:
    config = world.config("raise", *range(40), episodes=40, episodes_per_shard=1)
    with pytest.raises(
        EpisodeFailed, match="10 shards in turn failed, each 2 times, so it is no matter of single episodes; the last"
    ):
        collect(config)
    assert open_dataset(world.out).num_episodes == 0
    assert not (world.out / "set_aside.jsonl").exists()


@pytest.mark.usefixtures("local_ray")
def test_workers_that_grow_are_replaced_without_costing_a_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"env": "tests.faults.bad_world:tests/Leaky-v0", "frame_size": 8, "episodes": 6, "episodes_per_shard": 1}
    started = []
    start_worker = ray_pool._Pool._start_worker
    monkeypatch.setattr("worldmodel_v.collection.config.MAX_GROWTH_BYTES", 60 << 20)
    monkeypatch.setattr(ray_pool._Pool, "_start_worker", lambda pool: started.append(start_worker(pool)))
    sayings = Sayings()
    collect(stamp_config(tmp_path / "out", **settings, workers=1), sayings)
    collect(stamp_config(tmp_path / "unbroken", **settings))
    LeakyWorld.left_behind.clear()
    assert len(started) == 2  # three episodes each: the third is 80 MB above the first
    assert sayings.lines == []
    assert len(sayings.facts("worker_replaced")) == 1
    assert verify(open_dataset(tmp_path / "out")) == []
    assert digests(tmp_path / "out") == digests(tmp_path / "unbroken")
