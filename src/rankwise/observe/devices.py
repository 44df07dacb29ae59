"""DeviceFacts of this machine, or of a GPU named in a job and found in devices.toml."""

import difflib
import re
import shutil
import subprocess
import tomllib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from rankwise.errors import JobError
from rankwise.observe.machine import available_memory, cpu_name, has_native_bf16, total_memory, usable_cores
from rankwise.observe.rate import measured_rate
from rankwise.records import DeviceFacts
from rankwise.records.job import Hardware

MIB = 1 << 20
FIELDS = ("name", "memory.total", "memory.free", "compute_cap", "memory.reserved")
NOISE = re.compile(r"\b(nvidia|geforce|tesla|amd|instinct|gpu|graphics|card)\b")
FORM = re.compile(r"rtx|pcie|sxm\d?|hbm\d\w?|oam")  # words of a name that people leave out or add
SIZE = re.compile(r"\d+gb")


def observe_device(hardware: Hardware, where: Path | None = None) -> DeviceFacts:
    """The device that a job would run on.

    Args:
        where: the run folder, which need not be there yet; its disk is looked at (default: the working folder's).

    Raises:
        JobError: a GPU name that no entry matches, or more devices asked of this machine than it has.
    """
    count = hardware.count * hardware.nodes
    target = (where or Path.cwd()).resolve()
    disk = next(p for p in (target, *target.parents) if p.exists())
    if hardware.gpu is not None and hardware.gpu.lower() != "cpu":
        return _named(hardware.gpu, count)
    here = [] if hardware.gpu else gpus_here()
    if not here:
        return _cpu(count, disk)
    if hardware.nodes == 1 and count > len(here):
        raise JobError(
            f"hardware.count is {count}, and this machine has {len(here)} GPUs ({here[0]['name']})",
            fix=f"set hardware.count to {len(here)}, or name the GPU of the machine you plan for in hardware.gpu",
        )
    return _gpu_here(here[0], count, disk)


def known_gpus() -> tuple[dict[str, Any], ...]:
    """The entries of devices.toml."""
    return _table()


def match_gpu(name: str) -> dict[str, Any]:
    """The entry that a loosely written name means. Where only the memory tells two apart, the name must say it.

    Raises:
        JobError: none or several match; the nearest names are offered.
    """
    words = _words(name)
    near_by = [(distance, g) for g in _table() if (distance := _distance(words, g)) is not None]
    fitting = [g for distance, g in near_by if distance == min(d for d, _ in near_by)]
    if len(fitting) == 1:
        return fitting[0]
    names = [g["name"] for g in _table()]
    near = [g["name"] for g in fitting] or _nearest(name)
    raise JobError(
        f"hardware.gpu {name}: " + ("could be several GPUs" if fitting else "no such GPU is known"),
        expected=f"one of {', '.join(names)}, or cpu",
        fix=f"did you mean {' or '.join(near)}?" if near else "name the nearest of these",
    )


@cache
def _table() -> tuple[dict[str, Any], ...]:
    path = Path(__file__).with_name("devices.toml")
    return tuple(tomllib.loads(path.read_text(encoding="utf-8"))["gpu"])


def _names(gpu: dict[str, Any]) -> list[str]:
    return [gpu["name"], *gpu["aliases"]]


def _words(name: str) -> frozenset[str]:
    """Lower-case parts without vendor words: `Tesla T4 16GB` -> {t4, 16gb}; `RTX4090` -> {rtx, 4090}."""
    text = re.sub(r"(\d+)\s*gi?b\b", r"\1gb", name.lower())
    text = re.sub(r"\brtx[\s_-]*(?=\d)", "rtx ", text)
    return frozenset(re.findall(r"[a-z0-9]+", NOISE.sub(" ", text)))


def _distance(wanted: frozenset[str], gpu: dict[str, Any]) -> int | None:
    """Words by which a name differs from the nearest name of the entry; None if it names another GPU."""
    names = [_words(n) for n in _names(gpu)]
    sizes = {w for w in wanted if SIZE.fullmatch(w)}
    if not sizes <= frozenset().union(*names):
        return None
    return min((len(wanted ^ n) for n in names if _model(wanted) == _model(n)), default=None)


