"""The jobs for KubeRay, checked without Kubernetes: by the schemas of KubeRay, and against this project."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from indexer.engines.ray_cluster import RayOptions, plan_actors
from service.cli.app import app
from tests.support.kuberay import strict_schema
from tests.support.paths import ROOT

FOLDER = ROOT / "deploy" / "ray"
JOBS = sorted(FOLDER.glob("*.yaml"))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
every_job = pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def groups(job: Any) -> list[Any]:
    return [
        job["spec"]["rayClusterSpec"]["headGroupSpec"],
        *job["spec"]["rayClusterSpec"]["workerGroupSpecs"],
    ]


def containers(job: Any) -> list[Any]:
    return [container for group in groups(job) for container in group["template"]["spec"]["containers"]]


@pytest.fixture(scope="module")
def validator() -> Any:
    return jsonschema.Draft202012Validator(strict_schema("RayJob"))


@every_job
def test_kuberay_takes_the_job(validator: Any, path: Path) -> None:
    job = read(path)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert [error.message for error in validator.iter_errors(job)] == []


def test_the_schema_finds_what_is_wrong(validator: Any) -> None:
    job = read(JOBS[0])
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 1
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"] = "8265"
    found = " ".join(error.message for error in validator.iter_errors(job))
    assert "'minReplica' was unexpected" in found
    assert "'8265' is not of type 'array'" in found


@every_job
def test_all_nodes_have_the_pinned_version_of_ray(path: Path) -> None:
    (requirement,) = EXTRAS["ray"]
    version = requirement.removeprefix("ray==")
    assert read(path)["spec"]["rayClusterSpec"]["rayVersion"] == version
    bases = re.findall(r"rayproject/ray:([\d.]+)-py311", (FOLDER / "Dockerfile").read_text(encoding="utf-8"))
    assert set(bases) == {version}


@every_job
def test_all_nodes_see_the_same_and_report_nothing(path: Path) -> None:
    job = read(path)
    for container in containers(job):
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {
            "/media",
            "/library",
            "/dev/shm",
        }
    for group in groups(job):
        names = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
        (container,) = group["template"]["spec"]["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == names


@every_job
def test_the_entrypoint_is_a_command_whose_actors_fit(path: Path) -> None:
    spec = read(path)["spec"]
    program, name, *arguments = shlex.split(spec["entrypoint"])
    assert (program, name) == ("reelfind", "index")
    command: Any = typer.main.get_command(app)
    given = command.commands[name].make_context(name, arguments).params
    assert (given["engine"], given["ray_address"]) == ("ray", "auto")
    most: dict[str, float] = {"CPU": 0.0, "GPU": 0.0}
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        most["CPU"] += group["maxReplicas"] * float(limits["cpu"])
        most["GPU"] += group["maxReplicas"] * float(limits.get("nvidia.com/gpu", 0))
    options = RayOptions(
        given["ray_address"], given["workers"], given["ray_encoders"], given["ray_gpus"], given["provider"]
    )
    plan = plan_actors(options, most)
    actors = ((plan.decoders, plan.of_decoder), (plan.encoders, plan.of_encoder))
    assert sum(count * takes.get("num_cpus", 0) for count, takes in actors) <= most["CPU"]
    assert sum(count * takes.get("num_gpus", 0) for count, takes in actors) <= most["GPU"]


def test_a_cluster_that_grows_begins_empty() -> None:
    cluster = read(FOLDER / "index-job-autoscaling.yaml")["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    for group in cluster["workerGroupSpecs"]:
        assert (group["minReplicas"], group["replicas"]) == (0, 0)
        assert group["maxReplicas"] > 0
