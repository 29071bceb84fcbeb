"""Joining a cluster by its address, and never one that merely happens to run."""

import json
from pathlib import Path

import pytest

from tests.builders import digests
from tests.commands import start
from tests.conftest import stamp_config
from tests.test_telemetry import of_dataset, when_offered
from worldmodel_v.collection import collect
from worldmodel_v.storage import open_dataset, verify

COLLECT = ("--env", "worldmodel_v/Stamp-v0", "--episodes", 8, "--episodes-per-shard", 3, "--policy", "random", "--seed", 7)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["option", "RAY_ADDRESS"])
def test_a_cluster_is_joined_by_its_address(address: str, how: str, tmp_path: Path, stamp_rollouts: Path) -> None:
    out = tmp_path / "rollouts"
    options = ("--address", address) if how == "option" else ()
    environment = {"RAY_ADDRESS": address} if how == "RAY_ADDRESS" else {}
    driver = start("wm-collect", "--out", out, "--workers", 2, *COLLECT, *options, **environment)
    _, errors = driver.communicate()
    assert driver.returncode == 0, errors
    assert digests(out) == digests(stamp_rollouts)
    too_many = start("wm-collect", "--out", tmp_path / "more", "--workers", 3, *COLLECT, *options, **environment)
    _, errors = too_many.communicate()
    assert too_many.returncode == 0, errors
    assert "3 workers of 1 CPU need 3, the cluster has 2: 2 begin, the others wait for nodes to join" in errors
    assert digests(tmp_path / "more") == digests(stamp_rollouts)


@pytest.mark.slow
def test_a_cluster_that_merely_runs_is_not_joined(address: str, tmp_path: Path) -> None:
    """Three workers do not fit on the cluster of two CPUs that runs, so they can only run on a local one."""
    out = tmp_path / "rollouts"
    driver = start("wm-collect", "--out", out, "--workers", 3, *COLLECT)
    _, errors = driver.communicate()
    assert driver.returncode == 0, errors
    assert verify(open_dataset(out)) == []


@pytest.mark.slow
def test_encoding_joins_a_cluster_too(
    address: str, tmp_path: Path, stamp_rollouts: Path, stamp_vae: Path, stamp_latents: Path
) -> None:
    paths = ("--data", stamp_rollouts, "--vae", stamp_vae, "--out", tmp_path / "latents")
    driver = start("wm-encode", *paths, "--workers", 2, "--address", address, "--device", "cpu")
    _, errors = driver.communicate()
    assert driver.returncode == 0, errors
    assert verify(open_dataset(tmp_path / "latents")) == []
    assert open_dataset(tmp_path / "latents").num_rows == open_dataset(stamp_latents).num_rows


@pytest.mark.slow
def test_a_clusters_metrics_hold_all_that_a_short_run_has_done_as_soon_as_it_has_ended(address: str, tmp_path: Path) -> None:
    """It leaves the cluster long before it would have sent its metrics for the first time."""
    out = tmp_path / "rollouts"
    driver = start("wm-collect", "--out", out, "--workers", 2, *COLLECT, "--address", address, "--log-format", "json")
    _, errors = driver.communicate()
    assert driver.returncode == 0, errors
    (joined,) = (event for event in map(json.loads, errors.splitlines()) if event["event"] == "ray_joined")
    assert (joined["address"], joined["nodes"], joined["cpus"]) == (address, 1, 2.0)
    (url,) = joined["metrics"]
    assert when_offered(url, of_dataset(out), stage="collect", out=str(out)) == of_dataset(out)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_an_address_where_nothing_answers_is_refused_and_nothing_is_locked_in(address: str, tmp_path: Path) -> None:
    out = tmp_path / "rollouts"
    driver = start("wm-collect", "--out", out, "--workers", 1, *COLLECT, "--address", address)
    _, errors = driver.communicate()
    assert driver.returncode == 2
    assert f"no Ray cluster at '{address}'" in errors
    assert "start one with `ray start --head`" in errors
    report = collect(stamp_config(out, max_steps=5))
    assert report.episodes == 8