def _model(words: frozenset[str]) -> frozenset[str]:
    return frozenset(w for w in words if not FORM.fullmatch(w) and not SIZE.fullmatch(w))


def _nearest(name: str) -> list[str]:
    simple = {" ".join(sorted(_words(n))): g["name"] for g in _table() for n in _names(g)}
    close = difflib.get_close_matches(" ".join(sorted(_words(name))), list(simple), 3, 0.4)
    return list(dict.fromkeys(simple[c] for c in close))


def _named(name: str, count: int) -> DeviceFacts:
    gpu = match_gpu(name)
    return DeviceFacts(
        kind="gpu",
        name=gpu["name"],
        count=count,
        cores=None,
        memory_bytes=gpu["memory_mib"] * MIB,
        available_bytes=None,
        bf16=gpu.get("native_bf16", True),
        matmul_flops=_peaks(gpu),
        matmul_measured=False,
        compute_capability=gpu.get("compute_capability"),
        context_bytes=_context(gpu),
        disk_free_bytes=None,
        usd_per_hour=None,
        source=f"{gpu['source']} (dense peaks)",
    )


def _peaks(gpu: dict[str, Any]) -> dict[str, float]:
    return {dtype: float(gpu[dtype]) for dtype in ("bf16", "fp32") if dtype in gpu}


def _context(gpu: dict[str, Any]) -> tuple[int, int, int]:
    low, likely, high = (mib * MIB for mib in gpu["context_mib"])
    return low, likely, high


def _known_context(name: str) -> tuple[int, int, int] | None:
    """The context of the GPU that nvidia-smi calls this; None if the table has no such GPU."""
    try:
        return _context(match_gpu(name))
    except JobError:
        return None


def _cpu(count: int, where: Path) -> DeviceFacts:
    rate = measured_rate("cpu", cpu_name())
    cores = usable_cores()
    return DeviceFacts(
        kind="cpu",
        name=f"{cpu_name()} ({cores} cores)",
        count=count,
        cores=cores,
        memory_bytes=total_memory(),
        available_bytes=available_memory(),
        bf16=has_native_bf16(),
        matmul_flops=rate.flops,
        matmul_measured=True,
        compute_capability=None,
        context_bytes=None,
        disk_free_bytes=shutil.disk_usage(where).free,
        usd_per_hour=None,
        source=f"this machine; 2048 x 2048 matmuls measured {rate.measured_at[:10]}",
    )


def _gpu_here(gpu: dict[str, Any], count: int, where: Path) -> DeviceFacts:
    rate = measured_rate("cuda", gpu["name"])
    return DeviceFacts(
        kind="gpu",
        name=gpu["name"],
        count=count,
        cores=usable_cores(),
        memory_bytes=gpu["total"],
        available_bytes=gpu["free"],
        bf16=gpu["capability"] >= 8.0,
        matmul_flops=rate.flops,
        matmul_measured=True,
        compute_capability=gpu["capability"],
        context_bytes=_known_context(gpu["name"]),
        disk_free_bytes=shutil.disk_usage(where).free,
        usd_per_hour=None,
        source=f"nvidia-smi {datetime.now(UTC):%Y-%m-%d}; 2048 x 2048 matmuls measured {rate.measured_at[:10]}",
    )


def gpus_here() -> list[dict[str, Any]]:
    """The GPUs of this machine; empty when nvidia-smi is missing or does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    for fields in (FIELDS, FIELDS[:-1]):  # drivers before 510 know no memory.reserved; their total leaves it out
        query = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
            return [_gpu_line(line) for line in done.stdout.splitlines() if line.strip()]
        except (OSError, subprocess.SubprocessError, ValueError):
            continue
    return []


def _gpu_line(line: str) -> dict[str, Any]:
    name, total, free, capability, *reserved = (part.strip() for part in line.split(","))
    usable = int(total) - (int(reserved[0]) if reserved else 0)
    return {"name": name, "total": usable * MIB, "free": int(free) * MIB, "capability": float(capability)}
