"""The environment that a run would find here: versions, memory, disk, GPUs. Looked at without importing torch."""

import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from rankwise.files import cache_folder
from rankwise.model.locate import EMBEDDED_PACKAGE, INSTALL_EMBEDDED
from rankwise.observe.devices import gpus_here
from rankwise.observe.machine import available_memory, cpu_name, has_native_bf16, total_memory, usable_cores
from rankwise.records.selfcheck import NEVER_RUN_ON_GPU, Condition, Environment

NEEDED = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers")
OPTIONAL = {
    "bitsandbytes": "qlora, lora-8bit and 8-bit optimizers need it",
    "deepspeed": "ZeRO needs it",
    "flash-attn": "--attn flash needs it",
    "vllm": "serving many tenants at speed needs it",
    "datasets": "training files from a hub need it",
    "lm-eval": "tasks such as mmlu need it (`rankwise eval --tasks`): pip install 'rankwise[eval]'",
}
LEAST_PYTHON = (3, 11)
ROOM = 10 << 30  # a 1B model, its checkpoints and its merged copy
NO_GPU = "no CUDA GPU: the GPU self-check has never run on this machine"


def observe_environment(where: Path | None = None) -> Environment:
    """Every condition, in the order in which a person would look; `where` is the folder of the runs."""
    gpus = tuple(_gpu_words(g) for g in gpus_here())
    conditions = (*_machine(where or Path.cwd()), *_gpus(gpus), *_packages(), *_torch_build(gpus), *_models())
    return Environment(conditions=conditions, gpus=gpus)


def _machine(where: Path) -> Iterator[Condition]:
    python = sys.version_info[:2]
    least = ".".join(map(str, LEAST_PYTHON))
    yield Condition(
        name="Python", value=platform.python_version(), ok=python >= LEAST_PYTHON, note=f"{least} or newer is needed"
    )
    yield Condition(name="platform", value=platform.platform(), ok=None)
    bf16 = "native bf16" if has_native_bf16() else "no native bf16: bf16 arithmetic is emulated, and slow"
    yield Condition(name="processor", value=f"{cpu_name()}, {usable_cores()} cores", ok=None, note=bf16)
    free = f"{_gib(available_memory())} of {_gib(total_memory())} free"
    yield Condition(name="memory", value=free, ok=None)
    disk = shutil.disk_usage(next(p for p in (where.resolve(), *where.resolve().parents) if p.exists()))
    note = "" if disk.free >= ROOM else "checkpoints of larger models will not fit"
    yield Condition(name="disk", value=f"{_gib(disk.free)} free at {where.resolve()}", ok=disk.free >= ROOM, note=note)


def _gpus(gpus: tuple[str, ...]) -> Iterator[Condition]:
    if not gpus:
        yield Condition(name="GPU", value=NO_GPU, ok=None, note="nvidia-smi lists none")
    for i, words in enumerate(gpus):
        yield Condition(
            name=f"GPU {i}", value=words, ok=None, note="`rankwise doctor --gpu` compares it with the traces"
        )
    yield Condition(
        name="never run on a GPU by us", value=f"{len(NEVER_RUN_ON_GPU)} features", ok=None, note="see below"
    )


def _gpu_words(gpu: dict[str, object]) -> str:
    total = gpu["total"]
    assert isinstance(total, int)
    return f"{gpu['name']}, {_gib(total)}, compute capability {gpu['capability']}"


def _packages() -> Iterator[Condition]:
    ranges = tested_ranges()
    for name in (*NEEDED, *OPTIONAL):
        found, tested = _version(name), ranges.get(name)
        if found is None:
            needed = name in NEEDED
            note = f"pip install '{tested or name}'" if needed else OPTIONAL[name]
            yield Condition(name=name, value="not installed", ok=False if needed else None, note=note)
        elif tested is None:
            yield Condition(name=name, value=found, ok=None, note="no version of it is tested here")
        else:
            fits = tested.specifier.contains(found, prereleases=True)
            yield Condition(name=name, value=found, ok=fits, note="" if fits else f"tested with {tested.specifier}")


def tested_ranges() -> dict[str, Requirement]:
    """Package -> the requirement of Rankwise that names it: of the installed package, or of the checkout around it."""
    found: dict[str, Requirement] = {}
    for text in _requirements():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        found.setdefault(requirement.name.lower(), requirement)
    return found


def _requirements() -> list[str]:
    checkout = Path(__file__).resolve().parents[3] / "pyproject.toml"
    if checkout.is_file():
        project = tomllib.loads(checkout.read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {}).values()
        return [*project["dependencies"], *(text for extra in extras for text in extra)]
    try:
        return list(requires("rankwise") or [])
    except PackageNotFoundError:
        return []


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _torch_build(gpus: tuple[str, ...]) -> Iterator[Condition]:
    """torch/version.py says what the build is for; importing torch would take seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return
    cuda = re.search(r"^cuda\b.*=\s*'([\d.]+)'", text, re.MULTILINE)
    value = f"built for CUDA {cuda.group(1)}" if cuda else "built without CUDA"
    wrong = bool(gpus) and not cuda
    note = "torch cannot use the GPU of this machine: install a CUDA build" if wrong else ""
    yield Condition(name="torch build", value=value, ok=False if wrong else None, note=note)


def _models() -> Iterator[Condition]:
    offline = os.environ.get("HF_HUB_OFFLINE", "")
    on = offline.upper() in ("1", "ON", "YES", "TRUE")
    note = "hub ids are found in the local cache alone" if on else "models may be downloaded"
    yield Condition(name="HF_HUB_OFFLINE", value=offline or "not set", ok=None, note=note)
    folder = cache_folder()
    why = _not_writable(folder)
    yield Condition(name="cache folder", value=str(folder), ok=not why, note=why)
    there = importlib.util.find_spec(EMBEDDED_PACKAGE) is not None
    yield Condition(
        name="embedded model",
        value="installed" if there else "not installed",
        ok=None if not there else True,
        note="" if there else f"`model: embedded` needs it: {INSTALL_EMBEDDED}",
    )


def _not_writable(folder: Path) -> str:
    """Empty when a file can be made there; else what stands in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"{error.strerror or error}; set RANKWISE_CACHE to a folder that can be written"


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"
