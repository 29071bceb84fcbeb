"""The RayJob manifest against KubeRay's schema, its pods and claim against Kubernetes' own, and what they must agree on."""

import copy
import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from click import Command

from worldmodel_v.pipeline import load_pipeline

ROOT = Path(__file__).parents[2]
KUBERNETES = "1.35"
SCHEMA = json.loads((Path(__file__).parent / "rayjob.schema.json").read_text())
CLAIM, JOB = yaml.safe_load_all((ROOT / "pipelines" / "kuberay.yaml").read_text())
CLUSTER = JOB["spec"]["rayClusterSpec"]
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]


def pods(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    for number, group in enumerate([cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]):
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"}, **group["template"]}


def require_valid(job: dict[str, Any]) -> None:
    """Raise jsonschema.ValidationError if Kubernetes or KubeRay would not take it as it is written."""
    jsonschema.validate(job, SCHEMA)
    for pod in pods(job):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def mappings(value: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """The path to every mapping that has fields of its own."""
    if isinstance(value, dict):
        if value:
            yield path
        for key, inner in value.items():
            yield from mappings(inner, *path, key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from mappings(inner, *path, index)


FREE = ("metadata", "rayStartParams", "requests", "limits")
"""Mappings whose keys are names of the user's own."""


def test_the_manifest_is_valid() -> None:
    kubernetes_validate.validate(CLAIM, KUBERNETES, strict=True)
    require_valid(JOB)


@pytest.mark.parametrize("path", [p for p in mappings(JOB) if not (p and p[-1] in FREE)], ids=str)
def test_a_misspelt_field_anywhere_is_refused(path: tuple[str | int, ...]) -> None:
    job = copy.deepcopy(JOB)
    place = job
    for step in path:
        place = place[step]  # type: ignore[index]
    name = next(iter(place))
    place[f"{name}x"] = place.pop(name)
    with pytest.raises(jsonschema.ValidationError, match=f"{name}x|{name}"):
        require_valid(job)


def test_the_parameters_of_ray_start_exist() -> None:
    from ray.scripts.scripts import start

    assert isinstance(start, Command)
    known = {option.removeprefix("--") for parameter in start.params for option in parameter.opts}
    for group in GROUPS:
        assert group["rayStartParams"].keys() <= known
    assert CLUSTER["rayVersion"] == version("ray")


def test_the_claim_belongs_to_the_head_where_the_entrypoint_runs() -> None:
    head, *workers = (pod["spec"] for pod in pods(JOB))
    (volume,) = head["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
    (mount,) = head["containers"][0]["volumeMounts"]
    out = re.search(r"--out (\S+)", JOB["spec"]["entrypoint"])
    assert out is not None
    assert Path(out[1]).is_relative_to(mount["mountPath"])
    assert not any("volumes" in worker for worker in workers)
    assert not {"entrypointNumCpus", "entrypointNumGpus", "entrypointResources"} & JOB["spec"].keys()


def test_the_cluster_has_what_the_pipeline_asks_for() -> None:
    pipeline = load_pipeline(ROOT / "pipelines" / "cluster.yaml", Path("/data/paper"))
    collectors, encoders = (group for group in CLUSTER["workerGroupSpecs"])
    cpus = int(collectors["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert collectors["maxReplicas"] * cpus == pipeline.collect.workers
    assert collectors["minReplicas"] * cpus >= pipeline.encode.workers
    gpus = int(encoders["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert encoders["maxReplicas"] * gpus == pipeline.encode.workers
    assert JOB["spec"]["entrypoint"].startswith("wm-pipeline run /app/pipelines/cluster.yaml ")


def test_every_pod_runs_as_the_images_user() -> None:
    (user,) = {int(uid) for name in ("Dockerfile", "Dockerfile.cuda") for uid in uids(ROOT / "docker" / name)}
    for pod in pods(JOB):
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["runAsUser"] == user
        assert pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False


def uids(dockerfile: Path) -> list[str]:
    return re.findall(r"--uid (\d+)", dockerfile.read_text())
