"""This machine's processor and memory, as far as this process may use them (affinity, cgroups)."""

import os
import platform
import re
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
CPUINFO = Path("/proc/cpuinfo")


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """Model name of the processor."""
    found = re.search(r"^model name\s*:\s*(.+)$", _read(CPUINFO), re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def has_native_bf16() -> bool:
    """Does the processor multiply bfloat16 itself (AVX512-BF16, AMX-BF16, or bf16 on ARM)?"""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _read(CPUINFO), re.MULTILINE)
    return bool(found) and bool({"avx512_bf16", "amx_bf16", "bf16"} & set(found.group(1).split())) if found else False


def total_memory() -> int:
    """Bytes that this process may use: RAM, or less where a cgroup limits it."""
    limit = _limit()
    ram = int(psutil.virtual_memory().total)
    return ram if limit is None else min(ram, limit[0])


def available_memory() -> int:
    """Bytes free now, under the same limit. Cached file pages count as free: the kernel gives them back."""
    limit = _limit()
    free = int(psutil.virtual_memory().available)
    return free if limit is None else max(0, min(free, limit[0] - limit[1]))


def _limit() -> tuple[int, int] | None:
    """(bytes allowed, bytes in use without cached files) of the tightest cgroup around this process; None without."""
    found: list[tuple[int, int]] = []
    for folder in _groups():
        for allowed, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            limit, usage = _read(folder / allowed).strip(), _read(folder / used).strip()
            if limit.isdigit() and usage.isdigit() and int(limit) < 1 << 60:  # v1 writes 2^63 for `no limit`
                cached = re.search(r"^(?:total_)?inactive_file (\d+)$", _read(folder / "memory.stat"), re.MULTILINE)
                found.append((int(limit), int(usage) - (int(cached.group(1)) if cached else 0)))
    return min(found, default=None)


def _groups() -> list[Path]:
    """The process's cgroup folder and those above it, versions 2 and 1."""
    folders: list[Path] = []
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, kinds, path = [*line.split(":", 2), "", ""][:3]
        if kinds and "memory" not in kinds.split(","):
            continue
        root = CGROUP / "memory" if kinds else CGROUP
        here = root / path.lstrip("/")
        folders += [p for p in (here, *here.parents) if p == root or root in p.parents]
    return folders


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
