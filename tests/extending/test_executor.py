"""An executor that is no part of the package collects and encodes, and its files are those of any other."""

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders import Sayings, digests
from tests.conftest import stamp_config
from tests.extending import threads_executor
from tests.extending.threads_executor import Threads, collect_and_encode
from tests.faults.test_set_aside import World, seed_of
from worldmodel_v.collection import CollectConfig, collect
from worldmodel_v.encoding import EncodeConfig, encode
from worldmodel_v.errors import EpisodesSetAside, ShardDamaged
from worldmodel_v.inspection import describe
from worldmodel_v.storage import open_dataset, verify

MOST_LINES = 40


class Watched(Threads):
    """Keeps the threads in which `setup` was called."""

    def __init__(self, num_threads: int) -> None:
        super().__init__(num_threads)
        self.set_up_in: list[threading.Thread] = []

    def try_tasks(self, setup: Callable[[], Any], tasks: Iterable[Any], **how: Any) -> Iterator[Any]:
        def watched_setup() -> Any:
            self.set_up_in.append(threading.current_thread())
            return setup()

        return super().try_tasks(watched_setup, tasks, **how)


def test_a_users_file_is_short() -> None:
    assert len(Path(threads_executor.__file__).read_text().splitlines()) <= MOST_LINES


def test_threads_make_the_files_that_one_process_makes(
    stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path, tmp_path: Path
) -> None:
    threads = Watched(2)
    rollouts = stamp_config(tmp_path / "rollouts", workers=5)
    latents = EncodeConfig(data=rollouts.out, vae=stamp_vae, out=tmp_path / "latents", device="cpu", workers=5)
    collect_and_encode(rollouts, latents, threads)
    assert digests(rollouts.out) == digests(stamp_rollouts)
    assert digests(latents.out) == digests(stamp_latents)
    assert verify(open_dataset(latents.out)) == []
    assert len(threads.set_up_in) == len(set(threads.set_up_in)) <= 2 * threads.num_threads
    assert {thread.name.partition("_")[0] for thread in threads.set_up_in} == {"worker"}


def test_the_fast_car_racing_is_the_same_in_threads(tmp_path: Path) -> None:
    settings = {"episodes": 6, "episodes_per_shard": 1, "max_steps": 20, "workers": 0}
    collect(CollectConfig(out=tmp_path / "alone", **settings))
    collect(CollectConfig(out=tmp_path / "threads", **settings), executor=Threads(3))
    assert digests(tmp_path / "threads") == digests(tmp_path / "alone")


def test_an_episode_that_fails_in_a_thread_is_set_aside_and_the_rest_completes(tmp_path: Path) -> None:
    world, sayings = World(tmp_path), Sayings()
    config = world.config("raise", 5, workers=5)
    with pytest.raises(EpisodesSetAside, match="5 episodes are committed, 3 are set aside with 1 shard: episode 5 "):
        collect(config, sayings, Threads(3))
    (line,) = describe(world.out)["set_aside"]
    assert (line["episode"], line["seed"], line["tries"]) == (5, seed_of(5), 4)
    assert line["reason"] == "in step 2: ValueError: the wheels"
    assert [facts["attempt"] for facts in sayings.facts("task_retried")] == [2, 2]
    world.require_like_unbroken(config, missing=(1,))
    world.marker.unlink(missing_ok=True)
    assert collect(config, executor=Threads(3)).new_episodes == 3
    world.require_like_unbroken(config)


def test_a_damaged_shard_ends_the_encoding_and_a_rerun_completes_it(
    stamp_vae: Path, stamp_latents: Path, tmp_path: Path
) -> None:
    collect(stamp_config(tmp_path / "rollouts"))
    config = EncodeConfig(data=tmp_path / "rollouts", vae=stamp_vae, out=tmp_path / "latents", device="cpu")
    shard = tmp_path / "rollouts/shards/000002.h5"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ShardDamaged, match="000002"):
        encode(config, executor=Threads(1))
    shard.write_bytes(whole)
    encode(config, executor=Threads(1))
    assert digests(config.out) == digests(stamp_latents)
