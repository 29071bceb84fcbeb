"""A node of a Ray cluster is lost in the middle of a collection and of an encoding: every episode, once, in the same bytes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import committed, environment_here, finish, options, start, wait_until
from tests.faults.every_step import dataset_content
from worldmodel_v.storage import open_dataset

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
print(cluster.address, flush=True)
for _ in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("lost", flush=True)
cluster.shutdown()
"""
NUM_EPISODES, NUM_SHARDS = 320, 80
EPISODES = {"env": "worldmodel_v/Stamp-v0", "env_kwargs": '{"length": 240}', "policy": "random", "seed": 7}
EPISODES |= {"episodes": NUM_EPISODES, "episodes_per_shard": NUM_EPISODES // NUM_SHARDS}
"""A shard of rollouts has more than 100 kB, from which on Ray keeps a result on the node that made it."""

SMALL_VAE = {"steps": 2, "batch_size": 8, "latent_dim": 4, "architecture": "resnet", "holdout_every": 40, "device": "cpu"}


class TwoNodes:
    """A head that works on nothing, and two nodes of one CPU, held by a process that ends when its input does."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders, self._answers = process.stdin, process.stdout
        self.address = self._answers.readline().strip()

    def lose_one(self) -> None:
        """Kill a node's processes, which have no chance to say goodbye."""
        self._orders.write("lose one\n")
        self._orders.flush()
        assert self._answers.readline() == "lost\n"


@pytest.fixture
def two_nodes() -> Iterator[TwoNodes]:
    command = [sys.executable, "-c", CLUSTER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=environment_here()) as process:
        yield TwoNodes(process)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rollouts, a VAE and latents, made by one process each."""
    folder = tmp_path_factory.mktemp("unbroken")
    rollouts, vae, latents = (folder / name for name in ("rollouts", "vae", "latents"))
    finish("wm-collect", "--out", rollouts, "--workers", 0, *options(EPISODES))
    finish("wm-train", "--data", rollouts, "--out", vae, *options(SMALL_VAE))
    finish("wm-encode", "--data", rollouts, "--vae", vae, "--out", latents, "--device", "cpu")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "name"), [("collect", "rollouts"), ("encode", "latents")])
def test_a_node_that_is_lost_in_the_middle_costs_nothing(
    stage: str, name: str, unbroken: Path, two_nodes: TwoNodes, tmp_path: Path
) -> None:
    out = tmp_path / name
    sources = ("--data", unbroken / "rollouts", "--vae", unbroken / "vae", "--device", "cpu")
    what = {"collect": options(EPISODES), "encode": sources}[stage]
    driver = start(f"wm-{stage}", "--out", out, "--workers", 2, "--address", two_nodes.address, *what)
    wait_until(lambda: committed(out) >= 2, driver)
    two_nodes.lose_one()
    assert committed(out) < NUM_SHARDS
    _, errors = driver.communicate()
    assert driver.returncode == 0, errors
    assert "a worker died" in errors
    assert dataset_content(out) == dataset_content(unbroken / name)
    ranges = [range(entry.first_episode, entry.end_episode) for entry in open_dataset(out).entries]
    assert sorted(episode for some in ranges for episode in some) == list(range(NUM_EPISODES))
