"""The container files, checked without an engine: they agree with the package, commands and settings."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.requirements import Requirement

from indexer.ignore import default_text
from indexer.library.vectors.milvus_server import ADDRESS_VARIABLE, SECONDS_VARIABLE, parse_address
from service.cli.app import app
from service.settings import ENV_PREFIX, Settings
from tests.support.dockerfile import STAGES, environment, last, lineage
from tests.support.paths import ROOT
from tests.support.server import clean_environment, running_server
from tests.support.toy_library import make_library

OPERATIONS = ROOT / "deploy" / "operations.md"
SETTINGS = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
# Read by docker-compose.yml itself.
COMPOSE_ONLY = {
    "REELFIND_MEDIA",
    "REELFIND_BUNDLE_FOLDER",
    "REELFIND_PUBLISH",
    "REELFIND_INDEXER_MEMORY",
    "REELFIND_INDEXER_PIDS",
}
FORBIDDEN = {"torch", "torchvision", "transformers", "sentence-transformers", "triton"}


def read_compose(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return document


COMPOSE = read_compose("docker-compose.yml")
SERVICE, INDEXER = COMPOSE["services"]["service"], COMPOSE["services"]["indexer"]
targets = pytest.mark.parametrize("target", ["cpu", "gpu"])


def mounts(service: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Where → (what, mode)."""
    # The default value of a variable holds a colon too: ${NAME:-default}.
    parts = [re.fullmatch(r"(\$\{.*?\}|[^:]+):([^:]+)(?::(\w+))?", line) for line in service["volumes"]]
    return {part[2]: (part[1], part[3] or "rw") for part in parts if part}


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    run = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")


