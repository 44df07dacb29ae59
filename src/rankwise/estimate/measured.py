"""One training step of a real model on real tensors, measured: what a trace of the same setup is compared with.

The weights come from safetensors by `model.load`, the method from `model.attach`, the step is `step.training_step`.
On a CPU the bytes are those that torch's allocator itself reports while the step runs (the profiler's memory records),
added to the weights and inputs that were there before; kernels that call malloc themselves (oneDNN's scratchpads) are
seen in the resident set alone.
"""

import gc
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from rankwise.errors import UsageError
from rankwise.methods import METHODS, TUNERS, AdapterOptions
from rankwise.model.attach import allow_packing, attach, narrow_inputs, wrap
from rankwise.model.blockwise import training_attention
from rankwise.model.load import load_base
from rankwise.records import Setup, TrainConfig
from rankwise.records.selfcheck import Measured
from rankwise.step import Batch, training_step
from rankwise.trace.kernels.loss import LOSSES

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
STEPS = 2  # as many as a trace has: the second finds the optimizer's state in place
TIMED = 2
MEASURED_LOSSES = ("full-logits", "upcast-logits", "shifted-logits", "labelled")  # torch's own operations
ATTENTION = {"sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}


def measure(setup: Setup, folder: Path, device: str = "cpu", timed: int = TIMED) -> Measured:
    """Run two steps of `setup` and say what they took, then `timed` more for the time.

    Args:
        folder: config.json and safetensors weights of the model of `setup.config`.
        device: a torch device, `cpu` or `cuda:0`.

    Raises:
        UsageError: a setup that is not one process on one device, or a loss that only a trace has.
        ModelError: the folder cannot be loaded.
        torch.OutOfMemoryError: it does not fit.
    """
    refuse_what_cannot_run(setup)
    step = RealStep(setup, folder, torch.device(device))
    try:
        with _bytes_on(step) as found:
            for _ in range(STEPS):
                step.run()
        seconds = min((step.seconds() for _ in range(timed)), default=None)
    finally:
        step.close()
    return Measured(**found, step_seconds=seconds)


def plain_steps(setup: Setup, folder: Path, loaded: Callable[[], int]) -> int:
    """As `measure` on a CPU, with nobody watching, for who reads the resident set afterwards. Returns what `loaded`
    says once the model is there.
    """
    refuse_what_cannot_run(setup)
    step = RealStep(setup, folder, torch.device("cpu"))
    found = loaded()
    for _ in range(STEPS):
        step.run()
    return found


def refuse_what_cannot_run(setup: Setup) -> None:
    """Raises UsageError for a setup that is not one process on one device, or whose loss only a trace has."""
    if setup.parallel != "none" or setup.offload != "none":
        raise UsageError(f"parallel {setup.parallel}, offload {setup.offload}: one process is measured on one device")
    if setup.loss not in MEASURED_LOSSES:
        raise UsageError(f"loss {setup.loss} is a stand-in", expected=f"one of {', '.join(MEASURED_LOSSES)}")


class RealStep:
    """The model, its optimizer and random rows, ready to step."""

    def __init__(self, setup: Setup, folder: Path, device: torch.device) -> None:
        self.setup, self.device = setup, device
        self.model: Any = attached(load(setup, folder, device), setup)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = OPTIMIZERS[setup.optim](self.trained)
        self.batches = [self._batch() for _ in range(min(2, setup.gradient_accumulation_steps))]
        self.held: list[object] = []

    def run(self) -> None:
        with self._as_trained():
            training_step(
                self.model,
                self.batches,
                self.optimizer,
                backward=self._backward,
                clip=lambda: torch.nn.utils.clip_grad_norm_(self.trained, 1.0),
                autocast=self._autocast,
                loss_of=lambda model, batch: LOSSES[self.setup.loss](model, batch, self.held),
            )

    @contextmanager
    def _as_trained(self) -> Iterator[None]:
        """Attention and adapters' inputs as `rankwise train` has them, where its step is asked for."""
        if self.setup.loss != "labelled":
            yield
            return
        with training_attention(self.device)(self.model), narrow_inputs(self.model, self.setup.autocast):
            yield

    def seconds(self) -> float:
        """Run one step; its wall clock."""
        self._wait()
        began = time.perf_counter()
        self.run()
        self._wait()
        return time.perf_counter() - began

    def close(self) -> None:
        """The model must be gone before the next one is loaded."""
        device = self.device
        self.__dict__.clear()
        _empty(device)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _backward(self, loss: Tensor) -> None:
        torch.autograd.backward(loss)
        self.held.clear()

    def _autocast(self) -> torch.autocast:
        dtype = DTYPES[self.setup.autocast or "bf16"]
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.setup.autocast is not None)

    def _batch(self) -> Batch:
        rows, length = self.setup.per_device_train_batch_size, self.setup.max_length
        kept = max(1, round(length * self.setup.labelled_share))
        ids = torch.randint(self.model.config.get_text_config().vocab_size, (rows, length))
        keep = torch.arange(kept)
        return Batch(ids, None, keep, ids[:, :kept].clone(), rows * length, rows * kept).to(self.device)

    def resident(self) -> int:
        """Bytes of weights, buffers and inputs, each storage once."""
        owned = [*self.model.parameters(), *self.model.buffers()]
        inputs = [t for b in self.batches for t in (b.input_ids, b.keep, b.targets)]
        parts = [*owned, *inputs, *(p for tensor in owned for p in _beside(tensor))]
        return sum({s.data_ptr(): s.nbytes() for s in (p.untyped_storage() for p in parts)}.values())


