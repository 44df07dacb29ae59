"""Tracing by other processes: the same answers and errors, a parent without torch, and nothing left behind."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from rankwise.errors import RankwiseError, UsageError
from rankwise.estimate import traced as memory
from rankwise.estimate import tracers as module
from rankwise.estimate.traced import adapter_file_of, adapter_order, restored, simplified, trace_order, traced
from rankwise.estimate.tracers import prepare, tracers
from rankwise.records import Setup
from rankwise.trace.adapterfile import adapter_file
from rankwise.trace.peaks import trace
from tests.trace.families import setup

ROOT = Path(__file__).parents[2]
SETUPS = [
    setup("llama", "full"),
    setup("llama", "full", parallel="zero3", world_size=4),
    setup("llama", "lora"),
    setup("llama", "lora", parallel="ddp", world_size=2),
    setup("llama", "qlora"),
    setup("llama", "prefix", r=None, num_virtual_tokens=4),
]
REFUSED = setup("llama", "lora", optim="adamw_of_the_moon")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, in the process and on the disk."""
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path))
    monkeypatch.setattr(memory, "_seen", {})
    monkeypatch.setattr(memory, "_refused", {})
    return tmp_path


def run(code: str, cache: Path, setups: list[Setup]) -> subprocess.CompletedProcess[str]:
    """A new interpreter, which has `setups` and has not imported torch."""
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "RANKWISE_CACHE": str(cache)}
    content = json.dumps([s.model_dump(mode="json") for s in setups])
    return subprocess.run(
        [sys.executable, "-c", READ + code], env=env, input=content, capture_output=True, text=True, check=False
    )


def files(cache: Path) -> list[Path]:
    return sorted(p for p in cache.rglob("*") if p.is_file())


READ = """
import json, os, signal, sys
from rankwise.errors import RankwiseError
from rankwise.estimate.traced import adapter_file_of, shapes_of, traced
from rankwise.estimate.tracers import prepare, tracers
from rankwise.records import Setup
setups = [Setup.model_validate(s) for s in json.load(sys.stdin)]
"""
ALL = """
seen = []
with tracers(2) as pool:
    *good, refused = setups
    prepare(setups, lambda done, total: seen.append((done, total)))
    processes = len(pool._processes)
    answers = [(traced(s).model_dump(mode="json"), adapter_file_of(s)) for s in good]
    errors = []
    for _ in range(2):
        try:
            traced(refused)
        except RankwiseError as error:
            errors.append(error.to_json())
    another = traced(good[0].model_copy(update={"max_length": 48})).model_dump(mode="json")
    shapes = shapes_of(good[0].config).model_dump(mode="json")
said = {"answers": answers, "errors": errors, "another": another, "shapes": shapes, "seen": seen}
print(json.dumps(said | {"processes": processes, "torch": "torch" in sys.modules}))
"""


def test_other_processes_answer_alike_and_torch_stays_with_them(cache: Path) -> None:
    done = run(ALL, cache, [*SETUPS, REFUSED])
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["torch"] is False
    assert said["processes"] == 2
    expected = [[trace(simplified(s)).model_dump(mode="json"), adapter_file(s)] for s in SETUPS]
    assert said["answers"] == json.loads(json.dumps(expected))
    longer = simplified(SETUPS[0].model_copy(update={"max_length": 48}))
    assert said["another"] == json.loads(trace(longer).model_dump_json())
    assert said["shapes"]["total_params"] == trace(SETUPS[0]).total_params
    with pytest.raises(UsageError) as caught:
        trace(REFUSED)
    assert said["errors"] == [caught.value.to_json()] * 2
    total = len({o.name for s in [*SETUPS, REFUSED] for o in module._orders(s)})
    assert said["seen"] == [[n, total] for n in range(1, total + 1)]
    made = [p for p in files(cache) if p.parent != cache]
    assert len(made) == total - 1 + 2  # all but the refused one, another length, shapes
    assert all(json.loads(p.read_text()) for p in made)
    for s in SETUPS:  # this process finds them on the disk
        assert memory.remembered(trace_order(s)) is not None


INTERRUPTED = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
with tracers(2) as pool:
    def stop(done, total):
        global processes
        processes = [p._process for p in pool._processes]
        os.kill(os.getpid(), signal.SIGINT)
    try:
        prepare(setups, stop)
    except KeyboardInterrupt:
        print(json.dumps([len(processes), [p.poll() for p in processes], pool.running]))
