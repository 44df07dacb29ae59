"""One candidate of a plan, or one configuration -> one Estimate. Each group of numbers is computed in a file beside
this one, by the same function for both.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rankwise.estimate.memory import device_name, estimate_memory, process_bytes, residual_of
from rankwise.estimate.storage import BYTES, estimate_serving, estimate_storage
from rankwise.estimate.time import estimate_time, matmul_rate
from rankwise.estimate.traced import traced
from rankwise.records import (
    Candidate,
    Configuration,
    DeviceFacts,
    Estimate,
    Facts,
    Job,
    MoneyEstimate,
    Setup,
    TimeEstimate,
)
from rankwise.trace.stack import assumptions

SOURCES = {
    "memory": "one training step of the transformers model class traced on the meta device, replayed through PyTorch's "
    "caching allocator on a GPU",
    "time": "traced FLOPs / (matmul rate x efficiency); the interval is a factor of two either way",
    "money": "device price per hour x seconds; unknown where the price is",
    "storage": "bytes per trained parameter, exact up to file headers",
    "serving": "weights only, no KV cache",
}
STORED = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
# The last checkpoints that a run keeps when nothing is said, as `rankwise train` does.
CHECKPOINTS = 2


@dataclass(frozen=True)
class Work:
    """What is priced: a training step on a device, and how often it is taken.

    Attributes:
        stored_bytes: of the whole model as it is saved; None: two bytes a parameter, or as its config says.
        mean_length: real tokens a row.
        max_steps: optimizer steps of the run; None where unknown.
        variants: tenants that each get their own model.
        room: bytes that the allocator can take on the device; None: the replay has no end.
    """

    id: str | None
    model: str
    setup: Setup
    device: DeviceFacts
    mean_length: float
    max_steps: int | None
    stored_bytes: int | None = None
    save_total_limit: int = CHECKPOINTS
    variants: int = 1
    room: int | None = None
    notes: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)


def price(job: Job, facts: Facts, candidate: Candidate) -> Estimate:
    """Price one candidate on the facts' device. Bytes are per device. Raises what `traced` raises."""
    config = candidate.config
    return estimate(
        Work(
            id=candidate.id,
            model=facts.model.name,
            setup=setup_of(facts, candidate),
            device=facts.device,
            mean_length=facts.data.mean_length,
            max_steps=config.max_steps,
            stored_bytes=facts.model.weight_bytes,
            save_total_limit=config.save_total_limit,
            variants=job.variants,
        )
    )


def setup_of(facts: Facts, candidate: Candidate) -> Setup:
    """The step that `rankwise train` would take: logits at labelled positions alone, adapters in fp32."""
    config, data = candidate.config, facts.data
    return Setup(
        config=facts.model.config,
        method=config.method,
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout or 0.0,
        target_modules=config.target_modules,
        dtype=config.dtype,
        autocast=config.autocast,
        optim=config.optim,
        per_device_train_batch_size=config.per_device_train_batch_size,
        max_length=min(data.longest, config.max_length),
        labelled_share=min(1.0, data.supervised_tokens / max(1, data.tokens)),
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        gradient_checkpointing=config.gradient_checkpointing,
        loss="labelled",
        parallel=candidate.parallel,
        world_size=facts.device.count,
        device=device_name(facts.device),
    )


def price_configuration(asked: Configuration, device: DeviceFacts) -> Estimate:
    """Price one configuration. Raises what `traced` raises."""
    setup = asked.setup(device_name(device))
    room = device.memory_bytes - process_bytes(device, setup.world_size) if device.kind == "gpu" else None
    rows_per_step = asked.batch * asked.grad_accum * asked.devices
    steps = None if asked.examples is None else math.ceil(asked.examples * asked.epochs / rows_per_step)
    return estimate(
        Work(
            id=asked.id,
            model=asked.model,
            setup=setup,
            device=device,
            room=room,
            mean_length=asked.tokens_per_example or asked.seq_len,
            max_steps=steps,
            notes=asked.notes,
        )
    )


def estimate(work: Work) -> Estimate:
    """Every number of one piece of work. Raises what `traced` raises."""
    setup, device = work.setup, work.device
    trace = traced(setup)
    if work.room is not None and trace.peak_allocated <= work.room < trace.peak_reserved:
        trace = traced(setup.model_copy(update={"capacity": work.room}))  # the cache is given back before it runs out
    trainable = trace.trainable_params
    base_params = trace.total_params - (trainable if setup.method != "full" else 0)
    stored = work.stored_bytes if work.stored_bytes is not None else base_params * _stored_width(setup.config)
    time = estimate_time(trace, setup, device, mean_length=work.mean_length, max_steps=work.max_steps)
    return Estimate(
        id=work.id,
        model=work.model,
        method=setup.method,
        trainable_params=trainable,
        total_params=trace.total_params,
        memory=estimate_memory(trace, setup, device),
        time=time,
        money=_money(device, time),
        storage=estimate_storage(setup, trainable, stored, work.save_total_limit),
        serving=estimate_serving(setup, trainable, stored, work.variants),
        sources={**SOURCES, "device": device.source, "interval": residual_of(device.kind, setup.method)["source"]},
        notes=(*work.notes, *assumptions(setup), *trace.notes, *_device_notes(setup, device)),
    )


def _stored_width(config: Mapping[str, Any]) -> int:
    """Bytes of a stored parameter, as the config says; two where it does not."""
    said = str(config.get("torch_dtype") or config.get("dtype") or "bfloat16").removeprefix("torch.")
    return BYTES[STORED.get(said, "bf16")]


def _device_notes(setup: Setup, device: DeviceFacts) -> list[str]:
    notes = []
    if device.kind == "gpu" and device.context_bytes is None:
        notes.append(f"the CUDA context of {device.name} is not known; 0.5 GB is assumed")
    if matmul_rate(device, setup) is None:
        notes.append(f"time is unknown: no {setup.autocast or setup.dtype} rate of {device.name} is known")
    if setup.world_size > 1 and device.kind == "gpu":
        notes.append("time leaves out communication between devices")
    if "bf16" in (setup.dtype, setup.autocast) and not device.bf16:
        notes.append(f"{device.name} has no bf16 arithmetic of its own: it runs emulated, or not at all")
    if setup.attn_implementation == "flash" and (device.kind == "cpu" or (device.compute_capability or 8.0) < 8.0):
        notes.append(f"FlashAttention 2 needs a GPU of compute capability 8.0, which {device.name} is not")
    return notes


def _money(device: DeviceFacts, time: TimeEstimate) -> MoneyEstimate:
    if device.usd_per_hour is None or time.train_seconds is None or time.interval is None:
        return MoneyEstimate(train_usd=None, interval=None)
    rate = device.usd_per_hour * device.count / 3600
    return MoneyEstimate(
        train_usd=time.train_seconds * rate, interval=(time.interval[0] * rate, time.interval[1] * rate)
    )
