"""One candidate of a plan, or one configuration -> one Estimate. Each group of numbers is computed in a file beside
this one, by the same function for both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rankwise.estimate.commands import Served, estimate_merge, forward_seconds, told
from rankwise.estimate.communication import host_rate
from rankwise.estimate.course import times
from rankwise.estimate.efficiency import efficiency_source
from rankwise.estimate.ledger import correction
from rankwise.estimate.memory import device_name, estimate_memory, family, process_bytes, residual_of
from rankwise.estimate.money import estimate_money, money_source
from rankwise.estimate.serving import estimate_serving, serving_notes
from rankwise.estimate.storage import BYTES, checkpoint, estimate_storage
from rankwise.estimate.time import Course, estimate_time, pass_seconds, passes
from rankwise.estimate.traced import adapter_file_of, shapes_of, traced
from rankwise.estimate.tracers import Progress, prepare, tracers
from rankwise.estimate.velocity import estimate_velocity
from rankwise.estimate.watching import with_watch
from rankwise.records import (
    Candidate,
    Configuration,
    CostOptions,
    DeviceFacts,
    Estimate,
    Facts,
    Job,
    LinearShape,
    ServingEstimate,
    Setup,
    Tariff,
    TimeEstimate,
    Trace,
    WatchedSet,
)
from rankwise.records.ledger import EvaluationWork
from rankwise.trace.stack import assumptions

MEMORY_SOURCE = (
    "one training step of the transformers model class traced on the meta device, replayed through PyTorch's "
    "caching allocator on a GPU"
)
STORAGE_SOURCE = "bytes per trained parameter, exact up to file headers; the adapter's file to the byte"
SERVING_SOURCE = (
    "weights, key-value cache and adapter slots against 90 % of the GPU's memory; vLLM's measured cost of unmerged "
    "adapters, 8 to 50 % (evidence E25)"
)
STORED = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


@dataclass(frozen=True)
class Work:
    """What is priced: a training step on a device, how often it is taken, and what the bill depends on beside it.

    Attributes:
        stored_bytes: of the whole model as it is saved; None: two bytes a parameter, or as its config says.
        linears: linear layers inside the blocks. tied: is the head the embedding?
        mean_length: real tokens a row.
        max_steps: optimizer steps of the run; None where unknown.
        nodes: machines that the devices stand in.
        room: bytes that the allocator can take on the device; None: the replay has no end.
        watched: what forgetting is watched on; none: it is not. watch_steps: between two looks, where the job says so.
    """

    id: str | None
    model: str
    setup: Setup
    device: DeviceFacts
    linears: tuple[LinearShape, ...]
    tied: bool
    mean_length: float
    max_steps: int | None
    costs: CostOptions
    tariff: Tariff
    nodes: int = 1
    stored_bytes: int | None = None
    room: int | None = None
    notes: tuple[str, ...] = ()
    watched: tuple[WatchedSet, ...] = ()
    watch_steps: int | None = None


def price(job: Job, facts: Facts, candidate: Candidate) -> Estimate:
    """Price one candidate on the facts' device. Bytes are per device. Raises what `traced` raises."""
    return _price_on(job, facts, candidate, facts.device)


def price_elsewhere(job: Job, facts: Facts, asked: Sequence[tuple[Candidate, DeviceFacts]]) -> list[Estimate]:
    """Price candidates on other devices than the facts', each step traced as on the facts' kind of GPU: what PyTorch
    picks kernels by differs between generations and moves the peak by little.
    """
    with tracers():
        prepare([setup_of(_like(facts, device), candidate) for candidate, device in asked])
        return [_price_on(job, facts, candidate, device) for candidate, device in asked]


def trace_ahead(coming: Sequence[tuple[Candidate, Facts]]) -> None:
    """Trace what is about to be priced, one after the other, side by side. Raises RankwiseError: a process died."""
    prepare([setup_of(facts, candidate) for candidate, facts in coming])


