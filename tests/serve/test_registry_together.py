"""One registry, several processes at once, one of them killed: nothing is lost, twice or half there."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from rankwise.serve.registry import Registry
from tests.serve.databases import added, empty_database
from tests.training import environment

WORK = """
import sys
from datetime import date
from rankwise.serve.registry import Registry
from tests.serve.databases import added
url, what = sys.argv[1:]
if what == "open":
    sys.stdin.readline()
registry = Registry(url)
if what == "open":
    print(added(registry).version)
for _ in range(20 if what == "add" else 0):
    print(added(registry).version)
    registry.promote("clinic")
for _ in range(100 if what == "count" else 0):
    registry.add_tokens("clinic", date(2026, 11, 23), 2, 1)
while what == "for ever":
    added(registry)
    registry.promote("clinic")
    print("one more", flush=True)
"""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.prove)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "registry.sqlite")
        return
    yield empty_database(request.getfixturevalue("postgres_server"))


def begin(url: str, what: str) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    given = {**environment(), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", WORK, url, what], stdin=pipe, stdout=pipe, text=True, env=given)


def outcome(process: "subprocess.Popen[str]") -> list[str]:
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return text.split()


def test_two_processes_number_versions_without_gaps_or_twins(url: str) -> None:
    both = [begin(url, "add"), begin(url, "add")]
    given = [int(number) for process in both for number in outcome(process)]
    assert sorted(given) == list(range(1, 41))
    registry = Registry(url)
    tenant = registry.tenant("clinic")
    assert [v.version for v in tenant.versions] == list(range(1, 41))
    changes = registry.history("clinic")
    promoted = [c for c in changes if c.action == "promoted"]
    assert [c.before for c in promoted] == [None, *(c.version for c in promoted[:-1])]  # one after the other
    assert tenant.active == promoted[-1].version
    assert registry.revision() >= 40 + len(promoted)


def test_processes_that_make_one_registry_at_once_find_the_same(url: str) -> None:
    all_ = [begin(url, "open") for _ in range(4)]
    time.sleep(2)  # until they have imported and wait
    for process in all_:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert sorted(int(outcome(process)[0]) for process in all_) == [1, 2, 3, 4]


def test_tokens_counted_by_two_gateways_are_all_there(url: str) -> None:
    registry = Registry(url)
    added(registry)
    for process in [begin(url, "count"), begin(url, "count")]:
        outcome(process)
    assert registry.add_tokens("clinic", date(2026, 11, 23), 0, 0) == 600


def test_a_process_that_is_killed_leaves_whole_changes_alone(url: str) -> None:
    registry = Registry(url)
    chance = random.Random(0)
    for _ in range(3):
        process = begin(url, "for ever")
        assert process.stdout is not None and "one more" in process.stdout.readline()
        time.sleep(chance.random() * 0.2)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = registry.revision()
        added(registry)  # the lock of a dead process is nobody's
        assert registry.revision() == before + 1
    tenant, changes = registry.tenant("clinic"), registry.history("clinic")
    count = Counter(change.action for change in changes)
    assert [v.version for v in tenant.versions] == list(range(1, count["added"] + 1))
    assert tenant.active == [c.version for c in changes if c.action == "promoted"][-1]
    assert registry.revision() == len(changes)
