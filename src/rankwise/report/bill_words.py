"""The bill of one estimate in words: time, money, storage, serving, velocity. Each line has a heading and its text."""

from collections.abc import Iterator

from rankwise.records import CostOptions, Estimate, MoneyEstimate, ServingEstimate, StepSeconds
from rankwise.report.quantities import (
    count,
    duration,
    duration_range,
    plain,
    rate,
    share,
    size,
    usd,
    usd_range,
)

Line = tuple[str, str]
SMALL = 0.02  # parts of a step below this share of it are not told


def bill(estimate: Estimate, costs: CostOptions) -> list[Line]:
    """(heading, text); a heading is empty where it is that of the line before."""
    return [
        *_headed("Time", _time(estimate)),
        *_headed("Money", _money(estimate.money, costs)),
        *_headed("Storage", _storage(estimate, costs)),
        *_headed("Serving", _serving(estimate, costs)),
        *_headed("Velocity", _velocity(estimate)),
    ]


def _headed(heading: str, lines: Iterator[str]) -> Iterator[Line]:
    for number, line in enumerate(lines):
        yield heading if number == 0 else "", line


def _time(estimate: Estimate) -> Iterator[str]:
    time = estimate.time
    if time.step_seconds is None:
        yield "unknown"
        return
    yield f"{duration(time.step_seconds)} a step ({_parts(time.step)}), {rate(time.tokens_per_second)}"
    if time.train_seconds is None:
        yield "whole run: unknown without --examples"
        return
    beside = {
        "start": time.load_seconds,
        "validations": time.evaluation_seconds,
        "checkpoints": time.save_seconds,
        "looks at general ability": time.watch.seconds if time.watch else None,
    }
    said = ", ".join(f"{name} {duration(value)}" for name, value in beside.items() if value)
    yield f"whole run {duration(time.train_seconds)} ({duration_range(time.interval)}), of which {said}"


def _parts(step: StepSeconds | None) -> str:
    parts = step.model_dump() if step else {}
    whole = sum(parts.values())
    told = {name: value for name, value in parts.items() if value > SMALL * whole}
    return ", ".join(f"{name} {share(value / whole)}" for name, value in told.items())


def _money(money: MoneyEstimate, costs: CostOptions) -> Iterator[str]:
    if money.usd_per_hour is None:
        yield f"unknown: no {costs.pricing} price of this device is known; --prices FILE gives one"
        return
    each = f"{usd(money.usd_per_hour)} a device-hour, {costs.pricing.replace('-', ' ')}"
    if money.train_usd is None:
        yield f"one run: unknown without --examples; {each}"
        return
    yield f"one run {usd(money.train_usd)} ({usd_range(money.interval)}) at {each}"
    if money.project_usd is not None and money.runs is not None and money.failures_usd is not None:
        low, high = money.runs
        runs = count(low) if low == high else f"{count(low)} to {count(high)}"
        yield (
            f"{runs} runs until it is right {usd(money.project_usd)} ({usd_range(money.project_interval)}), of which "
            f"failures and restarts {usd(money.failures_usd * (low + high) / 2)}"
        )
    if money.energy_kwh is not None:
        yield f"electricity of one run at most {plain(money.energy_kwh)} kWh, {_electricity(money.energy_usd)}"


def _electricity(value: float | None) -> str:
    return "price unknown: the file of --prices has no electricity_usd_per_kwh" if value is None else usd(value)


def _monthly(value: float | None) -> str:
    return "price unknown" if value is None else f"{usd(value)} a month"


def _storage(estimate: Estimate, costs: CostOptions) -> Iterator[str]:
    storage = estimate.storage
    adapter = "" if storage.adapter_bytes is None else f"adapter {size(storage.adapter_bytes)}, "
    merged = "" if storage.merged_bytes is None else f"merged {size(storage.merged_bytes)}, "
    yield (
        f"{adapter}{merged}resumable checkpoint {size(storage.checkpoint_bytes)}, written in "
        f"{duration(storage.write_seconds)} at {size(costs.write_bandwidth)}/s"
    )
    kept = (
        f"{count(storage.checkpoints)} checkpoints, of which {count(storage.kept)} stay (best {costs.keep_best}, last "
        f"{costs.keep_last}): "
        if storage.checkpoints is not None
        else ""
    )
    unpruned = "" if storage.unpruned_bytes is None else f", {size(storage.unpruned_bytes)} if none were removed"
    yield f"{kept}{size(storage.run_bytes)} at most{unpruned}; {usd(storage.usd_per_month)} a month for what is left"


def _serving(estimate: Estimate, costs: CostOptions) -> Iterator[str]:
    serving = estimate.serving
    form = costs.serving_format
    if costs.variants == 1:
        yield f"one merged model in {form} {size(serving.base_bytes)}{_cache(serving, costs)}{_machines(serving)}"
        return
    copied = serving.all_variants_bytes == serving.copies_bytes
    what = "full copies" if copied else "adapters on one base"
    memory = f"{size(serving.all_variants_bytes)}{_cache(serving, costs)}{_machines(serving)}"
    yield f"{costs.variants} {what} in {form} {memory}"
    if copied:
        return
    yield (
        f"{costs.variants} full copies {size(serving.copies_bytes)}: {_gpus(serving.copies_gpus)}, "
        f"{_monthly(serving.copies_usd_per_month)}; {_break_even(serving)}"
    )
    yield from _unmerged(serving)


def _cache(serving: ServingEstimate, costs: CostOptions) -> str:
    cache = "unknown" if serving.kv_cache_bytes is None else size(serving.kv_cache_bytes)
    return f", key-value cache of {costs.concurrency} x {costs.context:,} tokens {cache}"


def _machines(serving: ServingEstimate) -> str:
    return f": {_gpus(serving.gpus)}, {_monthly(serving.usd_per_month)}"


def _gpus(number: int | None) -> str:
    return "GPUs unknown" if number is None else f"{number} GPU{'s' if number > 1 else ''}"


def _break_even(serving: ServingEstimate) -> str:
    if serving.break_even_variants is None:
        return "whether adapters ever take fewer GPUs is unknown, or they never do"
    return f"adapters take fewer GPUs from {serving.break_even_variants} variants on"


def _unmerged(serving: ServingEstimate) -> Iterator[str]:
    if serving.unmerged_penalty is not None:
        low, high = serving.unmerged_penalty
        yield f"unmerged adapters cost {100 * low:.0f} to {share(high)} of the throughput"
    if serving.slots is not None:
        slots = serving.slots
        low, high = slots.interval
        miss = "unknown" if slots.miss_seconds is None else duration(slots.miss_seconds)
        yield (
            f"{slots.slots} slots: {share(slots.hit_rate)} ({100 * low:.0f} to {share(high)}) of requests find their "
            f"adapter there, a miss adds {miss} to the first token (popularity ~ rank^-{slots.zipf:g})"
        )


def _velocity(estimate: Estimate) -> Iterator[str]:
    velocity = estimate.velocity
    if velocity.turnaround_seconds is None:
        yield "unknown without --examples" if estimate.time.step_seconds is not None else "unknown"
        return
    usd_part = "" if velocity.runs_per_usd is None else f", {plain(velocity.runs_per_usd)} runs a dollar"
    yield (
        f"a result after {duration(velocity.turnaround_seconds)} ({duration_range(velocity.interval)}): "
        f"{plain(velocity.runs_per_week)} runs a week, one after the other{usd_part}"
    )
