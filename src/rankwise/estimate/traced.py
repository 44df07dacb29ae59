"""Traces and shapes, remembered: the same setup is traced once in a process, and once on a machine.

A remembered answer needs no torch: `estimate.tracer` is imported where nothing is remembered, and inside of
`estimate.tracers` by other processes alone.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from rankwise import errors
from rankwise.errors import RankwiseError
from rankwise.files import cache_folder, write_text
from rankwise.records import AdapterFile, Record, Setup, Shapes, Trace, content_hash
from rankwise.trace.stack import SIXTEEN_BIT, refuse_in_backward, usual_stack, weights_dtype
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
Kind = Literal["traces", "adapters", "shapes"]
RECORDS: dict[Kind, type[Record]] = {"traces": Trace, "adapters": AdapterFile, "shapes": Shapes}
AnyRecord = TypeVar("AnyRecord", bound=Record)


@dataclass(frozen=True)
class Order:
    """Something to be made once: a trace or an adapter's file of a setup, or the shapes of a config.

    Attributes:
        content: the setup or the config, as JSON has it.
    """

    kind: Kind
    content: dict[str, Any]

    @cached_property
    def name(self) -> str:
        """The hash that it is remembered by: of the content, and of all code that has a say in the answer."""
        return content_hash([self.content, _versions()])


Maker = Callable[[Order], Record | None]
_seen: dict[str, Record] = {}
_refused: dict[str, dict[str, Any]] = {}
_makers: list[Maker] = []


def traced(setup: Setup) -> Trace:
    """What one device holds during a step of `setup`: remembered, or traced now (0.3 to 1 s, and torch's import).

    Raises:
        ModelError: transformers does not know the architecture, or cannot build it from this config.
        UsageError: a method, optimizer or combination that cannot be.
    """
    refuse_in_backward(setup)
    return _answer(trace_order(setup), Trace)


def shapes_of(config: dict[str, Any]) -> Shapes:
    """The weight matrices of the model class that a config names. Raises ModelError as `traced`."""
    return _answer(Order("shapes", config), Shapes)


def adapter_file_of(setup: Setup) -> int | None:
    """Bytes of adapter_model.safetensors of a setup's adapter; None for full fine-tuning. Raises as `traced`."""
    if setup.method == "full":
        return None
    return _answer(adapter_order(setup), AdapterFile).bytes


def trace_order(setup: Setup) -> Order:
    """Equal for setups whose steps hold the same."""
    return Order("traces", simplified(setup).model_dump(mode="json"))


def adapter_order(setup: Setup) -> Order:
    """Equal for adapters whose files have the same tensors: neither the step nor how the base is quantised matters."""
    adapter = Setup(
        config=setup.config,
        method=SIXTEEN_BIT.get(setup.method, setup.method),
        r=setup.r,
        target_modules=setup.target_modules,
        num_virtual_tokens=setup.num_virtual_tokens,
        bottleneck_size=setup.bottleneck_size,
        new_tokens=setup.new_tokens,
        new_token_rows=setup.new_token_rows,
        dtype=weights_dtype(setup),
        adapter_dtype=setup.adapter_dtype,
        per_device_train_batch_size=1,
        max_length=1,
    )
    return Order("adapters", adapter.model_dump(mode="json"))


def simplified(setup: Setup) -> Setup:
    """The setup without what leaves the memory alone, so that equal steps are traced once.

    alpha scales a product, rank stabilisation is another alpha and PiSSA another beginning; dropout keeps a mask
    whatever its rate; from the second micro-batch on, all are alike; the share of labels matters for the loss that
    looks at it, and the positions that it keeps are whole; a stack that is not said is the one that the loss is
    usually met with; DDP holds the same on two devices and on many; of a GPU's compute capability the kernels that
    PyTorch picks look at 8.0 and 9.0 alone.
    """
    kept = max(1, round(setup.max_length * setup.labelled_share))
    return setup.model_copy(
        update={
            "method": "lora" if setup.method in ("rslora", "pissa") else setup.method,
            "lora_alpha": None,
            "lora_dropout": 0.1 if setup.lora_dropout else 0.0,
            "gradient_accumulation_steps": min(2, setup.gradient_accumulation_steps),
            "labelled_share": kept / setup.max_length if setup.loss == "labelled" else 1.0,
            "stack": setup.stack or usual_stack(setup),
            "world_size": _world_of(setup),
            "device": _kernels_of(setup.device),
        }
    )


def _world_of(setup: Setup) -> int:
    return {"none": 1, "ddp": min(2, setup.world_size)}.get(setup.parallel, setup.world_size)


def _kernels_of(device: str) -> str:
    """`gpu-8.9` -> `gpu-8.0`: the device with the same kernels."""
    said = device.partition("-")[2]
    return f"gpu-{max(c for c in (0.0, 8.0, 9.0) if c <= float(said))}" if said else device


# -- memory ----------------------------------------------------------------------------------------


def remembered(order: Order) -> Record | None:
    """What was made of an order before, in this process or on this machine; None when it is missing or damaged."""
    kind = RECORDS[order.kind]
    found = _seen.get(order.name)
    if isinstance(found, kind):
        return found
    try:
        found = kind.model_validate_json(_path(order).read_bytes())
    except (OSError, ValidationError):
        return None
    _seen[order.name] = found
    return found


def remember(order: Order, made: Record) -> None:
    """Keep it in this process and on the disk."""
    write_text(_path(order), made.model_dump_json())
    _seen[order.name] = made


def refuse(order: Order, error: dict[str, Any]) -> None:
    """In this process the order is not tried again; `error` as RankwiseError.to_json gives it."""
    _refused[order.name] = error


def is_refused(order: Order) -> bool:
    return order.name in _refused


@contextmanager
def made_by(maker: Maker) -> Iterator[None]:
    """Inside, what is not remembered is asked of `maker` first; where it answers None, it is made in this process.

    The maker remembers what it makes, and raises as `traced`.
    """
    _makers.append(maker)
    try:
        yield
    finally:
        _makers.remove(maker)


def make_here(order: Order) -> Record:
    """Made in this process, which imports torch for it, and remembered. Raises as `traced`."""
    from rankwise.estimate.tracer import make

    try:
        made = make(order.kind, order.content)
    except RankwiseError as error:
        refuse(order, error.to_json())
        raise
    remember(order, made)
    return made


def _answer(order: Order, kind: type[AnyRecord]) -> AnyRecord:
    found = remembered(order)
    if found is None and order.name in _refused:
        raise restored(_refused[order.name])
    for maker in reversed(_makers):
        found = found or maker(order)
    found = found or make_here(order)
    assert isinstance(found, kind)
    return found


def restored(error: dict[str, Any]) -> RankwiseError:
    """The error that `to_json` was asked of."""
    kind = getattr(errors, error["kind"], RankwiseError)
    if kind is errors.DataError:  # its first words are a place in a file, and they stand in `what` already
        kind = RankwiseError
    made: RankwiseError = kind(error["what"], expected=error["expected"], fix=error["fix"])
    return made


def _path(order: Order) -> Path:
    return cache_folder() / order.kind / f"{order.name}.json"


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