def _like(facts: Facts, device: DeviceFacts) -> Facts:
    """The facts' own kind of GPU, as many as of `device`; that device itself where the facts have no GPU."""
    alike = facts.device if facts.device.kind == device.kind else device
    return facts.model_copy(update={"device": alike.model_copy(update={"count": device.count})})


def _price_on(job: Job, facts: Facts, candidate: Candidate, device: DeviceFacts) -> Estimate:
    config = candidate.config
    return estimate(
        Work(
            id=candidate.id,
            model=facts.model.name,
            setup=setup_of(_like(facts, device), candidate),
            device=device,
            linears=facts.model.linears,
            tied=facts.model.tie_word_embeddings,
            mean_length=facts.data.mean_length,
            max_steps=config.max_steps,
            costs=config.costs(job, facts),
            tariff=facts.tariff,
            nodes=job.hardware.nodes,
            stored_bytes=facts.model.weight_bytes,
            watched=facts.data.watched,
            watch_steps=job.forgetting.watch_steps,
        )
    )


def price_all(
    job: Job, facts: Facts, candidates: Sequence[Candidate], progress: Progress = lambda done, total: None
) -> list[Estimate]:
    """Price candidates in their order, traced by several processes where that is quicker (`estimate.tracers`).

    Args:
        progress: called with (done, total) after each thing that had to be traced.

    Raises:
        RankwiseError: what `traced` raises of the first candidate that cannot be priced, or a tracing process died.
    """
    with tracers():  # pricing may ask for more than was prepared
        prepare([setup_of(facts, candidate) for candidate in candidates], progress)
        return [price(job, facts, candidate) for candidate in candidates]


def setup_of(facts: Facts, candidate: Candidate) -> Setup:
    """The step that `rankwise train` would take: logits at labelled positions alone, adapters in fp32."""
    config, data = candidate.config, facts.data
    return Setup(
        config=facts.model.config | ({"vocab_size": facts.new_tokens.rows} if facts.new_tokens else {}),
        method=config.method,
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout or 0.0,
        target_modules=config.target_modules,
        num_virtual_tokens=config.num_virtual_tokens,
        bottleneck_size=config.bottleneck_size,
        new_tokens=len(config.new_token_ids or ()),
        new_token_rows=config.new_token_rows,
        dtype=config.dtype,
        autocast=config.autocast,
        cast_inputs=config.autocast is None,
        optim=config.optim,
        optimizer_in_backward=config.optimizer_in_backward,
        bf16_stochastic_round=config.bf16_stochastic_round,
        per_device_train_batch_size=config.per_device_train_batch_size,
        max_length=min(config.max_length, data.longest * (config.gradient_accumulation_steps if config.packing else 1)),
        labelled_share=min(1.0, data.supervised_tokens / max(1, data.tokens)),
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        gradient_checkpointing=config.gradient_checkpointing,
        loss="labelled",
        parallel=candidate.parallel,
        offload=candidate.offload,
        world_size=facts.device.count,
        device=device_name(facts.device),
    )


def price_configuration(asked: Configuration, device: DeviceFacts, tariff: Tariff) -> Estimate:
    """Price one configuration. Raises what `traced` raises."""
    setup = asked.setup(device_name(device))
    room = None
    if device.kind == "gpu" and device.memory_bytes is not None:
        room = device.memory_bytes - process_bytes(device, setup.world_size)
    rows_per_step = asked.batch * asked.grad_accum * asked.devices
    steps = None if asked.examples is None else math.ceil(asked.examples * asked.epochs / rows_per_step)
    shapes = shapes_of(asked.config)
    return estimate(
        Work(
            id=asked.id,
            model=asked.model,
            setup=setup,
            device=device,
            linears=shapes.linears,
            tied=shapes.tied,
            mean_length=asked.tokens_per_example or asked.seq_len,
            max_steps=steps,
            costs=asked.costs,
            tariff=tariff,
            nodes=asked.nodes,
            room=room,
            notes=asked.notes,
        )
    )


