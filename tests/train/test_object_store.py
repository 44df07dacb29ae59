"""Copies in a bucket, over the S3 protocol: moto's server in a process of its own, s3fs as a user would have it."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from xml.etree import ElementTree

import pytest

from rankwise.records import Note, Saved, Started
from rankwise.store import Run
from rankwise.train.mirror import LAST
from tests.training import (
    carry_out,
    end,
    environment,
    losses,
    published,
    reached,
    toy_job,
    toy_model,
    toy_run,
    wait_for,
    weights,
)

pytestmark = pytest.mark.prove
ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
URL = "s3://bucket/team/run"
DROPPING = {"name": "lora", "lora_dropout": 0.1}
TRAIN = {"max_steps": 400, "save_steps": 10, "eval_steps": 20, "learning_rate": 1e-3}
# moto looks at who asks, and takes any signature.
SIGNED = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Bucket:
    """A bucket, looked at without s3fs: by plain HTTP, past any cut line."""

    port: int
    name: str = "bucket"

    def ask(self, method: str, key: str = "", content: bytes | None = None) -> bytes:
        url = f"http://{HOST}:{self.port}/{self.name}{key}"
        headers = {"Authorization": SIGNED, "Content-Type": "application/octet-stream"}
        request = urllib.request.Request(url, content, headers, method=method)
        with DIRECT.open(request, timeout=30) as answer:
            return bytes(answer.read())

    def names(self) -> list[str]:
        listing = ElementTree.fromstring(self.ask("GET", "?list-type=2&max-keys=1000"))
        return [str(node.text) for node in listing.findall("{*}Contents/{*}Key")]

    def contents(self) -> dict[str, bytes]:
        return {name: self.ask("GET", f"/{name}") for name in self.names()}

    def put(self, contents: dict[str, bytes]) -> None:
        for name in self.names():
            self.ask("DELETE", f"/{name}")
        for name, content in contents.items():
            self.ask("PUT", f"/{name}", content)


class Line:
    """The network between a run and the store, which can be cut: the store keeps what it holds."""

    def __init__(self, to: int):
        self.to, self.open = to, set[socket.socket]()
        self.listening = socket.create_server((HOST, 0))
        self.port = self.listening.getsockname()[1]
        self._listen()

    def cut(self) -> None:
        """No new connection is taken, and those that stand are closed."""
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for end_of_line in list(self.open):
            with suppress(OSError):
                end_of_line.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.listening = socket.create_server((HOST, self.port))
        self._listen()

    def _listen(self) -> None:
        threading.Thread(target=self._take, args=(self.listening,), daemon=True).start()

    def _take(self, listening: socket.socket) -> None:
        with suppress(OSError):  # cut
            while True:
                near = listening.accept()[0]
                far = socket.create_connection((HOST, self.to))
                self.open |= {near, far}
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                target.sendall(content)
        for end_of_line in (source, target):
            with suppress(OSError):
                end_of_line.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="session")
def programs() -> Path:
    """Those of the environment that has the server and s3fs."""
    folder = Path(os.environ.get("RANKWISE_OBJECT_STORE", ROOT / ".venv-store")) / "bin"
    if not (folder / "moto_server").exists():
        pytest.skip("no S3 server is here to copy checkpoints to: `make object-store` installs one, and s3fs")
    return folder


@pytest.fixture
def bucket(programs: Path, tmp_path: Path) -> Iterator[Bucket]:
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen([programs / "moto_server", "-H", HOST, "-p", str(port)], stdout=log, stderr=log)
    try:
        wait_for(lambda: _answers(port))
        bucket = Bucket(port)
        bucket.ask("PUT")
        yield bucket
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    try:
        return bool(DIRECT.open(f"http://{HOST}:{port}/moto-api/", timeout=10))
    except (URLError, OSError):
        return False


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def begin(programs: Path, bucket: Bucket) -> Iterator[Start]:
    """`rankwise ...` where s3fs is, told of the store by its environment alone; `port` puts a line between."""
    begun = []

    def start(*arguments: object, port: int = bucket.port) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [programs / "python", "-m", "rankwise", *map(str, arguments)],
            env=environment()
            | {
                "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_MAX_ATTEMPTS": "1",  # botocore's; s3fs tries five times around it
                "NO_PROXY": HOST,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        end(process)


def said(process: subprocess.Popen[str], code: int = 0) -> str:
    """What it wrote to a person by its end."""
    _, told = process.communicate(timeout=400)
    assert process.returncode == code, told
    return told


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


def copies(bucket: Bucket) -> dict[str, bytes]:
    prefix = "team/run/"
    found = {name.removeprefix(prefix): content for name, content in bucket.contents().items()}
    return {name: content for name, content in found.items() if name.startswith("checkpoint-")}


def originals(run: Run) -> dict[str, bytes]:
    return {
        str(path.relative_to(run.checkpoints)): path.read_bytes()
        for folder in run.checkpoints.glob("checkpoint-*")
        for path in folder.rglob("*")
        if path.is_file()
    }


def steps(names: dict[str, bytes]) -> list[int]:
    return sorted(int(name.split("/")[0].removeprefix("checkpoint-")) for name in names if name.endswith(LAST))


def test_a_run_goes_on_from_a_bucket_and_passes_over_half_a_copy(
    model: Path, tmp_path: Path, bucket: Bucket, begin: Start
) -> None:
    whole = toy_run(tmp_path / "whole", model, DROPPING, train=TRAIN)
    carry_out(whole)
    job, run = toy_job(tmp_path / "job", model, DROPPING, train=TRAIN | {"save_url": URL}), Run(tmp_path / "gone")
    first = begin("train", job, "--out", run.folder)
    wait_for(reached(run, 35), first)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=400)
    assert run.state() == "stopped" and "could not be copied" not in run.events_path.read_text()
    stopped = max(steps(originals(run)))
    assert 35 <= stopped < 400 and copies(bucket) == originals(run)
    assert len(steps(copies(bucket))) in (2, 3)  # the last two, and the best
    left = bucket.contents()
    shutil.copy(run.plan_path, tmp_path / "plan.json")
    shutil.rmtree(run.folder)
    half = {name: content for name, content in left.items() if name != f"team/run/checkpoint-{stopped}/{LAST}"}
    assert len(half) == len(left) - 1
    whole_and_half = (("whole copy", left), ("half a copy", half))
    for name, lying in whole_and_half:
        bucket.put(lying)
        assert bucket.contents() == lying
        from_step = max(steps({n.removeprefix("team/run/"): c for n, c in lying.items() if "checkpoint-" in n}))
        assert (from_step == stopped) == (name == "whole copy")
        again = Run(tmp_path / name)
        told = said(begin("train", tmp_path / "plan.json", "--out", again.folder, "--resume"))
        assert f"resumed at step {from_step}" in told
        assert losses(again.events()) == losses(whole.events())
        assert weights(published(again)) == weights(published(whole))
        assert copies(bucket) == originals(again)
        assert "could not be copied" not in again.events_path.read_text()


def test_a_store_that_is_gone_for_a_while_is_said_and_made_up_for(
    model: Path, tmp_path: Path, bucket: Bucket, begin: Start
) -> None:
    job, run = toy_job(tmp_path / "job", model, DROPPING, train=TRAIN | {"save_url": URL}), Run(tmp_path / "run")
    line = Line(bucket.port)
    process = begin("train", job, "--out", run.folder, port=line.port)
    wait_for(reached(run, 25), process)
    line.cut()
    wait_for(lambda: "could not be copied" in run.events_path.read_text(), process)
    behind = copies(bucket)
    line.mend()
    told = said(process)
    assert f"checkpoints could not be copied to {URL}" in told and "the next save tries again" in told
    assert run.state() == "finished" and len(losses(run.events())) == 400
    events = run.events()
    at = next(n for n, event in enumerate(events) if isinstance(event, Note) and "could not be copied" in event.text)
    missed = next(event for event in events[at:] if isinstance(event, Saved)).step
    assert missed < 400 and missed not in steps(behind)
    assert copies(bucket) == originals(run) and 400 in steps(copies(bucket))
    assert sum(isinstance(event, Started) for event in events) == 1


def test_a_bucket_that_is_not_there_is_said_before_training_and_not_made(
    model: Path, tmp_path: Path, bucket: Bucket, begin: Start
) -> None:
    job = toy_job(tmp_path / "job", model, train={"max_steps": 2, "save_url": "s3://buckett/run"})
    told = said(begin("train", job, "--out", tmp_path / "run"), code=1)
    assert "s3://buckett/run cannot be reached" in told and "bucket does not exist" in told
    assert not losses(Run(tmp_path / "run").events())
    with pytest.raises(URLError):
        Bucket(bucket.port, "buckett").names()
