"""Traces and shapes, remembered: the same setup is traced once in a process, and once on a machine.

A remembered answer needs no torch: `rankwise.trace` is imported where nothing is remembered.
"""

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from rankwise.records import AdapterFile, Record, Setup, Shapes, Trace, content_hash
from rankwise.store import cache_folder, write_text
from rankwise.trace.stack import usual_stack
from rankwise.version import __version__

TRACING = ("torch", "transformers", "peft", "bitsandbytes")
TRACED_CODE = (
    "trace",
    "methods",
    "model/adapterfile.py",
    "model/attach.py",
    "model/bottleneck.py",
    "model/targets.py",
    "step.py",
)
AnyRecord = TypeVar("AnyRecord", bound=Record)

_seen: dict[str, Record] = {}


def traced(setup: Setup) -> Trace:
    """What one device holds during a step of `setup`: remembered, or traced now (0.3 to 1 s, and torch's import).

    Raises:
        ModelError: transformers does not know the architecture, or cannot build it from this config.
        UsageError: a method, optimizer or combination that cannot be.
    """
    wanted = simplified(setup)

    def now() -> Trace:
        from rankwise.trace.peaks import trace

        with _quiet():
            return trace(wanted)

    return _remembered("traces", wanted.model_dump(mode="json"), Trace, now)


def shapes_of(config: dict[str, Any]) -> Shapes:
    """The weight matrices of the model class that a config names. Raises ModelError as `traced`."""

    def now() -> Shapes:
        from rankwise.trace.shapes import shapes

        with _quiet():
            return shapes(config)

    return _remembered("shapes", config, Shapes, now)


def adapter_file_of(setup: Setup) -> int | None:
    """Bytes of adapter_model.safetensors of a setup's adapter; None for full fine-tuning. Raises as `traced`."""
    if setup.method == "full":
        return None
    kept = ("config", "method", "r", "target_modules", "num_virtual_tokens", "bottleneck_size", "adapter_dtype")

    def now() -> AdapterFile:
        from rankwise.trace.adapterfile import adapter_file

        with _quiet():
            return AdapterFile(bytes=adapter_file(setup))

    return _remembered("adapters", setup.model_dump(mode="json", include=set(kept)), AdapterFile, now).bytes


def simplified(setup: Setup) -> Setup:
    """The setup without what leaves the memory alone, so that equal steps are traced once.

    alpha scales a product; dropout keeps a mask whatever its rate; from the second micro-batch on, all are alike; the
    share of labels matters for the loss that looks at it, and the positions that it keeps are whole; a stack that is
    not said is the one that the loss is usually met with; of a GPU's compute capability the kernels that PyTorch picks
    look at 8.0 and 9.0 alone.
    """
    kept = max(1, round(setup.max_length * setup.labelled_share))
    return setup.model_copy(
        update={
            "lora_alpha": None,
            "lora_dropout": 0.1 if setup.lora_dropout else 0.0,
            "gradient_accumulation_steps": min(2, setup.gradient_accumulation_steps),
            "labelled_share": kept / setup.max_length if setup.loss == "labelled" else 1.0,
            "stack": setup.stack or usual_stack(setup),
            "world_size": 1 if setup.parallel == "none" else setup.world_size,
            "device": _kernels_of(setup.device),
        }
    )


def _kernels_of(device: str) -> str:
    """`gpu-8.9` -> `gpu-8.0`: the device with the same kernels."""
    said = device.partition("-")[2]
    return f"gpu-{max(c for c in (0.0, 8.0, 9.0) if c <= float(said))}" if said else device


def _remembered(kind: str, key: Any, record: type[AnyRecord], make: Callable[[], AnyRecord]) -> AnyRecord:
    name = content_hash([key, _versions()])
    path = cache_folder() / kind / f"{name}.json"
    found = _seen.get(name)
    if not isinstance(found, record):
        found = _read(path, record)
        if found is None:
            found = make()
            write_text(path, found.model_dump_json())
        _seen[name] = found
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """What libraries say to somebody who trains (a loss type, a name to come) says nothing of a price."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _read(path: Path, record: type[AnyRecord]) -> AnyRecord | None:
    """None when the file is missing or damaged, since it can be made again."""
    try:
        return record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


@cache
def _versions() -> dict[str, str]:
    """What a trace depends on: the libraries that run in it, and our own code that meters it."""
    return {"rankwise": __version__, "code": _code()} | {name: _installed(name) for name in TRACING}


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _code() -> str:
    """sha256 over the sources that a trace runs."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for name in TRACED_CODE:
        for file in sorted((package / name).rglob("*.py")) if (package / name).is_dir() else [package / name]:
            if file.is_file():
                digest.update(f"{file.relative_to(package)}:".encode() + file.read_bytes())
    return digest.hexdigest()
