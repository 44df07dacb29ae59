"""Names of GPUs, this machine, and the remembered matmul rate."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rankwise.errors import JobError, RankwiseError
from rankwise.observe import devices, machine, rate
from rankwise.observe.devices import observe_device
from rankwise.observe.gpus import known_gpus, match_gpu
from rankwise.observe.prices import price_of, read_prices
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
        ("RTX 3090 Ti", "RTX-3090-Ti-24GB"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX-4070-Ti-SUPER-16GB"),
        ("A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("a100_80gb", "A100-80GB"),
        ("H100", "H100-80GB"),
        ("H100-80GB SXM", "H100-80GB"),
        ("NVIDIA H100 PCIe", "H100-PCIe-80GB"),
        ("NVIDIA H100 NVL", "H100-NVL-94GB"),
        ("H100 95 GiB", "H100-NVL-94GB"),
        ("NVIDIA GH200 480GB", "GH200-96GB"),
        ("Tesla V100-SXM2-32GB", "V100-32GB"),
        ("L40", "L40-48GB"),
        ("RTX A6000 48GB", "RTX-A6000-48GB"),
        ("RTX 6000 Ada 48GB", "RTX-6000-Ada-48GB"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000-96GB"),
        ("A10G 24GB", "A10G-24GB"),
        ("AMD Instinct MI300X", "MI300X-192GB"),
    ],
)
def test_loose_names(written: str, meant: str) -> None:
    assert match_gpu(written)["name"] == meant


@pytest.mark.parametrize(
    ("written", "offered"),
    [
        ("A100", "A100-80GB or A100-40GB"),
        ("V100", "V100-32GB or V100-16GB"),
        ("H10", "H100"),
        ("L41", "L4"),
        ("A100 24GB", "A100"),
        ("Quadro RTX 6000", "6000"),
    ],
)
def test_names_that_are_none_or_several(written: str, offered: str) -> None:
    with pytest.raises(JobError) as error:
        match_gpu(written)
    assert offered in error.value.fix


def test_every_entry_is_whole() -> None:
    for gpu in known_gpus():
        facts = observe_device(Hardware(gpu=gpu["name"], count=2, nodes=2))
        assert match_gpu(gpu["name"]) == gpu and all(match_gpu(alias) == gpu for alias in gpu["aliases"])
        assert facts.count == 4 and facts.price == price_of(facts.name)
        assert facts.bf16 == ("bf16" in facts.matmul_flops) and facts.matmul_flops["fp32"] > 5e12
        assert facts.matmul_flops.get("bf16", 1e15) > facts.matmul_flops["fp32"]
        assert "datasheet" in facts.source or "whitepaper" in facts.source
        if facts.compute_capability is None:
            assert facts.name.startswith("MI")
        else:
            assert facts.bf16 == (facts.compute_capability >= 8.0)


def test_the_figures_of_an_entry_fit_each_other() -> None:
    """Peaks as each generation has them: fp16 as bf16, fp8 twice that, int8 twice, or four times on GeForce cards."""
    for gpu in known_gpus():
        facts = observe_device(Hardware(gpu=gpu["name"]))
        peaks, narrow = facts.matmul_flops, facts.matmul_flops.get("fp16")
        assert peaks.get("bf16", narrow) == narrow and (narrow is None) == (facts.name == "P100-16GB")
        assert ("fp8" in peaks) == ((facts.compute_capability or 0) >= 8.9 or facts.name.startswith("MI300"))
        if narrow and "fp8" in peaks:
            assert peaks["fp8"] == pytest.approx(2 * narrow, rel=0.02)
        if narrow and "int8" in peaks:
            times = {"MI250X": (1.0,), "RTX-2080": (4.0,), "RTX-3": (4.0,), "RTX-4": (4.0,), "RTX-5": (4.0,)}
            allowed = next((t for start, t in times.items() if facts.name.startswith(start)), (2.0,))
            assert any(peaks["int8"] == pytest.approx(n * narrow, rel=0.02) for n in allowed), facts.name
        assert facts.bandwidth and 3e11 <= facts.bandwidth <= 8e12
        assert facts.watts is None or 70 <= facts.watts <= 1000


def test_a_link_has_the_rate_of_its_generation() -> None:
    rates = {"PCIe 3.0 x16": 16e9, "PCIe 4.0 x16": 32e9, "PCIe 5.0 x16": 64e9}
    rates |= {"NVLink 2": 150e9, "NVLink 3": 300e9, "NVLink 4": 450e9, "NVLink 5": 900e9}
    for gpu in known_gpus():
        facts = observe_device(Hardware(gpu=gpu["name"]))
        if facts.name in ("H800-80GB", "A800-80GB"):
            assert facts.link_bytes_per_second == 200e9  # what they differ in
        elif facts.name.startswith("MI"):
            assert facts.link and facts.link.startswith("Infinity Fabric")
        else:
            assert facts.link_bytes_per_second == rates[facts.link or ""]


@pytest.mark.parametrize(
    ("written", "link", "bandwidth", "watts", "fp16"),
    [
        ("A100-80GB", "NVLink 3", 2039e9, 400, 312e12),
        ("NVIDIA A100 80GB PCIe", "PCIe 4.0 x16", 1935e9, 300, 312e12),
        ("NVIDIA A100-SXM4-40GB", "NVLink 3", 1555e9, 400, 312e12),
        ("V100-SXM2-16GB", "NVLink 2", 900e9, 300, 125e12),
        ("Tesla V100-PCIE-16GB", "PCIe 3.0 x16", 900e9, 250, 112e12),
        ("A800 80GB PCIe", "PCIe 4.0 x16", 1935e9, None, 312e12),
    ],
)
def test_a_pcie_card_is_not_its_module(
    written: str, link: str, bandwidth: float, watts: float | None, fp16: float
) -> None:
    facts = observe_device(Hardware(gpu=written))
    assert (facts.link, facts.bandwidth, facts.watts) == (link, bandwidth, watts)
    assert facts.matmul_flops["fp16"] == fp16


def test_a_users_prices_go_into_the_facts(tmp_path: Path) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text("date: 2026-11-01\ngpus: {l4: {on_demand: 0.5}}\n")
    mine = observe_device(Hardware(gpu="L4"), prices=read_prices(file))
    assert mine.usd_per_hour == 0.5 and mine.price is not None and str(file) in mine.price.source
    assert mine.identity_hash == observe_device(Hardware(gpu="L4")).identity_hash


def test_memory_is_what_the_driver_leaves_and_the_context_a_small_part_of_it() -> None:
    for gpu in known_gpus():
        facts = observe_device(Hardware(gpu=gpu["name"]))
        named = int(gpu["name"].rsplit("-", 1)[1].removesuffix("GB"))
        assert 0.9 * named < facts.memory_bytes / 2**30 <= 1.0 * named
        assert facts.context_bytes is not None
        low, likely, high = facts.context_bytes
        assert 100 << 20 <= low < likely < high < 1 << 30 and high < 0.06 * facts.memory_bytes


def test_the_context_of_a_t4_is_the_measured_one() -> None:
    """Process minus reserved in fitcheck's runs on a Tesla T4: 7,073 - 6,932 and 7,136.88 - 6,996 MiB."""
    facts = observe_device(Hardware(gpu="Tesla T4 16GB"))
    assert facts.context_bytes is not None and facts.context_bytes[1] == 141 << 20


