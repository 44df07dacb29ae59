"""The environment check: what is there, what is missing, and what follows from it."""

import os
import sys
from pathlib import Path

import pytest

from rankwise.observe import environment
from rankwise.observe.environment import observe_environment, tested_ranges
from rankwise.records.selfcheck import Condition

NVIDIA_SMI = """#!/bin/sh
echo "NVIDIA A100-SXM4-80GB, 81920, 80000, 8.0, 500"
"""


def found(where: Path) -> dict[str, Condition]:
    return {c.name: c for c in observe_environment(where).conditions}


def test_every_library_is_looked_up_and_its_range_is_known(tmp_path: Path) -> None:
    conditions = found(tmp_path)
    for name in ("torch", "transformers", "peft", "accelerate"):
        assert conditions[name].ok is True and conditions[name].value[0].isdigit()
    assert conditions["Python"].value == ".".join(map(str, sys.version_info[:3]))
    assert tested_ranges()["torch"].specifier.contains("99.0") and not tested_ranges()["torch"].specifier.contains(
        "1.0"
    )


def test_a_version_outside_the_range_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "version", lambda name: "0.1")
    conditions = found(tmp_path)
    assert conditions["peft"].ok is False and "tested with" in conditions["peft"].note
    assert not observe_environment(tmp_path).sound


def test_without_nvidia_smi_it_says_that_the_gpu_self_check_never_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found(tmp_path)["GPU"].value == "no CUDA GPU: the GPU self-check has never run on this machine"
    assert observe_environment(tmp_path).gpus == ()


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands for nvidia-smi")
def test_a_gpu_that_this_torch_cannot_use_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    conditions = found(tmp_path)
    assert conditions["GPU 0"].value.startswith("NVIDIA A100-SXM4-80GB, 79.5 GiB, compute capability 8.0")
    built_for_cuda = conditions["torch build"].value.startswith("built for CUDA")
    assert conditions["torch build"].ok is (None if built_for_cuda else False)


def test_a_cache_that_cannot_be_written_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("RANKWISE_CACHE", str(blocked / "cache"))
    cache = found(tmp_path)["cache folder"]
    assert cache.ok is False and "RANKWISE_CACHE" in cache.note