"""


def test_ctrl_c_ends_them_at_once_and_leaves_no_half_file(cache: Path) -> None:
    done = run(INTERRUPTED, cache, SETUPS)
    count, codes, running = json.loads(done.stdout)
    assert (count, codes, running) == (2, [-9, -9], False)
    assert [json.loads(p.read_text()) for p in files(cache)]  # one at least, and each is whole
    assert not [p for p in files(cache) if p.name.startswith(".")]


ENDED = """
from rankwise.estimate.tracers import _Process
print(_Process()._process.pid, flush=True)
os._exit(0)
"""


def test_they_end_with_their_parent(cache: Path) -> None:
    pid = int(run(ENDED, cache, []).stdout)
    limit = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_a_killed_process_is_one_error(cache: Path) -> None:
    process = module._Process()
    try:
        process.kill()
        with pytest.raises(RankwiseError, match=r"a tracing process died \(exit code -9\)") as caught:
            process.send(trace_order(SETUPS[0]))
            process.answer()
        assert caught.value.expected
        assert caught.value.fix
    finally:
        process.bury()


def test_the_last_words_of_a_crashed_process_are_kept(cache: Path) -> None:
    process = module._Process()
    try:
        process.send(memory.Order("traces", {"no": "setup"}))
        with pytest.raises(RankwiseError, match=r"died \(exit code 1\): ") as caught:
            process.answer()
        log = cache / "tracer.log"
        assert str(log) in caught.value.fix
        assert "ValidationError" in log.read_text()
    finally:
        process.bury()


def test_here_where_torch_is_imported_nothing_is_started(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_Process", None)  # to start one would fail
    seen: list[tuple[int, int]] = []
    prepare([*SETUPS[2:5], REFUSED], lambda done, total: seen.append((done, total)))
    assert seen == [(n, 5) for n in range(1, 6)]  # lora and qlora have the same file
    assert memory.remembered(adapter_order(SETUPS[4])) is not None
    for _ in range(2):
        with pytest.raises(UsageError, match="adamw_of_the_moon"):
            traced(REFUSED)
    prepare([*SETUPS[2:5], REFUSED], lambda done, total: pytest.fail("nothing is missing"))
    assert adapter_file_of(SETUPS[4]) == adapter_file(SETUPS[2])


@pytest.mark.parametrize(
    ("missing", "limit", "torch", "worth"),
    [(3, 2, False, True), (2, 2, False, False), (3, 0, False, False), (30, 2, True, False)],
)
def test_when_processes_are_started(
    missing: int, limit: int, torch: bool, worth: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch:
        monkeypatch.delitem(sys.modules, "torch")
    assert module._worth(missing, limit) is worth


@pytest.mark.parametrize(("cores", "free", "workers"), [(1, 1e11, 0), (2, 1e11, 2), (64, 1e11, 4), (64, 1e9, 0)])
def test_a_process_a_core_as_far_as_memory_goes(
    cores: int, free: float, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: type("Memory", (), {"available": free}))
    assert module._usual_workers() == workers


def test_sharded_setups_go_together_and_the_longest_first() -> None:
    orders = [o for s in SETUPS for o in module._orders(s)]
    groups = [[o.content["method"] for o in group] for group in module._groups(orders)]
    assert groups[0] == ["prefix"]  # of all layers
    assert sorted(groups[1:3]) == [["full", "full"], ["lora", "lora"]]
    assert len(groups) == 4 + 2  # and the files of prefix and LoRA, the last
    assert {o.kind for group in list(module._groups(orders))[-2:] for o in group} == {"adapters"}


def test_pools_do_not_nest() -> None:
    with tracers(0) as outer:
        with tracers(2) as inner:
            assert inner is outer
        assert module._open == [outer]
    assert module._open == []


@pytest.mark.parametrize("kind", [UsageError, RankwiseError])
def test_an_error_travels_whole(kind: Any) -> None:
    error = kind("what", expected="this", fix="that")
    found = restored(json.loads(json.dumps(error.to_json())))
    assert type(found) is kind
    assert (found.what, found.expected, found.fix) == ("what", "this", "that")
