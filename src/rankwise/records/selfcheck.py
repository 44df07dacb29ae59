"""What `rankwise doctor` found: the environment, and predicted against measured steps of this machine."""

from typing import Literal

from pydantic import Field

from rankwise.records.base import Record
from rankwise.records.setup import Setup


class Condition(Record):
    """One thing about the environment or the device, and whether it is as it should be."""

    name: str
    value: str
    ok: bool | None = Field(description="None: nothing depends on it here, or it could not be tried.")
    note: str = Field("", description="What follows from it, or how to mend it.")


class Environment(Record):
    """What a run would find here, looked at without importing torch."""

    conditions: tuple[Condition, ...]
    gpus: tuple[str, ...] = Field(description="As nvidia-smi names them; empty without one.")

    @property
    def sound(self) -> bool:
        return all(c.ok is not False for c in self.conditions)


class Measured(Record):
    """Two training steps on real tensors. Bytes on one device."""

    peak_allocated: int = Field(description="CUDA: max_memory_allocated. CPU: what torch's allocator reported.")
    peak_reserved: int | None = Field(description="CUDA: max_memory_reserved; a CPU has no caching allocator.")
    process_bytes: int | None = Field(description="Of this process on the GPU, as nvidia-smi says.")
    context_bytes: int | None = Field(description="process_bytes beyond what PyTorch reserved then: CUDA and kernels.")
    step_seconds: float | None = Field(
        description="One step, after the two that were metered; None where none was timed."
    )


class Compared(Record):
    """One setup, traced and run."""

    id: str
    model: str
    setup: Setup
    predicted_allocated: int
    predicted_reserved: int | None
    predicted_phase: str
    flops: float = Field(description="Of one step by the trace, a multiply-add as two.")
    predicted_seconds: float | None = Field(description="By the estimate for this device; None where it has none.")
    formula_seconds: float | None = Field(None, description="The same before this machine's ledger corrects it.")
    measured: Measured | None = Field(description="None: it did not run; `error` says why.")
    error: str | None = None

    @property
    def allocated_error(self) -> float | None:
        """Predicted over measured, minus one."""
        return None if self.measured is None else self.predicted_allocated / self.measured.peak_allocated - 1

    @property
    def reserved_error(self) -> float | None:
        if self.measured is None or self.predicted_reserved is None or self.measured.peak_reserved is None:
            return None
        return self.predicted_reserved / self.measured.peak_reserved - 1


class SelfCheck(Record):
    """One self-check of one device; a GPU's is a file for the ledger."""

    version: Literal[1] = 1
    made_at: str
    device: str = Field(description="As in Setup: `cpu` or `gpu-<compute capability>`.")
    device_name: str
    versions: dict[str, str]
    conditions: tuple[Condition, ...] = Field(description="Kernels, collectives and optimizers, tried one by one.")
    rows: tuple[Compared, ...]
    never_run_on_gpu: tuple[str, ...] = Field(description="What the makers of Rankwise have run on a CPU alone.")


# No GPU was at hand when these were written: their numbers come from traces, sources and published runs.
NEVER_RUN_ON_GPU = (
    "training on a GPU: full, lora, qlora, gradient checkpointing, autocast",
    "every adapter of PEFT beyond lora and qlora",
    "8-bit weights, GPTQ weights and bitsandbytes' CUDA kernels",
    "flash-attn, and the sdpa backends of a GPU",
    "8-bit and paged optimizers",
    "DDP, FSDP and ZeRO over NCCL; offload",
    "the caching allocator's reserved bytes, and the CUDA context",
    "step times on a GPU",
    "`rankwise doctor --gpu` itself",
)