def estimate(work: Work) -> Estimate:
    """Every number of one piece of work. Raises what `traced` raises."""
    setup, device, costs = work.setup, work.device, work.costs
    trace = traced(setup)
    if work.room is not None and trace.peak_allocated <= work.room < trace.peak_reserved:
        trace = traced(setup.model_copy(update={"capacity": work.room}))  # the cache is given back before it runs out
    stored = work.stored_bytes if work.stored_bytes is not None else _base_params(work, trace) * _stored_width(setup)
    file = adapter_file_of(setup)
    time, corrected = _time(work, trace, stored, file)
    every = _checkpoint_seconds(work, time)
    serving = _serving(work, trace, file)
    money = estimate_money(
        time,
        device,
        costs,
        checkpoint_interval_seconds=every,
        electricity_usd_per_kwh=work.tariff.electricity_usd_per_kwh,
    )
    return Estimate(
        id=work.id,
        model=work.model,
        method=setup.method,
        trainable_params=trace.trainable_params,
        total_params=trace.total_params,
        memory=estimate_memory(trace, setup, device),
        time=time,
        money=money,
        storage=estimate_storage(
            setup,
            trainable=trace.trainable_params,
            stored_bytes=stored,
            adapter_file_bytes=file,
            optimizer_bytes=trace.buckets.optimizer,
            mergeable=trace.merge_peak is not None,
            max_steps=work.max_steps,
            options=costs,
            usd_per_gb_month=work.tariff.usd_per_gb_month,
        ),
        serving=serving,
        velocity=estimate_velocity(time, money, costs, checkpoint_interval_seconds=every),
        sources=_sources(work, corrected),
        notes=(
            *work.notes,
            *assumptions(setup),
            *trace.notes,
            *_device_notes(work, time),
            *serving_notes(setup, serving, costs),
        ),
    )


def _serving(work: Work, trace: Trace, file: int | None) -> ServingEstimate:
    device, costs = work.device, work.costs
    return estimate_serving(
        work.setup,
        trainable=trace.trainable_params,
        base_params=_base_params(work, trace),
        linears=work.linears,
        adapter_file_bytes=file,
        device=device,
        options=costs,
        usd_per_hour=device.price.at(costs.pricing) if device.price else None,
        host_bytes_per_second=host_rate(device) if device.kind == "gpu" else None,
    )


def _sources(work: Work, corrected: str | None) -> dict[str, str]:
    setup, device = work.setup, work.device
    return {
        "memory": MEMORY_SOURCE,
        "interval": residual_of(device.kind, setup.method, parallel=setup.parallel)["source"],
        "time": _time_source(device, corrected),
        "money": money_source(device, work.costs),
        "storage": f"{STORAGE_SOURCE}; {work.tariff.source}",
        "serving": SERVING_SOURCE,
        "device": device.source,
    }


def _base_params(work: Work, trace: Trace) -> int:
    return trace.total_params - (trace.trainable_params if work.setup.method != "full" else 0)


def _time(work: Work, trace: Trace, stored: int, file: int | None) -> tuple[TimeEstimate, str | None]:
    """The seconds, and the words of the ledger's correction where there is one."""
    setup, device = work.setup, work.device
    raw = passes(trace, setup, device, mean_length=work.mean_length, nodes=work.nodes)
    known = correction(device, family(setup.method, setup.parallel), "step", near=raw.total) if raw else None
    saved = checkpoint(setup, trace.trainable_params, file, trace.buckets.optimizer)
    course = Course(
        max_steps=work.max_steps,
        evaluation_rows=work.costs.eval_examples,
        read_bytes=stored,
        checkpoint_bytes=saved.resumable,
    )
    time = estimate_time(trace, setup, device, work.costs, course, raw, mean_length=work.mean_length, correction=known)
    time = with_watch(
        time,
        work.watched,
        asked=work.watch_steps,
        max_steps=work.max_steps,
        eval_steps=work.costs.eval_steps,
        seconds_of=lambda asked: _forward_seconds(work, trace, asked),
    )
    merge = estimate_merge(_served(work, trace, stored, file or 0)) if trace.merge_peak is not None else None
    if merge is not None:
        time = time.model_copy(update={"merge_seconds": merge.seconds})
    return time, known.source if known else None