def _beside(parameter: Any) -> Iterator[Tensor]:
    """What bitsandbytes keeps beside a packed weight: block scales and codes, or the int8 copy and its row scales."""
    state = getattr(parameter, "quant_state", None)
    while state is not None:
        yield from (value for value in vars(state).values() if isinstance(value, Tensor))
        state = getattr(state, "state2", None)
    yield from (v for v in (getattr(parameter, "CB", None), getattr(parameter, "SCB", None)) if v is not None)


# -- the model -------------------------------------------------------------------------------------


def load(setup: Setup, folder: Path, device: torch.device) -> Any:
    """The base model of a setup, on its device."""
    if setup.dtype == "fp16":
        raise UsageError("fp16 weights are not trained by Rankwise", expected="bf16 or fp32")
    stored = TUNERS[setup.method].base if setup.method in TUNERS else "as-loaded"
    model: Any = load_base(
        folder, dtype=setup.dtype, four_bit=stored == "nf4", eight_bit=stored == "int8", device=str(device)
    )
    if setup.attn_implementation != "sdpa":
        model.set_attn_implementation(ATTENTION[setup.attn_implementation])
    model.config.use_cache = False
    return model


def attached(model: Any, setup: Setup) -> nn.Module:
    """The method of a setup on a base: by `attach` where training carries it out, else by `wrap` in the same way."""
    if setup.method in METHODS:
        made: nn.Module = attach(model, _train_config(setup))
        return made
    if setup.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    options = AdapterOptions(
        setup.r,
        setup.lora_alpha,
        setup.lora_dropout,
        setup.target_modules,
        setup.num_virtual_tokens,
        setup.bottleneck_size,
    )
    wrapped: nn.Module = wrap(model, setup.method, options, seed=0).model
    allow_packing(wrapped, False)
    return wrapped.train()


def _train_config(setup: Setup) -> TrainConfig:
    return TrainConfig(
        method=setup.method,
        r=setup.r,
        lora_alpha=setup.lora_alpha,
        lora_dropout=setup.lora_dropout,
        target_modules=setup.target_modules,
        num_virtual_tokens=setup.num_virtual_tokens,
        bottleneck_size=setup.bottleneck_size,
        num_train_epochs=1.0,
        max_steps=STEPS,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        warmup_steps=0,
        weight_decay=0.01,
        max_grad_norm=1.0,
        optim=setup.optim,
        per_device_train_batch_size=setup.per_device_train_batch_size,
        gradient_accumulation_steps=setup.gradient_accumulation_steps,
        gradient_checkpointing=setup.gradient_checkpointing,
        dtype="fp32" if setup.dtype == "fp32" else "bf16",
        autocast="bf16" if setup.autocast else None,
        max_length=setup.max_length,
        on_long="error",
        replay_share=0.0,
        eval_steps=STEPS,
        save_steps=STEPS,
        save_total_limit=1,
        logging_steps=1,
        seed=0,
    )


def _bitsandbytes(kind: str) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    def make(params: list[nn.Parameter]) -> torch.optim.Optimizer:
        import bitsandbytes as bnb

        made: torch.optim.Optimizer = getattr(bnb.optim, kind)(params, lr=1e-4)
        return made

    return make


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "adamw_torch": lambda p: torch.optim.AdamW(p, lr=1e-4),
    "adamw_torch_fused": lambda p: torch.optim.AdamW(p, lr=1e-4, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-4),
    "adamw_8bit": _bitsandbytes("AdamW8bit"),
    "paged_adamw_8bit": _bitsandbytes("PagedAdamW8bit"),
    "paged_adamw_32bit": _bitsandbytes("PagedAdamW32bit"),
}


# -- bytes and seconds -----------------------------------------------------------------------------


@contextmanager
def _bytes_on(step: RealStep) -> Iterator[dict[str, int | None]]:
    """Filled in when the context ends: the fields of Measured that are bytes."""
    found: dict[str, int | None] = {"peak_reserved": None, "process_bytes": None, "context_bytes": None}
    if step.device.type == "cpu":
        resident = step.resident()
        os.environ.setdefault(
            "KINETO_LOG_LEVEL", "99"
        )  # the profiler would tell standard error of its beginning and end
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
            yield found
        found["peak_allocated"] = resident + _most(seen)
        return
    torch.cuda.synchronize(step.device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(step.device)
    yield found
    torch.cuda.synchronize(step.device)
    found["peak_allocated"] = torch.cuda.max_memory_allocated(step.device)
    found["peak_reserved"] = torch.cuda.max_memory_reserved(step.device)
    found["process_bytes"] = held = process_bytes()
    found["context_bytes"] = None if held is None else held - torch.cuda.memory_reserved(step.device)


def _most(seen: profile) -> int:
    """The largest sum of bytes that were taken and not yet given back; what was there before counts as nothing."""
    results: Any = seen.profiler
    now = most = 0
    for event in results.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == torch._C._autograd.DeviceType.CPU:
            now += event.nbytes()
            most = max(most, now)
    return most


def process_bytes() -> int | None:
    """Bytes of this process on its GPU as nvidia-smi counts them; None where it cannot tell (some containers)."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
        held = [int(mib) for pid, mib in (line.split(",") for line in lines if line.strip()) if int(pid) == os.getpid()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return sum(held) << 20 if held else None


def _empty(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()