def test_this_processor_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = observe_device(Hardware(gpu="cpu"))
    assert first.kind == "cpu" and first.matmul_measured and first.matmul_flops["fp32"] > 1e9
    assert (first.price, first.link, first.bandwidth, first.watts) == (None, None, None, None)
    assert first.cores and first.cores >= 1 and 0 < (first.available_bytes or 0) <= first.memory_bytes
    monkeypatch.setattr(rate, "_probe", lambda _: pytest.fail("measured again"))
    again = observe_device(Hardware(gpu="cpu"))
    assert again.matmul_flops == first.matmul_flops and again.identity_hash == first.identity_hash


@pytest.mark.parametrize("harm", ["old", "damaged", "other"])
def test_old_or_damaged_rates_are_measured_again(cache: Path, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "_probe", lambda _: {"bf16": 2.0, "fp32": 1.0, "undisturbed": 1.0})
    rate.measured_rate("cpu", "x")
    stored = json.loads((cache / "matmul.json").read_text())
    for entry in stored.values():
        entry["measured_at"] = "2020-01-01T00:00:00+00:00"
    text = {"old": json.dumps(stored), "damaged": "[", "other": json.dumps({"other": {}})}[harm]
    (cache / "matmul.json").write_text(text)
    monkeypatch.setattr(rate, "_probe", lambda _: {"bf16": 4.0, "fp32": 3.0, "undisturbed": 1.0})
    assert rate.measured_rate("cpu", "x").flops == {"bf16": 4.0, "fp32": 3.0}


