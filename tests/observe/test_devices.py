"""Names of GPUs, this machine, and the remembered matmul rate."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rankwise.errors import JobError, RankwiseError
from rankwise.observe import devices, machine, rate
from rankwise.observe.devices import known_gpus, match_gpu, observe_device
from rankwise.records.job import Hardware


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("A100-80GB", "A100-80GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("a100 40 gb", "A100-40GB"),
        ("NVIDIA L40S", "L40S-48GB"),
        ("Tesla T4 16GB", "T4-16GB"),
        ("t4", "T4-16GB"),
        ("L4", "L4-24GB"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("H200", "H200-141GB"),
        ("A10G", "A10G-24GB"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090-24GB"),
        ("RTX4090", "RTX-4090-24GB"),
        ("3090", "RTX-3090-24GB"),
    ],
)
def test_loose_names(written: str, meant: str) -> None:
    assert match_gpu(written)["name"] == meant


@pytest.mark.parametrize(
    ("written", "offered"), [("A100", "A100-80GB"), ("H10", "H100"), ("L40", "L40S"), ("A100 24GB", "A100")]
)
def test_names_that_are_none_or_several(written: str, offered: str) -> None:
    with pytest.raises(JobError) as error:
        match_gpu(written)
    assert offered in error.value.fix


def test_every_entry_is_whole() -> None:
    for gpu in known_gpus():
        facts = observe_device(Hardware(gpu=gpu["name"], count=2, nodes=2))
        assert facts.count == 4 and facts.memory_bytes > 15e9 and facts.usd_per_hour is None
        assert facts.bf16 == ("bf16" in facts.matmul_flops) and facts.matmul_flops["fp32"] > 5e12
        assert "datasheet" in facts.source or "whitepaper" in facts.source


def test_this_processor_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = observe_device(Hardware(gpu="cpu"))
    assert first.kind == "cpu" and first.matmul_measured and first.matmul_flops["fp32"] > 1e9
    assert first.cores and first.cores >= 1 and 0 < (first.available_bytes or 0) <= first.memory_bytes
    monkeypatch.setattr(rate, "_probe", lambda _: pytest.fail("measured again"))
    again = observe_device(Hardware(gpu="cpu"))
    assert again.matmul_flops == first.matmul_flops and again.identity_hash == first.identity_hash


@pytest.mark.parametrize("harm", ["old", "damaged", "other"])
def test_old_or_damaged_rates_are_measured_again(cache: Path, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "_probe", lambda _: {"bf16": 2.0, "fp32": 1.0})
    rate.measured_rate("cpu", "x")
    stored = json.loads((cache / "matmul.json").read_text())
    for entry in stored.values():
        entry["measured_at"] = "2020-01-01T00:00:00+00:00"
    text = {"old": json.dumps(stored), "damaged": "[", "other": json.dumps({"other": {}})}[harm]
    (cache / "matmul.json").write_text(text)
    monkeypatch.setattr(rate, "_probe", lambda _: {"bf16": 4.0, "fp32": 3.0})
    assert rate.measured_rate("cpu", "x").flops == {"bf16": 4.0, "fp32": 3.0}


def test_a_probe_that_fails_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate.sys, "executable", "/bin/false")
    with pytest.raises(RankwiseError, match="probe on cpu failed"):
        rate.measured_rate("cpu", "x")


def test_a_gpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "NVIDIA H100 80GB HBM3, 81559, 80994, 9.0\n"
    monkeypatch.setattr(devices.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(
        devices, "measured_rate", lambda *_: rate.Rate({"bf16": 7e14, "fp32": 5e13}, "2026-01-01T00:00")
    )

    def answer(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, line, "")

    monkeypatch.setattr(devices.subprocess, "run", answer)
    facts = observe_device(Hardware())
    assert (facts.kind, facts.name, facts.bf16, facts.memory_bytes) == (
        "gpu",
        "NVIDIA H100 80GB HBM3",
        True,
        81559 << 20,
    )
    with pytest.raises(JobError, match="1 GPUs"):
        observe_device(Hardware(count=2))


def test_cgroup_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_groups", lambda: [tmp_path])
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 200000\n")
    assert machine.total_memory() == 1_000_000 and machine.available_memory() == 500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.total_memory() > 1_000_000
