"""The files of deploy/ held against the schemas of what reads them; the router's configuration run for real."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
pytestmark = pytest.mark.prove


def validator(name: str) -> str:
    folder = Path(os.environ.get("RANKWISE_DEPLOY_VALIDATORS", ROOT / ".venv-deploy")) / "bin"
    if not (folder / name).is_file():
        pytest.skip(f"{name} is not here: `make deploy-validators` installs it")
    return str(folder / name)


def passes(*command: object) -> None:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted((DEPLOY / "kubernetes").glob("*.yaml")), ids=lambda p: p.name)
def test_manifests_are_what_kubernetes_takes(path: Path) -> None:
    if path.name != "kustomization.yaml":  # kustomize's own, of which the API server knows nothing
        passes(validator("kubernetes-validate"), "--strict", path)


def test_compose_is_what_compose_takes() -> None:
    passes(validator("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


def test_the_dockerfile_has_no_remark_of_hadolint() -> None:
    passes(validator("hadolint"), DEPLOY / "Dockerfile")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Replica(BaseHTTPRequestHandler):
    """Says which one it is."""

    def do_GET(self) -> None:
        body = str(self.server.server_address[1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    """A health check hangs up as soon as it has read the status."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextlib.contextmanager
def routed(folder: Path, replicas: list[int]) -> Iterator[str]:
    """Our configuration, with servers by their ports in the place of a cluster's names."""
    if HAPROXY is None:
        pytest.skip("HAProxy is not installed: `apt-get install haproxy`")
    port = free_port()
    text = (DEPLOY / "kubernetes/haproxy.cfg").read_text().replace("bind :8080", f"bind 127.0.0.1:{port}")
    (weight,) = re.findall(r"server-template .* (weight \d+)", text)
    servers = "".join(f"    server e{n} 127.0.0.1:{p} check inter 200ms {weight}\n" for n, p in enumerate(replicas, 1))
    text = re.sub(r"^    server-template .*\n", servers, text, flags=re.MULTILINE)
    (folder / "haproxy.cfg").write_text(text)
    passes(HAPROXY, "-c", "-f", folder / "haproxy.cfg")
    router = subprocess.Popen([HAPROXY, "-db", "-f", folder / "haproxy.cfg"], stderr=subprocess.DEVNULL)
    try:
        wait(lambda: ask(f"http://127.0.0.1:{port}/router") == "ok")
        yield f"http://127.0.0.1:{port}"
    finally:
        router.terminate()
        router.wait()


def wait(condition: Any) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError):
            if condition():
                return
        time.sleep(0.1)
    raise AssertionError("it did not come")


def ask(url: str, key: str = "") -> str:
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(asked, timeout=5) as answer:
        return str(answer.read().decode())


def test_a_key_goes_to_one_replica_and_moves_only_when_that_one_goes(tmp_path: Path) -> None:
    servers = [Quiet(("127.0.0.1", 0), Replica) for _ in range(4)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    keys = [f"rk-{tenant}-{tenant * 7919:064x}" for tenant in range(200)]
    with routed(tmp_path, [s.server_address[1] for s in servers]) as url:
        before = {key: ask(f"{url}/v1/models", key) for key in keys}
        assert all(ask(f"{url}/v1/models", key) == before[key] for key in keys)
        shares = Counter(before.values())
        assert len(shares) == 4 and min(shares.values()) >= 30

        gone = servers[0]
        gone.shutdown()
        gone.server_close()
        name = str(gone.server_address[1])
        time.sleep(2)  # three checks
        after = {key: ask(f"{url}/v1/models", key) for key in keys}
        moved = [key for key in keys if after[key] != before[key]]
        print(f"shares of {len(keys)} keys over 4 replicas: {sorted(shares.values())}; moved: {len(moved)}")
        assert set(moved) == {key for key in keys if before[key] == name}

        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(f"{url}/metrics")
    for server in servers[1:]:
        server.shutdown()