def test_a_rate_beside_other_programs_says_so_and_is_measured_again_soon(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "_probe", lambda _: {"bf16": 2.0, "fp32": 1.0, "undisturbed": 0.4})
    first = rate.measured_rate("cpu", "x")
    assert first.source.endswith("beside other programs") and rate.measured_rate("cpu", "x") == first
    stored = json.loads((cache / "matmul.json").read_text())
    for entry in stored.values():
        entry["measured_at"] = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    (cache / "matmul.json").write_text(json.dumps(stored))
    monkeypatch.setattr(rate, "_probe", lambda _: {"bf16": 4.0, "fp32": 3.0, "undisturbed": 0.99})
    again = rate.measured_rate("cpu", "x")
    assert again.flops["bf16"] == 4.0 and "beside" not in again.source


def test_a_probe_that_fails_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate.sys, "executable", "/bin/false")
    with pytest.raises(RankwiseError, match="probe on cpu failed"):
        rate.measured_rate("cpu", "x")


def test_a_gpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "NVIDIA H100 80GB HBM3, 81559, 80994, 9.0, 551\n"
    monkeypatch.setattr(devices.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(
        devices, "measured_rate", lambda *_: rate.Rate({"bf16": 7e14, "fp32": 5e13}, "2026-01-01T00:00")
    )

    def answer(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, line, "")

    monkeypatch.setattr(devices.subprocess, "run", answer)
    facts = observe_device(Hardware())
    seen = (facts.kind, facts.name, facts.bf16, facts.memory_bytes, facts.available_bytes)
    assert seen == ("gpu", "NVIDIA H100 80GB HBM3", True, 81559 - 551 << 20, 80994 << 20)
    assert facts.compute_capability == 9.0
    listed = observe_device(Hardware(gpu="H100"))
    assert facts.context_bytes == listed.context_bytes and facts.price == listed.price
    assert (facts.bandwidth, facts.link, facts.watts) == (3350e9, "NVLink 4", 700)
    with pytest.raises(JobError, match="1 GPUs"):
        observe_device(Hardware(count=2))


def test_a_driver_without_reserved_memory_and_a_gpu_that_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(
        devices, "measured_rate", lambda *_: rate.Rate({"bf16": 7e13, "fp32": 5e12}, "2026-01-01T00:00")
    )

    def answer(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if "memory.reserved" in command[1]:
            raise subprocess.CalledProcessError(2, command)
        return subprocess.CompletedProcess([], 0, "GeForce GTX 1080, 8119, 8000, 6.1\n", "")

    monkeypatch.setattr(devices.subprocess, "run", answer)
    facts = observe_device(Hardware())
    assert (facts.memory_bytes, facts.bf16, facts.compute_capability) == (8119 << 20, False, 6.1)
    assert facts.context_bytes is None and facts.price is None and facts.bandwidth is None and facts.link is None


def test_cgroup_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_groups", lambda: [tmp_path])
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 200000\n")
    assert machine.total_memory() == 1_000_000 and machine.available_memory() == 500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.total_memory() > 1_000_000