@targets
def test_the_image_runs_as_a_user_without_rights(target: str) -> None:
    user, _, group = last(target, "USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert f"--uid {user} " in " ".join(run for stage in lineage(target) for run in stage.all("RUN"))


@targets
def test_the_image_installs_an_extra_at_locked_versions_and_nothing_else(target: str) -> None:
    (copy,) = STAGES[target].all("COPY")
    assert copy == f"--from=install-{target} /opt/reelfind /opt/reelfind"
    (run,) = STAGES[f"install-{target}"].all("RUN")
    words = shlex.split(re.sub(r"--mount=\S+ ", "", run))
    assert words[1:] == ["-m", "pip", "install", "--constraint", "constraints.txt", f".[{target}${{EXTRAS}}]"]
    assert STAGES[f"install-{target}"].all("ARG") == ['EXTRAS=""']
    assert target in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_the_builder_gets_what_the_package_is_built_from() -> None:
    copied = {word for line in STAGES["source"].all("COPY") for word in line.split()[:-1]}
    copied = {name.removeprefix("./") for name in copied}
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignore[1] == "*"
    assert copied == {line.removeprefix("!") for line in ignore if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    find = project["tool"]["setuptools"]["packages"]["find"]
    names = [name.rstrip("*") for name in find["include"]]
    places = [Path(root, name) for name in names for root in find["where"] if (ROOT / root / name).exists()]
    assert [place.name for place in places] == names
    packages = {place.parts[0] for place in places}
    # A licence within a package is copied with it.
    needed = {name for name in needed if name.split("/")[0] not in packages}
    assert copied == needed | packages | {"constraints.txt"}
    assert all((ROOT / name).exists() for name in copied)


def test_cpu_is_the_default_target() -> None:
    assert list(STAGES)[-1] == "cpu"


def test_the_serving_image_gets_no_pytorch() -> None:
    """Whatever `pip install '.[cpu]'` resolves to is installed here: walk it."""
    seen: set[str] = set()
    waiting = [("reelfind", frozenset({"cpu"}))]
    while waiting:
        name, extras = waiting.pop()
        for line in distribution(name).requires or ():
            requirement = Requirement(line)
            wanted = [{"extra": extra} for extra in extras] or [{"extra": ""}]
            if requirement.marker and not any(requirement.marker.evaluate(context) for context in wanted):
                continue
            key = requirement.name.lower().replace("_", "-")
            if key not in seen:
                seen.add(key)
                try:
                    distribution(key)
                except PackageNotFoundError:
                    pytest.fail(f"{name} needs {key}, which is not installed here")
                waiting.append((key, frozenset(requirement.extras)))
    assert {"numpy", "onnxruntime", "faiss-cpu", "fastapi"} <= seen
    assert not seen & FORBIDDEN


@targets
def test_ports_and_settings_agree(target: str) -> None:
    env = environment(target)
    assert {name for name in env if name.startswith(ENV_PREFIX)} <= SETTINGS
    port = env["REELFIND_PORT"]
    assert last(target, "EXPOSE") == port
    assert SERVICE["ports"] == [f"${{REELFIND_PUBLISH:-127.0.0.1:{port}}}:{port}"]
    assert env["REELFIND_HOST"] == "0.0.0.0"
    assert env["REELFIND_LIBRARY"] in mounts(SERVICE)
    values = {name.removeprefix(ENV_PREFIX).lower(): env[name] for name in env if name in SETTINGS}
    Settings.model_validate(values)


#: Settings that compose does not pass on: they name places within the image, which sets them.
IN_THE_IMAGE = {
    f"{ENV_PREFIX}{name}" for name in ("LIBRARY", "BUNDLES", "CACHE", "HOST", "PORT", "MEDIA_ROOTS", "STATE")
}
#: The image has no TensorRT, whose engines this setting stores.
NOT_IN_THE_IMAGE = {"REELFIND_ENGINE_CACHE"}


#: What every process reads that opens a library.
VECTORS = {ADDRESS_VARIABLE, SECONDS_VARIABLE}


def test_compose_passes_on_every_setting_that_the_image_leaves_open() -> None:
    passed_on = SETTINGS - IN_THE_IMAGE - NOT_IN_THE_IMAGE
    assert set(SERVICE["environment"]) == passed_on | VECTORS
    assert set(environment("cpu")) >= IN_THE_IMAGE - {"REELFIND_BUNDLES"}
    index = typer.main.get_command(app).commands["index"]  # type: ignore[attr-defined]
    read = {parameter.envvar for parameter in index.params if isinstance(parameter.envvar, str)}
    assert set(INDEXER["environment"]) == read & (passed_on | {"REELFIND_SETTLE_SECONDS"}) | VECTORS
    for service in (SERVICE, INDEXER):
        assert set(service["environment"].values()) == {None}, "a value here would win over .env"


def test_compose_and_the_example_name_real_settings() -> None:
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    assert used == COMPOSE_ONLY
    example = (ROOT / "deploy" / "example.env").read_text(encoding="utf-8")
    named = dict(re.findall(r"^#?(REELFIND_\w+)=(.*)$", example, re.MULTILINE))
    assert set(named) == COMPOSE_ONLY | set(SERVICE["environment"]) | set(INDEXER["environment"])
    values = {name.removeprefix(ENV_PREFIX).lower(): value for name, value in named.items()}
    assert Settings(**{name: values[name] for name in values if name in Settings.model_fields})
    assert f"${{REELFIND_PUBLISH:-{named['REELFIND_PUBLISH']}}}" in SERVICE["ports"][0]


def test_service_and_indexer_share_the_library_and_see_the_media_at_one_path() -> None:
    serving, indexing = mounts(SERVICE), mounts(INDEXER)
    assert serving["/library"] == ("library", "ro")
    assert indexing["/library"] == ("library", "rw")
    assert serving["/media"] == indexing["/media"]
    assert serving["/media"][1] == "ro"
    bundles = environment("cpu")["REELFIND_BUNDLES"]
    assert serving[bundles] == indexing[bundles] == ("${REELFIND_BUNDLE_FOLDER:-./bundles}", "ro")
    assert serving[environment("cpu")["REELFIND_CACHE"]] == ("cache", "rw")
    assert COMPOSE["volumes"] == {"library": None, "cache": None, "state": None, "vectors": None}
    # The volumes belong to the image's user because the image's folders do.
    assert "chown reelfind:reelfind /library /state /cache" in " ".join(STAGES["runtime"].all("RUN"))


def test_the_container_asks_for_keys_and_keeps_them_in_a_volume_of_its_own() -> None:
    """It listens on all addresses, and cannot know to whom the port is published."""
    assert environment("cpu")["REELFIND_AUTH"] == "keys"
    state = environment("cpu")["REELFIND_STATE"]
    assert mounts(SERVICE)[state] == ("state", "rw")
    assert state not in mounts(INDEXER)
    assert SERVICE["environment"]["REELFIND_AUTH"] is None
    assert f"mkdir --mode 700 {state}" in " ".join(STAGES["runtime"].all("RUN"))


def test_the_indexer_is_a_job_and_the_service_comes_back() -> None:
    assert INDEXER["profiles"] == ["index"]
    assert INDEXER["restart"] == "no"
    assert INDEXER["healthcheck"] == {"disable": True}
    assert "profiles" not in SERVICE
    assert SERVICE["restart"] == "unless-stopped"
    assert "healthcheck" not in SERVICE  # the image's holds
    watcher = COMPOSE["services"]["watcher"]
    assert watcher["profiles"] == ["watch"]
    assert watcher["restart"] == "unless-stopped"
    assert {key for key in INDEXER if watcher.get(key) != INDEXER[key]} == {"profiles", "command", "restart"}
    for service in (SERVICE, INDEXER):
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


def test_the_indexer_has_no_network_and_limits_that_the_example_names() -> None:
    assert INDEXER["network_mode"] == "none"
    assert "ports" not in INDEXER
    example = (ROOT / "deploy" / "example.env").read_text(encoding="utf-8")
    for key, variable in (
        ("mem_limit", "REELFIND_INDEXER_MEMORY"),
        ("pids_limit", "REELFIND_INDEXER_PIDS"),
    ):
        default = re.fullmatch(rf"\$\{{{variable}:-(\w+)\}}", INDEXER[key])
        assert default is not None
        assert f"\n{variable}={default[1]}\n" in example
        assert f"`{variable}`" in OPERATIONS.read_text(encoding="utf-8")
    for service in (SERVICE, INDEXER):
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_gpu_override_changes_both_services() -> None:
    override = read_compose("deploy/compose.gpu.yml")["services"]
    assert set(override) == set(COMPOSE["services"]) - {"milvus"}
    for service in override.values():
        assert service["build"]["target"] == "gpu"
        assert service["image"] != SERVICE["image"]
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    env = environment("gpu")
    assert env["REELFIND_PROVIDER"] == "cuda"
    assert "REELFIND_PROVIDER" not in environment("cpu")
    version = re.match(r"python:(\d+\.\d+)-", STAGES["runtime"].base)
    assert version is not None
    assert {path.split("/")[4] for path in env["LD_LIBRARY_PATH"].split(":")} == {f"python{version[1]}"}
    assert STAGES["source"].base == STAGES["runtime"].base


def test_milvus_is_reached_by_the_containers_of_its_profile_alone() -> None:
    milvus = COMPOSE["services"]["milvus"]
    assert milvus["profiles"] == ["milvus"]
    assert re.fullmatch(r"milvusdb/milvus:v\d+\.\d+\.\d+", milvus["image"])
    assert (milvus["networks"], COMPOSE["networks"]) == (["vectors"], {"vectors": {"internal": True}})
    assert "ports" not in milvus
    sources = {where: what for where, (what, _) in mounts(milvus).items()}
    assert sources["/var/lib/milvus"] == "vectors"
    etcd = ROOT / sources[milvus["environment"]["ETCD_CONFIG_PATH"]]
    assert yaml.safe_load(etcd.read_text(encoding="utf-8"))["listen-client-urls"] == "http://127.0.0.1:2379"
    override = read_compose("deploy/compose.milvus.yml")["services"]
    assert set(override) == set(COMPOSE["services"]) - {"milvus"}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, service in override.items():
        assert service["build"]["args"]["EXTRAS"].removeprefix(",") in extras
        address = parse_address(service["environment"][ADDRESS_VARIABLE])
        host = "milvus" if name == "service" else "127.0.0.1"
        assert address.uri == f"http://{host}:19530"
        # An indexer shares the network of Milvus's container; a network of its own would lead elsewhere.
        assert service.get("network_mode") == (None if name == "service" else "service:milvus")
    assert override["service"]["networks"] == ["default", "vectors"]


def test_the_gpu_libraries_are_pinned_as_the_pair_that_shares_one_cuda() -> None:
    """Newer onnxruntime-gpu is built for CUDA 13 and newer faiss-gpu is not: neither may drift alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pair = [Requirement(line) for line in project["optional-dependencies"]["gpu"]]
    assert {requirement.name for requirement in pair} == {"faiss-gpu", "onnxruntime-gpu"}
    assert all(str(requirement.specifier).startswith("==") for requirement in pair)


@pytest.mark.parametrize(
    "overrides", [[], ["deploy/compose.gpu.yml"], ["deploy/compose.gpu.yml", "deploy/compose.milvus.yml"]]
)
def test_compose_accepts_the_files(overrides: list[str]) -> None:
    command = _compose_command()
    if command is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")
    for name in ("docker-compose.yml", *overrides):
        command += ["--file", str(ROOT / name)]
    run = subprocess.run(
        [*command, "--profile", "index", "--profile", "milvus", "config"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    services = yaml.safe_load(run.stdout)["services"]
    assert services["indexer"]["command"] == INDEXER["command"]
    assert services["service"]["build"]["target"] == ("gpu" if overrides else "cpu")


def _compose_command() -> list[str] | None:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            run = subprocess.run([*command, "version"], capture_output=True, check=False)
            if run.returncode == 0:
                return command
    return None


def test_the_commands_exist() -> None:
    assert json.loads(last("cpu", "ENTRYPOINT")) == json.loads(last("gpu", "ENTRYPOINT")) == ["reelfind"]
    assert json.loads(last("cpu", "CMD")) == SERVICE["command"]
    ours = [each for each in COMPOSE["services"].values() if each["image"] == SERVICE["image"]]
    for command in (service["command"] for service in ours):
        run = subprocess.run(
            [sys.executable, "-m", "service", command[0], "--help"],
            env=clean_environment() | {"COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        for word in command[1:]:
            assert not word.startswith("--") or word in run.stdout


def test_the_operations_page_names_real_options_and_settings() -> None:
    page = OPERATIONS.read_text(encoding="utf-8")
    known = {option for command in walk(typer.main.get_command(app)) for option in options_of(command)}
    elsewhere = {"--constraint", "--profile", "--rm", "--detach", "--file", "--request"}  # pip, docker, curl
    elsewhere |= {"--entrypoint", "--create", "--extract", "--directory"}  # docker, tar
    elsewhere |= {
        "--namespace",
        "--kustomize",
        "--from",
        "--from-file",
        "--values",
        "--replace",
    }  # kubectl, helm
    elsewhere |= {"--system", "--create-home", "--home-dir", "--shell", "--append", "--groups", "--now"}
    assert set(re.findall(r"(?<!\S)`?\(?`?(--[a-z-]+)", page)) <= known | elsewhere
    assert set(re.findall(r"REELFIND_\w+", page)) <= SETTINGS | COMPOSE_ONLY | VECTORS | {
        "REELFIND_TRACEBACK",
        "REELFIND_SETTLE_SECONDS",
    }


def test_the_operations_page_shows_the_rules_that_come_with_reelfind() -> None:
    assert f"```\n{default_text()}```\n" in OPERATIONS.read_text(encoding="utf-8")


def walk(command: Any) -> Iterator[Any]:
    yield command
    for child in getattr(command, "commands", {}).values():
        yield from walk(child)


def options_of(command: Any) -> list[str]:
    return [name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)]


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    program = Path(sysconfig.get_path("scripts")) / "reelfind"
    units = []
    for source in sorted((ROOT / "deploy/systemd").iterdir()):
        text = source.read_text(encoding="utf-8").replace("/opt/reelfind/bin/reelfind", str(program))
        units.append(tmp_path / source.name)
        units[-1].write_text(text)
    run = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_nginx_accepts_the_example(tmp_path: Path) -> None:
    nginx = shutil.which("nginx")
    openssl = shutil.which("openssl")
    if nginx is None or openssl is None:
        pytest.skip("nginx or openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=reelfind.example.org", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    example = (ROOT / "deploy/nginx.conf").read_text(encoding="utf-8")
    example = re.sub(r"ssl_certificate .*;", f"ssl_certificate {certificate};", example)
    example = re.sub(r"ssl_certificate_key .*;", f"ssl_certificate_key {key};", example)
    site, whole = tmp_path / "site.conf", tmp_path / "nginx.conf"
    # A test may have no right to ports below 1024.
    site.write_text(re.sub(r"\b(listen (?:\[::\]:)?)(80|443)\b", r"\g<1>1\g<2>0", example))
    whole.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{ include {site}; }}\n")
    run = subprocess.run(
        [nginx, "-t", "-q", "-e", str(tmp_path / "log"), "-c", str(whole)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.slow
def test_the_health_check_tells_a_running_server_from_none(tmp_path: Path) -> None:
    check = last("cpu", "HEALTHCHECK").partition("CMD ")[2]
    command = json.loads(check)
    assert command[0] == "python"

    def run_check(port: str) -> int:
        # A proxy of the environment's must not be asked.
        env = os.environ | {"REELFIND_PORT": port, "http_proxy": "http://127.0.0.1:9"}
        return subprocess.run(
            [sys.executable, *command[1:]], env=env, capture_output=True, check=False
        ).returncode

    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)]})
    missing = ["--library", str(tmp_path / "none"), "--bundle", str(toy.bundle)]
    for options, ready in ((toy.options, True), (missing, False)):
        with running_server(*options, ready=ready) as server:
            port = server.url.rpartition(":")[2]
            assert run_check(port) == 0
            assert (server.client.get("/readyz").status_code == 200) is ready
            names = set(re.findall(r"^# TYPE (\w+)", server.client.get("/metrics").text, re.MULTILINE))
            page = OPERATIONS.read_text(encoding="utf-8")
            assert set(re.findall(r"`((?:reelfind|process)_\w+)", page)) <= names
        assert run_check(port) != 0
