"""DeviceFacts of this machine, or of a GPU named in a job and found in devices.toml."""

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rankwise.errors import JobError
from rankwise.observe.gpus import match_gpu
from rankwise.observe.machine import available_memory, cpu_name, has_native_bf16, total_memory, usable_cores
from rankwise.observe.prices import PriceList, price_of
from rankwise.observe.rate import measured_rate
from rankwise.records import DeviceFacts
from rankwise.records.job import Hardware

MIB = 1 << 20
FIELDS = ("name", "memory.total", "memory.free", "compute_cap", "memory.reserved")
DTYPES = ("bf16", "fp16", "fp32", "fp8", "int8")


def observe_device(hardware: Hardware, where: Path | None = None, prices: PriceList | None = None) -> DeviceFacts:
    """The device that a job would run on.

    Args:
        where: the run folder, which need not be there yet; its disk is looked at (default: the working folder's).
        prices: the user's own, which go before ours.

    Raises:
        JobError: a GPU name that no entry matches, or more devices asked of this machine than it has.
    """
    count = hardware.count * hardware.nodes
    target = (where or Path.cwd()).resolve()
    disk = next(p for p in (target, *target.parents) if p.exists())
    if hardware.gpu is not None and hardware.gpu.lower() != "cpu":
        return _named(hardware.gpu, count, prices)
    here = [] if hardware.gpu else gpus_here()
    if not here:
        return _cpu(count, hardware.count, disk)
    if hardware.nodes == 1 and count > len(here):
        raise JobError(
            f"hardware.count is {count}, and this machine has {len(here)} GPUs ({here[0]['name']})",
            fix=f"set hardware.count to {len(here)}, or name the GPU of the machine you plan for in hardware.gpu",
        )
    return _gpu_here(here[0], count, disk, prices)


def _named(name: str, count: int, prices: PriceList | None) -> DeviceFacts:
    gpu = match_gpu(name)
    form = _form(name, gpu)
    return DeviceFacts(
        kind="gpu",
        name=gpu["name"],
        count=count,
        cores=None,
        memory_bytes=gpu["memory_mib"] * MIB,
        available_bytes=None,
        bf16=gpu.get("native_bf16", True),
        matmul_flops=_peaks(gpu | form),
        matmul_measured=False,
        compute_capability=gpu.get("compute_capability"),
        context_bytes=_context(gpu),
        disk_free_bytes=None,
        source=f"{gpu['source']} (dense peaks)",
        **_of_the_table(form),
        price=price_of(gpu["name"], prices),
    )


def unknown_gpu(name: str, count: int) -> DeviceFacts:
    """A GPU of which nothing is known but its name: what depends on it is unknown."""
    return DeviceFacts(
        kind="gpu",
        name=name,
        count=count,
        cores=None,
        memory_bytes=None,
        available_bytes=None,
        bf16=True,
        matmul_flops={},
        matmul_measured=False,
        compute_capability=None,
        context_bytes=None,
        disk_free_bytes=None,
        source=f"{name} is not in the table of GPUs",
    )


def _peaks(gpu: dict[str, Any]) -> dict[str, float]:
    return {dtype: float(gpu[dtype]) for dtype in DTYPES if dtype in gpu}


def _form(name: str, gpu: dict[str, Any]) -> dict[str, Any]:
    """The entry as it holds for the module, or for the PCIe card if the name says that it is one."""
    return gpu["pcie"] if "pcie" in gpu and "pcie" in name.lower() else gpu


def _of_the_table(form: dict[str, Any]) -> dict[str, Any]:
    """What only a table knows of a GPU, whether it is here or not."""
    return {key: form.get(key) for key in ("bandwidth", "link", "link_bytes_per_second", "watts")}


def _context(gpu: dict[str, Any]) -> tuple[int, int, int]:
    low, likely, high = (mib * MIB for mib in gpu["context_mib"])
    return low, likely, high


def _entry(name: str) -> dict[str, Any] | None:
    """The entry of the GPU that nvidia-smi calls this; None if the table has no such GPU."""
    try:
        return match_gpu(name)
    except JobError:
        return None


def _cpu(count: int, here: int, where: Path) -> DeviceFacts:
    """This machine's processor; `here` processes share its cores and its memory, each being one device."""
    rate = measured_rate("cpu", cpu_name())
    cores = usable_cores()
    return DeviceFacts(
        kind="cpu",
        name=f"{cpu_name()} ({cores} cores)",
        count=count,
        cores=cores,
        memory_bytes=total_memory() // here,
        available_bytes=available_memory() // here,
        bf16=has_native_bf16(),
        matmul_flops={dtype: flops / here for dtype, flops in rate.flops.items()},
        matmul_measured=True,
        compute_capability=None,
        context_bytes=None,
        disk_free_bytes=shutil.disk_usage(where).free,
        source=f"this machine; {rate.source}",
    )


def _gpu_here(gpu: dict[str, Any], count: int, where: Path, prices: PriceList | None) -> DeviceFacts:
    rate = measured_rate("cuda", gpu["name"])
    entry = _entry(gpu["name"])
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
        context_bytes=_context(entry) if entry else None,
        disk_free_bytes=shutil.disk_usage(where).free,
        source=f"nvidia-smi {datetime.now(UTC):%Y-%m-%d}; {rate.source}",
        **(_of_the_table(_form(gpu["name"], entry)) if entry else {}),
        price=price_of(entry["name"], prices) if entry else None,
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