def _forward_seconds(work: Work, trace: Trace, asked: EvaluationWork) -> float | None:
    """Passes forward through the model that trains, in its arithmetic; several devices share them."""
    setup, device = work.setup, work.device
    if device.kind == "cpu":
        served = replace(_served(work, trace, 0, 0), dtype=setup.autocast or setup.dtype)
        raw = forward_seconds(served, asked)
        return None if raw is None else told(device, setup.method, "forward", raw).seconds / setup.world_size
    one = pass_seconds(trace, setup, device, asked.tokens / max(1, asked.rows))
    return None if one is None else asked.rows * one / setup.world_size


def _served(work: Work, trace: Trace, stored: int, adapter_bytes: int) -> Served:
    """The model as `rankwise merge` has it on this device."""
    return Served(
        device=work.device,
        model=work.model,
        method=work.setup.method,
        total=_base_params(work, trace),
        linears=work.linears,
        tied=work.tied,
        dtype=work.setup.dtype,
        targets=work.setup.target_modules,
        stored_bytes=stored,
        adapter_bytes=adapter_bytes,
    )


def _checkpoint_seconds(work: Work, time: TimeEstimate) -> float | None:
    """Between two checkpoints."""
    if time.train_seconds is None or work.max_steps is None:
        return None
    return time.train_seconds / times(work.max_steps, work.costs.save_steps)


def _time_source(device: DeviceFacts, corrected: str | None) -> str:
    if device.kind == "gpu":
        how = f"traced FLOPs, bytes and kernels; {efficiency_source()}"
    else:
        how = "traced FLOPs / (measured matmul rate x efficiency, docs/log.md)"
    if corrected is not None:
        return f"{how}; corrected by {corrected}"
    return how if device.kind == "gpu" else f"{how}; the interval is a factor of two either way"


def _stored_width(setup: Setup) -> int:
    """Bytes of a stored parameter, as the config says; two where it does not."""
    config = setup.config
    said = str(config.get("torch_dtype") or config.get("dtype") or "bfloat16").removeprefix("torch.")
    return BYTES[STORED.get(said, "bf16")]


def _unknown(work: Work) -> list[str]:
    """What a prediction of time lacks."""
    setup, device = work.setup, work.device
    arithmetic = setup.autocast or setup.dtype
    lacks = [f"the {arithmetic} matmul rate"] if arithmetic not in device.matmul_flops else []
    if device.kind == "gpu" and device.bandwidth is None:
        lacks.append("the memory bandwidth")
    if setup.world_size > 1 and device.link_bytes_per_second is None:
        lacks.append("the link between devices")
    return lacks or ["a rate"]


def _device_notes(work: Work, time: TimeEstimate) -> list[str]:
    setup, device = work.setup, work.device
    notes = []
    if device.kind == "gpu" and device.context_bytes is None:
        notes.append(f"the CUDA context of {device.name} is not known; 0.5 GB is assumed")
    if time.step_seconds is None:
        notes.append(f"time is unknown without {' and '.join(_unknown(work))} of {device.name}")
    if work.nodes > 1 and device.kind == "gpu":
        notes.append("the network between nodes is taken as a card a GPU of 200 Gb/s, 400 Gb/s from Hopper on")
    if "bf16" in (setup.dtype, setup.autocast) and not device.bf16:
        notes.append(f"{device.name} has no bf16 arithmetic of its own: it runs emulated, or not at all")
    if setup.attn_implementation == "flash" and (device.kind == "cpu" or (device.compute_capability or 8.0) < 8.0):
        notes.append(f"FlashAttention 2 needs a GPU of compute capability 8.0, which {device.name} is not")
    return notes
