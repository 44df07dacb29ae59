"""Predicted against measured on the device at hand: real steps of small models, and the kernels they need.

`rankwise doctor --gpu` runs this on a CUDA device and `--cpu` on the processor: the same functions.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rankwise.errors import RankwiseError
from rankwise.estimate.commands import told
from rankwise.estimate.devicechecks import device_conditions
from rankwise.estimate.ledger import entry_of, workload_of
from rankwise.estimate.measured import TIMED, measure
from rankwise.estimate.time import passes
from rankwise.files import require_space
from rankwise.methods import METHODS
from rankwise.records import DeviceFacts, Setup, Trace
from rankwise.records.ledger import LedgerEntry
from rankwise.records.selfcheck import NEVER_RUN_ON_GPU, Compared, Measured, SelfCheck
from rankwise.store import now
from rankwise.trace.peaks import trace

Progress = Callable[[str, int, int], None]
DECIDING = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "flash-attn", "rankwise")
ADAPTER = {"r": 8, "lora_alpha": 16.0, "target_modules": "all-linear"}
FULL = {"bf16": {"dtype": "bf16"}, "amp": {"dtype": "fp32", "autocast": "bf16"}}
SPARE = 1 << 30  # left free beside a predicted peak


@dataclass(frozen=True)
class Subject:
    """A model to step: its config, its folder of weights (None: random ones are made), and the rows of a step."""

    name: str
    config: dict[str, Any]
    folder: Path | None
    rows: int
    length: int


def self_check(
    device: str, facts: DeviceFacts | None, subjects: Sequence[Subject], progress: Progress = lambda *_: None
) -> SelfCheck:
    """Every case of every subject on a torch device (`cpu`, `cuda:0`), and the device's kernels.

    Args:
        facts: of the device, for the predicted times; None leaves them out.

    Raises:
        RankwiseError: no CUDA device where one is asked for.
    """
    require_device(device)
    traced_as = traced_name(device)
    cases = [(subject, cases_of(subject, traced_as)) for subject in subjects]
    total, done, rows = sum(len(c) for _, c in cases), 0, []
    for subject, setups in cases:
        with weights_of(subject) as folder:
            for name, setup in setups.items():
                rows.append(compare(name, subject.name, setup, folder, device, facts))
                done += 1
                progress("steps", done, total)
    return SelfCheck(
        made_at=now(),
        device=traced_as,
        device_name=torch.cuda.get_device_name(device) if device != "cpu" else facts.name if facts else "cpu",
        versions=_versions(),
        conditions=device_conditions(device, traced_as),
        rows=tuple(rows),
        never_run_on_gpu=NEVER_RUN_ON_GPU,
    )


def require_device(device: str) -> None:
    """Raises RankwiseError that names what is missing for CUDA."""
    if device == "cpu" or torch.cuda.is_available():
        return
    built = f"torch {torch.__version__}, built for CUDA {torch.version.cuda}"
    raise RankwiseError(
        "no CUDA device can be used: " + (built if torch.version.cuda else f"torch {torch.__version__} has no CUDA"),
        expected="an NVIDIA GPU that nvidia-smi lists, and a torch built for CUDA",
        fix="run `rankwise doctor --gpu` on the GPU machine; `rankwise doctor --cpu` runs the same check here",
    )


def traced_name(device: str) -> str:
    """`cpu` or `cuda:0` -> the device of a Setup."""
    if device == "cpu":
        return "cpu"
    major, minor = torch.cuda.get_device_capability(device)
    return f"gpu-{major}.{minor}"


# -- the cases -------------------------------------------------------------------------------------


def cases_of(subject: Subject, traced_as: str) -> dict[str, Setup]:
    """Name -> setup. Each method with and without checkpointing; on a GPU then kernels of attention and optimizers."""
    found: dict[str, Setup] = {}
    for name, options in {**_methods(), **(_gpu_methods() if traced_as != "cpu" else {})}.items():
        for checkpointing in (False, True):
            label = f"{name}, checkpointing" if checkpointing else name
            found[label] = _setup(subject, traced_as, gradient_checkpointing=checkpointing, **options)
    for name, options in _variants(traced_as).items():
        found[name] = _setup(subject, traced_as, **options)
    return found


def _methods() -> dict[str, dict[str, Any]]:
    return {
        "full bf16": {"method": "full", **FULL["bf16"]},
        "full amp": {"method": "full", **FULL["amp"]},
        "lora": {"method": "lora", "dtype": "bf16", **ADAPTER},
        "qlora": {"method": "qlora", "dtype": "bf16", **ADAPTER},
    }


def _gpu_methods() -> dict[str, dict[str, Any]]:
    plain = {name: {"method": name, "dtype": "bf16", **ADAPTER} for name in ("lora-8bit", "dora")}
    return {**plain, "prefix": {"method": "prefix", "dtype": "bf16", "num_virtual_tokens": 20}}


def _variants(traced_as: str) -> dict[str, dict[str, Any]]:
    """One change each, from LoRA or from full fine-tuning in bf16."""
    lora, full = _methods()["lora"], _methods()["full bf16"]
    found = {
        "lora, eager attention": {**lora, "attn_implementation": "eager"},
        "lora, labelled half of the row": {**lora, "loss": "labelled", "labelled_share": 0.5},
        "lora, dropout": {**lora, "lora_dropout": 0.1},
        "full bf16, sgd": {**full, "optim": "sgd"},
    }
    if traced_as != "cpu":
        found["lora, flash attention"] = {**lora, "attn_implementation": "flash"}
        for optim in ("adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"):
            found[f"full bf16, {optim}"] = {**full, "optim": optim}
    return found


def _setup(subject: Subject, traced_as: str, **options: Any) -> Setup:
    return Setup(
        config=subject.config,
        per_device_train_batch_size=subject.rows,
        max_length=subject.length,
        device=traced_as,
        **options,
    )


# -- one case --------------------------------------------------------------------------------------


def compare(
    name: str, model: str, setup: Setup, folder: Path, device: str, facts: DeviceFacts | None = None, timed: int = TIMED
) -> Compared:
    """Trace a setup and run it. What does not fit or has no kernel here becomes a row with its error."""
    predicted = trace(setup)
    measured, error = _run(setup, predicted, folder, device, timed)
    seconds = _formula_seconds(setup, predicted, facts)
    return Compared(
        id=name,
        model=model,
        setup=setup,
        predicted_allocated=predicted.peak_allocated,
        predicted_reserved=predicted.peak_reserved if setup.device != "cpu" else None,
        predicted_phase=predicted.peak_phase,
        flops=float(sum(predicted.flops.values())),
        predicted_seconds=None
        if seconds is None or facts is None
        else told(facts, setup.method, "step", seconds).seconds,
        formula_seconds=seconds,
        measured=measured,
        error=error,
    )


def _run(setup: Setup, predicted: Trace, folder: Path, device: str, timed: int) -> tuple[Measured | None, str | None]:
    free = torch.cuda.mem_get_info(device)[0] if device != "cpu" else None
    if free is not None and predicted.peak_reserved + SPARE > free:
        return None, f"not run: {predicted.peak_reserved:,} bytes are predicted, and {free:,} are free"
    try:
        return measure(setup, folder, device, timed), None
    except Exception as error:  # a missing kernel surfaces as whatever its library raises; the row keeps it
        return None, f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"


def _formula_seconds(setup: Setup, predicted: Trace, facts: DeviceFacts | None) -> float | None:
    if facts is None or setup.method not in METHODS:
        return None
    found = passes(predicted, setup, facts, mean_length=float(setup.max_length))
    return None if found is None else found.total


def ledger_entries(found: SelfCheck, facts: DeviceFacts) -> list[LedgerEntry]:
    """What a self-check measured of the time of steps on the device of `facts`."""
    return [
        entry_of(
            facts,
            row.setup.method,
            "step",
            predicted=row.formula_seconds,
            corrected=row.predicted_seconds,
            actual=row.measured.step_seconds,
            model=row.model,
            work=workload_of(row.setup, float(row.setup.max_length)),
            source="doctor",
        )
        for row in found.rows
        if row.formula_seconds and row.measured and row.measured.step_seconds
    ]


@contextmanager
def weights_of(subject: Subject) -> Iterator[Path]:
    """The folder of a subject's weights; random ones are written to a temporary folder."""
    if subject.folder is not None:
        yield subject.folder
        return
    with tempfile.TemporaryDirectory(prefix="rankwise-weights-") as place:
        folder = Path(place)
        given = dict(subject.config)
        config = AutoConfig.for_model(given.pop("model_type"), **given)
        with torch.device("meta"):
            numbers = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
        require_space(folder, 2 * numbers, f"random weights of {subject.name}")
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
        yield folder


# -- what is kept and said -------------------------------------------------------------------------


def write(found: SelfCheck, folder: Path) -> Path:
    """The file for the ledger: `<device>-<date>.json` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = "cpu" if found.device == "cpu" else "gpu"
    name = "-".join("".join(c if c.isalnum() else " " for c in found.device_name.lower()).split())
    path = folder / f"{kind}-{name}-{found.made_at[:10]}.json"
    path.write_text(json.dumps(found.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    return path


def _versions() -> dict[str, str]:
    found = {}
    for name in DECIDING:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "cuda": str(torch.version.cuda)} if torch.version.cuda else found
