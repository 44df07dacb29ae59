"""How many devices, and how the work is split: launcher options, accelerate's file, DeepSpeed's JSON."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rankwise.observe.recipes.reading import Launch

STAGE = re.compile(r"(?:zero|z|stage)[_-]?([0-3])", re.IGNORECASE)


def find(name: str, folder: Path) -> Path | None:
    """A file that a configuration names: from its folder, from the folders above it, from here."""
    for base in (folder, *folder.parents[:4], Path.cwd()):
        if (base / name).is_file():
            return base / name
    return None


def of_deepspeed(given: Any, folder: Path) -> Launch:
    """From `deepspeed:`, a path or the JSON itself. A file that is not here is judged by its name, as a note says."""
    if isinstance(given, Mapping):
        return _deepspeed_json(given)
    name = str(given)
    if (path := find(name, folder)) is not None:
        content = _mapping(path)
        if content is not None:
            return _deepspeed_json(content)
    stage = STAGE.search(Path(name).name)
    if stage is None:
        return Launch(notes=(f"{name} is not here and its name says no stage: how the work is split is unknown",))
    offload = ("all" if stage[1] == "3" else "optimizer") if "offload" in name.lower() else None
    return Launch(
        parallel=_stage(int(stage[1])),
        offload=offload,
        notes=(f"{name} is not here; ZeRO stage {stage[1]}{' with offload' if offload else ''} is read off its name",),
    )


def _deepspeed_json(content: Mapping[str, Any]) -> Launch:
    zero = content.get("zero_optimization")
    zero = zero if isinstance(zero, Mapping) else {}
    devices = {
        part: zero.get(f"offload_{part}", {}).get("device", "none")
        for part in ("param", "optimizer")
        if isinstance(zero.get(f"offload_{part}", {}), Mapping)
    }
    offload = "all" if devices.get("param") == "cpu" else "optimizer" if devices.get("optimizer") == "cpu" else None
    stage = zero.get("stage", 0)
    return Launch(parallel=_stage(stage) if isinstance(stage, int) else None, offload=offload)


def _stage(stage: int) -> str:
    return f"zero{stage}" if stage in (1, 2, 3) else "ddp"


def of_accelerate(name: str, folder: Path) -> Launch:
    """From accelerate's YAML; TRL ships some under a short name (zero2, fsdp1, multi_gpu)."""
    path = find(name, folder)
    content = _mapping(path) if path else None
    if content is not None:
        return _accelerate_yaml(content)
    low = Path(name).name.lower()
    if stage := STAGE.search(low):
        return Launch(
            parallel=_stage(int(stage[1])), notes=(f"{name} is not here; ZeRO {stage[1]} is read off its name",)
        )
    if "fsdp" in low:
        return Launch(parallel="fsdp", notes=(f"{name} is not here; FSDP is read off its name",))
    if "multi_gpu" in low:
        return Launch(parallel="ddp", notes=(f"{name} is not here; DDP is read off its name",))
    return Launch(notes=(f"{name} is not here: how the work is split is unknown",))


def _accelerate_yaml(content: Mapping[str, Any]) -> Launch:
    kind = str(content.get("distributed_type", "")).upper()
    nodes = _count(content.get("num_machines")) or 1
    processes = _count(content.get("num_processes"))
    devices = processes // nodes if processes else None
    inner = content.get("deepspeed_config") if kind == "DEEPSPEED" else content.get("fsdp_config")
    inner = inner if isinstance(inner, Mapping) else {}
    if kind == "DEEPSPEED":
        offload = "optimizer" if inner.get("offload_optimizer_device") == "cpu" else None
        offload = "all" if inner.get("offload_param_device") == "cpu" else offload
        return Launch(devices, nodes, _stage(_count(inner.get("zero_stage")) or 0), offload)
    if kind == "FSDP":
        offload = "all" if inner.get("fsdp_offload_params") is True else None
        return Launch(devices, nodes, "fsdp", offload, recomputes=inner.get("fsdp_activation_checkpointing") is True)
    return Launch(devices, nodes, "ddp" if kind.startswith("MULTI") else None, cpu=content.get("use_cpu") is True)


def of_fsdp(fsdp: Any, config: Any) -> Launch:
    """From `fsdp:` (words or true) and `fsdp_config:` of the Trainer or of Axolotl."""
    words = " ".join(map(str, fsdp)) if isinstance(fsdp, list) else str(fsdp or "")
    settings = config if isinstance(config, Mapping) else {}
    if not settings and words.strip().lower() in ("", "false", "none"):
        return Launch()
    offloads = settings.get("offload_params", settings.get("fsdp_offload_params")) is True or "offload" in words
    recomputes = settings.get("activation_checkpointing", settings.get("fsdp_activation_checkpointing")) is True
    return Launch(parallel="fsdp", offload="all" if offloads else None, recomputes=recomputes)


def of_command(launcher: Mapping[str, Any], environment: Mapping[str, str], folder: Path) -> Launch:
    """From the options of accelerate, torchrun or deepspeed, and the variables before them."""
    base = Launch()
    if isinstance(config := launcher.get("config_file"), str):
        base = of_accelerate(config, folder)
    if isinstance(plugin := launcher.get("deepspeed_config_file"), str):
        base = of_deepspeed(plugin, folder)
    if stage := _count(launcher.get("zero_stage")):
        base = Launch(base.devices, base.nodes, _stage(stage), base.offload)
    if launcher.get("use_fsdp"):
        base = Launch(base.devices, base.nodes, "fsdp", base.offload)
    nodes = _count(launcher.get("num_machines") or launcher.get("nnodes") or environment.get("NNODES")) or base.nodes
    each = _count(launcher.get("nproc_per_node") or launcher.get("num_gpus") or environment.get("NPROC_PER_NODE"))
    total = _count(launcher.get("num_processes"))
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    seen = len([d for d in visible.split(",") if d.strip()]) or None
    devices = each or (total // (nodes or 1) if total else None) or base.devices or seen
    cpu = base.cpu or bool(launcher.get("cpu"))
    return Launch(devices, nodes, base.parallel, base.offload, cpu, base.recomputes, base.notes)


def merged(*found: Launch) -> Launch:
    """The first that says something, field by field."""

    def first(name: str) -> Any:
        return next((getattr(f, name) for f in found if getattr(f, name) is not None), None)

    return Launch(
        first("devices"),
        first("nodes"),
        first("parallel"),
        first("offload"),
        any(f.cpu for f in found),
        any(f.recomputes for f in found),
        tuple(note for f in found for note in f.notes),
    )


def _count(value: Any) -> int | None:
    try:
        number = int(str(value))
    except ValueError:
        return None
    return number if number > 0 else None


def _mapping(path: Path) -> Mapping[str, Any] | None:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return content if isinstance(content, Mapping) else None
