"""The manifests for Kubernetes, without a cluster: schemas, and that names, places and settings agree."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from model.runtime.errors import InputError
from service.cli.app import app
from service.metrics import Metrics
from service.readiness import PATIENCE_SECONDS
from service.rights.store import AccessStore
from service.settings import ENV_PREFIX, Settings, check_environment, load_settings, variable_of
from tests.support.dockerfile import environment, last
from tests.support.paths import ROOT
from tests.support.server import REELFIND, clean_environment

FOLDER = ROOT / "deploy/kubernetes"
#: The oldest version whose clusters have all that is used, and the newest that the package knows.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]
#: Not a manifest, but values of a Helm chart.
ADAPTER = FOLDER / "prometheus-adapter.yaml"
Document = dict[str, Any]


def read_yaml(path: Path) -> list[Document]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


(KUSTOMIZATION,) = read_yaml(FOLDER / "kustomization.yaml")
DOCUMENTS = [document for name in KUSTOMIZATION["resources"] for document in read_yaml(FOLDER / name)]
SETTINGS = dict(
    line.split("=", 1)
    for line in (FOLDER / "settings.env").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)


def the(kind: str, name: str = "reelfind") -> Document:
    (found,) = (each for each in DOCUMENTS if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


DEPLOYMENT, CRON_JOB = the("Deployment"), the("CronJob", "reelfind-index")
SERVING: Document = DEPLOYMENT["spec"]["template"]
INDEXING: Document = CRON_JOB["spec"]["jobTemplate"]["spec"]["template"]
(SERVER,) = SERVING["spec"]["containers"]
(INDEXER,) = INDEXING["spec"]["containers"]
pods = pytest.mark.parametrize("pod", [SERVING, INDEXING], ids=["service", "index"])


def containers(pod: Document) -> Iterator[Document]:
    yield from pod["spec"].get("initContainers", ())
    yield from pod["spec"]["containers"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["kind"])
def test_a_manifest_fits_its_schema(document: Document, version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_every_file_of_the_folder_is_used() -> None:
    used = {*KUSTOMIZATION["resources"], *KUSTOMIZATION["configMapGenerator"][0]["envs"]}
    assert {path.name for path in FOLDER.iterdir()} == used | {"kustomization.yaml", ADAPTER.name}


def test_kubectl_renders_the_folder() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    run = subprocess.run([kubectl, "kustomize", FOLDER], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert len(list(yaml.safe_load_all(run.stdout))) == len(DOCUMENTS) + 1


def test_settings_are_real_and_valid() -> None:
    known = {variable_of(name): name for name in Settings.model_fields}
    Settings.model_validate({known[name]: value for name, value in SETTINGS.items()})
    check_environment(SETTINGS)
    # The image's own settings must not be lost.
    assert not SETTINGS.keys() & environment("cpu").keys()


def test_kubernetes_sets_no_variables_that_look_like_settings() -> None:
    """What a Service called `reelfind` adds to the environment of every pod is refused by the program."""
    assert the("Service")["metadata"]["name"] == "reelfind"
    added = f"{ENV_PREFIX}SERVICE_HOST"
    with pytest.raises(InputError, match=added):
        check_environment({added: "10.0.0.1", "REELFIND_PORT": "tcp://10.0.0.1:80"})
    for pod in (SERVING, INDEXING):
        assert pod["spec"]["enableServiceLinks"] is False


def test_selectors_name_the_pods() -> None:
    serving, indexing = SERVING["metadata"]["labels"], INDEXING["metadata"]["labels"]
    selectors = {
        "Deployment": DEPLOYMENT["spec"]["selector"]["matchLabels"],
        "Service": the("Service")["spec"]["selector"],
        "PodDisruptionBudget": the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        "NetworkPolicy": the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        "spread": SERVING["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    }
    assert {kind: labels for kind, labels in selectors.items() if labels != serving} == {}
    assert the("NetworkPolicy", "reelfind-index")["spec"]["podSelector"]["matchLabels"] == indexing
    assert serving != indexing
    target = the("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target == {key: DEPLOYMENT[key] for key in ("apiVersion", "kind")} | {"name": "reelfind"}


@pods
def test_volumes_settings_and_mounts_agree(pod: Document) -> None:
    claims = {each["metadata"]["name"] for each in DOCUMENTS if each["kind"] == "PersistentVolumeClaim"}
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    for volume in volumes.values():
        claim = volume.get("persistentVolumeClaim")
        assert claim is None or claim["claimName"] in claims
    mounted = [mount for each in containers(pod) for mount in each["volumeMounts"]]
    assert {mount["name"] for mount in mounted} == volumes.keys()
    (generated,) = KUSTOMIZATION["configMapGenerator"]
    for container in pod["spec"]["containers"]:
        assert container["envFrom"] == [{"configMapRef": {"name": generated["name"]}}]
    (image,) = KUSTOMIZATION["images"]
    assert {each["image"] for each in containers(pod)} == {image["name"]}


def test_places_and_ports_are_those_of_the_image() -> None:
    image = environment("cpu")
    mounts = {mount["name"]: mount for mount in SERVER["volumeMounts"]}
    places = {name: mount["mountPath"] for name, mount in mounts.items()}
    assert places == {
        "library": image["REELFIND_LIBRARY"],
        "media": image["REELFIND_MEDIA_ROOTS"],
        "state": image["REELFIND_STATE"],
        "cache": image["REELFIND_CACHE"],
        "tmp": image["HOME"],
    }
    assert {name for name, mount in mounts.items() if mount.get("readOnly")} == {"library", "media"}
    indexing = {mount["name"]: mount for mount in INDEXER["volumeMounts"]}
    assert {name: mount["mountPath"] for name, mount in indexing.items()}.items() <= places.items()
    assert {name for name, mount in indexing.items() if mount.get("readOnly")} == {"media"}
    (port,) = SERVER["ports"]
    assert str(port["containerPort"]) == image["REELFIND_PORT"]
    assert the("Service")["spec"]["ports"][0]["targetPort"] == port["name"]
    assert the("NetworkPolicy")["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": port["name"]}]
    user, _, group = last("cpu", "USER").partition(":")
    for pod in (SERVING, INDEXING):
        rights = pod["spec"]["securityContext"]
        assert [str(rights[key]) for key in ("runAsUser", "runAsGroup", "fsGroup")] == [user, group, group]


@pods
def test_a_pod_has_no_rights_that_it_does_not_need(pod: Document) -> None:
    """As the level `restricted` of the Pod Security Standards asks, and more."""
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("container", [SERVER, INDEXER], ids=["service", "index"])
def test_commands_and_their_options_exist(container: Mapping[str, Any]) -> None:
    command, *words = container["args"]
    parameters = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    known = {name for parameter in parameters for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_probes_and_the_end_leave_time() -> None:
    paths = json.loads((ROOT / "tests/golden/openapi.json").read_text(encoding="utf-8"))["paths"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert SERVER[probe]["httpGet"]["path"] in paths
        assert SERVER[probe]["httpGet"]["port"] == SERVER["ports"][0]["name"]
    assert SERVER["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert SERVER["readinessProbe"]["timeoutSeconds"] > PATIENCE_SECONDS
    assert SERVER["readinessProbe"]["failureThreshold"] > 1
    # Requests, and then a job, have REELFIND_SHUTDOWN_SECONDS each.
    ending = SERVER["lifecycle"]["preStop"]["sleep"]["seconds"] + 2 * load_settings().shutdown_seconds
    assert SERVING["spec"]["terminationGracePeriodSeconds"] > ending


def test_snapshots_are_kept_longer_than_replicas_wait_for_their_turn() -> None:
    words = INDEXER["args"]
    kept = 60 * float(words[words.index("--keep-minutes") + 1])
    spread = float(SETTINGS["REELFIND_RELOAD_SPREAD_SECONDS"])
    assert kept > 10 * (spread + load_settings().reload_seconds)


def test_the_autoscaler_asks_for_a_metric_of_the_service() -> None:
    metric = the("HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert f"# TYPE {metric} gauge" in Metrics().render().decode()
    (adapter,) = read_yaml(ADAPTER)
    (rule,) = adapter["rules"]["custom"]
    assert re.match(r"\w+", rule["seriesQuery"])[0] == metric  # type: ignore[index]


def test_the_keys_of_the_secret_count_in_a_pod(tmp_path: Path) -> None:
    """As documented: keys are made on any computer; the first container copies their file into the pod."""
    made, state = tmp_path / "keys", tmp_path / "state"
    state.mkdir()
    command = [*REELFIND, "keys", "create", "--scope", "admin", "--state", str(made)]
    run = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=True)
    assert run.stdout
    (container,) = SERVING["spec"]["initContainers"]
    places = {"/keys/": f"{made}/", "/state/": f"{state}/"}
    copy = list(container["command"])
    for place, here in places.items():
        copy = [word.replace(place, here) if word.startswith(place) else word for word in copy]
    (made / "access.sqlite").chmod(0o440)
    subprocess.run(copy, check=True)
    store = AccessStore(state)
    assert [key.scopes for key in store.all_keys()] == [("admin",)]
    store.close()
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"keys": "/keys", "state": environment("cpu")["REELFIND_STATE"]}
    (secret,) = (volume["secret"] for volume in SERVING["spec"]["volumes"] if "secret" in volume)
    page = (ROOT / "deploy/operations.md").read_text(encoding="utf-8")
    assert f"create secret generic {secret['secretName']} --from-file=" in page


def test_variables_of_the_manifests_are_settings() -> None:
    known = {variable_of(name) for name in Settings.model_fields}
    for path in FOLDER.iterdir():
        named = set(re.findall(rf"{ENV_PREFIX}\w+", path.read_text(encoding="utf-8")))
        assert named <= known, path.name
