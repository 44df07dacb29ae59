"""The files of deploy/ against each other and against our own command line: ports, names, options, variables."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from rankwise.cli import app

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
COMMANDS: Any = typer.main.get_command(app)
SOURCE = "\n".join(path.read_text() for path in sorted((ROOT / "src").rglob("*.py")))


def documents(name: str) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all((DEPLOY / name).read_text()) if d]


def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """(kind, name) -> manifest, of all that the kustomization applies."""
    (kustomization,) = documents("kubernetes/kustomization.yaml")
    found = [d for name in kustomization["resources"] for d in documents(f"kubernetes/{name}")]
    assert all(d["metadata"].get("namespace", "rankwise") == kustomization["namespace"] for d in found)
    return {(d["kind"], d["metadata"]["name"]): d for d in found}


def compose() -> dict[str, Any]:
    return documents("compose.yaml")[0]


def pod(deployment: str) -> dict[str, Any]:
    spec: dict[str, Any] = manifests()["Deployment", deployment]["spec"]["template"]["spec"]
    return spec


def container(deployment: str, name: str) -> dict[str, Any]:
    inside = pod(deployment)
    (found,) = (c for c in (*inside.get("initContainers", ()), *inside["containers"]) if c["name"] == name)
    return dict(found)


def gateways() -> Iterator[list[str]]:
    """Arguments of every `rankwise serve`."""
    yield list(compose()["services"]["gateway"]["command"])
    yield list(container("engine", "gateway")["args"])
    (default,) = re.findall(r"^CMD \[(.*)\]$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    yield [word.strip().strip('"') for word in default.split(",")]


def options(arguments: list[str]) -> dict[str, str]:
    joined = " ".join(arguments).replace("=", " ").split()
    return {name: value for name, value in pairwise(joined) if name.startswith("--")}


def test_every_file_is_read() -> None:
    names = {path.relative_to(DEPLOY).as_posix() for path in FILES}
    (kustomization,) = documents("kubernetes/kustomization.yaml")
    applied = {f"kubernetes/{name}" for name in kustomization["resources"]}
    beside = {"Dockerfile", "Dockerfile.dockerignore", ".env.example", "compose.yaml", "kubernetes/haproxy.cfg"}
    assert names == applied | beside | {"kubernetes/kustomization.yaml", "kubernetes/secrets.example.yaml"}
    assert len(manifests()) >= 15


def test_every_gateway_is_a_command_line_of_ours() -> None:
    for arguments in gateways():
        assert arguments[0] == "serve"
        COMMANDS.commands["serve"].make_context("serve", arguments[1:])


def test_every_variable_of_ours_is_read_by_us() -> None:
    named = {name for path in FILES for name in re.findall(r"RANKWISE_[A-Z_]+", path.read_text())}
    assert {"RANKWISE_REGISTRY", "RANKWISE_ADAPTERS", "RANKWISE_CACHE"} <= named
    assert [name for name in named if not re.search(rf'"{name}"', SOURCE)] == []


def test_every_variable_of_compose_is_in_the_example() -> None:
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", (DEPLOY / "compose.yaml").read_text()))
    assert asked == set(re.findall(r"^([A-Z_]+)=", (DEPLOY / ".env.example").read_text(), re.MULTILINE))


def test_ports_meet() -> None:
    services = compose()["services"]
    inside = options(services["gateway"]["command"])
    assert services["gateway"]["ports"] == [f"127.0.0.1:8000:{inside['--port']}"]
    assert inside["--engine-url"] == f"http://vllm:{options(services['vllm']['command'])['--port']}"
    assert "EXPOSE 8000" in (DEPLOY / "Dockerfile").read_text()

    gateway, vllm, known = container("engine", "gateway"), container("engine", "vllm"), manifests()
    listens = int(options(gateway["args"])["--port"])
    assert gateway["ports"] == [{"name": "http", "containerPort": listens}]
    assert known["Service", "engine"]["spec"]["ports"][0]["port"] == listens
    router = (DEPLOY / "kubernetes/haproxy.cfg").read_text()
    assert f"engine.rankwise.svc.cluster.local:{listens} " in router
    there = container("router", "haproxy")["ports"][0]["containerPort"]
    assert f"bind :{there}" in router
    policies = {name: m["spec"] for (kind, name), m in known.items() if kind == "NetworkPolicy"}
    assert policies["router"]["ingress"][0]["ports"][0]["port"] == there
    assert policies["engine"]["ingress"][0]["ports"][0]["port"] == listens
    assert options(gateway["args"])["--engine-url"] == f"http://127.0.0.1:{options(vllm['args'])['--port']}"


def test_vllms_port_is_open_to_the_gateway_alone() -> None:
    """Who reaches it may load any file of its container as an adapter."""
    vllm = container("engine", "vllm")
    assert options(vllm["args"])["--host"] == "127.0.0.1" and "ports" not in vllm
    service = compose()["services"]["vllm"]
    assert "ports" not in service and service["environment"]["VLLM_API_KEY"].startswith("${VLLM_API_KEY:?")


def test_gateway_and_engine_have_the_same_slots_base_and_paths() -> None:
    services = compose()["services"]
    pairs = [
        (services["gateway"]["command"], services["vllm"]["command"]),
        (container("engine", "gateway")["args"], container("engine", "vllm")["args"]),
    ]
    for gateway, vllm in pairs:
        ours, theirs = options(gateway), options(vllm)
        assert (ours["--model"], ours["--slots"]) == (theirs["--model"], theirs["--max-loras"])
        assert theirs["--served-model-name"] == "base" and "--enable-lora" in vllm
    mounts = [
        {m["name"]: m["mountPath"] for m in container("engine", name)["volumeMounts"]} for name in ("gateway", "vllm")
    ]
    assert mounts[0]["cache"] == mounts[1]["cache"] == "/cache" and mounts[0]["models"] == mounts[1]["models"]
    assert "RANKWISE_CACHE=/cache" in (DEPLOY / "Dockerfile").read_text()
    adapters = compose()["services"]["gateway"]["environment"]["RANKWISE_ADAPTERS"]
    assert f"adapters:{adapters}" in services["gateway"]["volumes"]
    assert f"adapters:{adapters}:ro" in services["vllm"]["volumes"]


def test_probes_ask_for_health_and_readiness() -> None:
    gateway = container("engine", "gateway")
    assert gateway["livenessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    assert gateway["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "http"}
    assert "httpchk GET /ready" in (DEPLOY / "kubernetes/haproxy.cfg").read_text()
    assert container("engine", "vllm")["restartPolicy"] == "Always"  # a sidecar: up first, gone last


def test_a_pod_lives_longer_than_its_last_answer() -> None:
    pause = int(container("engine", "gateway")["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = int(options(container("engine", "gateway")["args"])["--drain-seconds"])
    assert pod("engine")["terminationGracePeriodSeconds"] >= pause + drain + 10


@pytest.mark.parametrize(("deployment", "name"), [("engine", "gateway"), ("engine", "vllm"), ("router", "haproxy")])
def test_containers_run_with_nothing_they_do_not_need(deployment: str, name: str) -> None:
    locked = container(deployment, name)["securityContext"]
    assert locked["readOnlyRootFilesystem"] and not locked["allowPrivilegeEscalation"]
    assert locked["capabilities"] == {"drop": ["ALL"]}
    assert pod(deployment)["securityContext"]["runAsNonRoot"] and not pod(deployment)["automountServiceAccountToken"]
    assert re.search(r"^USER 10001:10001$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)


def test_images_are_pinned_and_no_secret_is_written_down() -> None:
    images = [s["image"] for s in compose()["services"].values()]
    images += [container("engine", "vllm")["image"], container("router", "haproxy")["image"]]
    assert all(re.search(r":v?\d+\.\d+", image) for image in images)
    for path in FILES:
        given = re.sub(r"\$\{[^}]*\}", "", path.read_text())  # what compose asks the environment for
        for value in re.findall(r"(?:PASSWORD|_TOKEN|_KEY)[=:] ?(\S+)", given):
            assert value in {"RANDOM", "KEY", "SECRET"}, (path, value)


def test_selectors_budgets_and_scalers_find_their_deployments() -> None:
    known = manifests()
    for name in ("engine", "router"):
        labels = known["Deployment", name]["spec"]["template"]["metadata"]["labels"]
        assert known["Deployment", name]["spec"]["selector"]["matchLabels"] == labels
        assert known["PodDisruptionBudget", name]["spec"]["selector"]["matchLabels"] == labels
        assert known["NetworkPolicy", name]["spec"]["podSelector"]["matchLabels"] == labels
        scaler = known["HorizontalPodAutoscaler", name]["spec"]
        assert scaler["scaleTargetRef"]["name"] == name
        assert scaler["minReplicas"] >= 2 and known["Deployment", name]["spec"]["replicas"] >= 2
    assert known["Service", "engine"]["spec"]["clusterIP"] == "None"
    assert known["Service", "rankwise"]["spec"]["selector"]["app.kubernetes.io/component"] == "router"
