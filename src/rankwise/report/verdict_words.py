"""The verdict in words: one sentence for a headline, three to six for a design document."""

import re

from rankwise.records import DeviceFacts, Estimate, MoneyEstimate, Offer, Plan, Rejection, TrainConfig
from rankwise.report.glossary import method_name, parallel_name
from rankwise.report.quantities import bounds, count, duration, duration_range, plain, share, size, usd, usd_range

RUNG = re.compile(r"(?:-(?:r\d+|zero\d|fsdp|checkpointing|b\d+))+$")  # what an id adds to the name of its recipe
RUNGS = {"nothing": "the base as it is", "prompting": "prompting", "retrieval": "retrieval"}


def verdict_sentence(plan: Plan) -> str:
    """The call in one sentence; for `none`, what is missing."""
    if plan.verdict.method == "none":
        return _nothing_sentence(plan)
    return f"{_call(plan)}: {_price(plan.chosen(), plan.facts.device)}."


def verdict_headline(plan: Plan) -> tuple[str, str]:
    """The call in two: what to do, and what it takes; the second is empty for `none`."""
    if plan.verdict.method == "none":
        return _nothing_sentence(plan), ""
    return f"{_call(plan)}.", f"Predicted for one run: {_price(plan.chosen(), plan.facts.device)}."


def _call(plan: Plan) -> str:
    verdict = plan.verdict
    phrase, model = method_phrase(verdict.method, verdict.config), _model(plan)
    whole = phrase.replace("all weights", f"all weights of {model}", 1)
    what = whole if verdict.method == "full" else f"{phrase} for {model}"
    return f"Train {what} on {_where(plan)}"


def _model(plan: Plan) -> str:
    name = plan.facts.model.name
    return "the embedded model" if name == "embedded" else name


def verdict_paragraph(plan: Plan) -> tuple[str, ...]:
    """Three to six sentences that stand alone in a design document: what to train, on what, for how much, what comes
    first, how sure, the biggest risk, and when the runner-up would win.
    """
    sentences = (
        verdict_sentence(plan),
        _money_sentence(plan),
        _first_sentence(plan),
        _confidence_sentence(plan),
        _risk_sentence(plan),
        _runner_up_sentence(plan),
    )
    return tuple(s for s in sentences if s)


def method_phrase(method: str, config: TrainConfig | None) -> str:
    """LoRA (r = 8, alpha = 16, all linear layers) · all weights (full fine-tuning, pure bf16, adamw_8bit)."""
    name = "all weights" if method == "full" else method_name(method)
    said = ["full fine-tuning"] if method == "full" else []
    if config is not None:
        said += _of_weights(config) if method == "full" else _of_adapter(config)
    return f"{name} ({', '.join(said)})" if said else name


def _of_weights(config: TrainConfig) -> list[str]:
    precision = f"fp32 weights under {config.autocast} autocast" if config.autocast else f"pure {config.dtype}"
    steps = ["optimizer in the backward pass"] if config.optimizer_in_backward else []
    return [precision, config.optim, *steps]


def _of_adapter(config: TrainConfig) -> list[str]:
    said = [f"{config.num_virtual_tokens} virtual tokens"] if config.num_virtual_tokens else []
    if config.r is None:
        return said
    alpha = [] if config.lora_alpha is None else [f"alpha = {config.lora_alpha:g}"]
    plus = [] if config.loraplus_lr_ratio is None else [f"B at {config.loraplus_lr_ratio:g} times the rate of A"]
    return [*said, f"r = {config.r}", *alpha, _targets(config.target_modules), *plus]


def _targets(targets: str | tuple[str, ...] | None) -> str:
    if targets in (None, "all-linear"):
        return "all linear layers"
    return targets if isinstance(targets, str) else ", ".join(targets or ())


def place(device: DeviceFacts) -> str:
    """Where it would run: this machine, or the devices by name."""
    if device.available_bytes is not None:
        return "this machine"
    return f"{device.count} x {device.name}" if device.count > 1 else f"one {device.name}"


def _where(plan: Plan) -> str:
    device, parallel = plan.facts.device, plan.verdict.parallel
    if parallel in (None, "none"):
        alone = device.count > 1 and device.available_bytes is None
        return f"one of {place(device)}" if alone else place(device)
    offload = " with offload to the host" if _offloads(plan.verdict.config) else ""
    return f"{place(device)} ({parallel_name(parallel)}{offload})"


def _offloads(config: TrainConfig | None) -> bool:
    zero = (config.deepspeed or {}).get("zero_optimization", {}) if config else {}
    fsdp = (config.fsdp_config or {}) if config else {}
    return any(key.startswith("offload_") and zero[key] for key in zero) or any(
        "offload" in key and fsdp[key] for key in fsdp
    )


def _price(estimate: Estimate | None, device: DeviceFacts) -> str:
    if estimate is None:
        return "time, memory and storage unknown"
    memory = estimate.memory
    room = "" if memory.capacity is None else f" of {size(memory.capacity)}"
    each = " on each device" if device.count > 1 else ""
    parts = [
        _span(estimate.time.train_seconds, estimate.time.interval),
        f"{size(memory.peak_device)}{room} memory{each}",
        f"{size(stored_bytes(estimate))} to store",
    ]
    return ", ".join(parts)


def _span(seconds: float | None, interval: tuple[float, float] | None) -> str:
    if seconds is None:
        return "time unknown"
    return f"about {duration(seconds)}" + (f" ({duration_range(interval)})" if interval else "")


def stored_bytes(estimate: Estimate) -> int:
    """What one result occupies on disk: the adapter, or the whole model."""
    adapter = estimate.storage.adapter_bytes
    return estimate.serving.per_variant_bytes if adapter is None else adapter


def _money_sentence(plan: Plan) -> str:
    chosen, device = plan.chosen(), plan.facts.device
    if chosen is None:
        return ""
    money = chosen.money
    if money.train_usd is None:
        ours = device.available_bytes is not None and device.price is None
        return "" if ours else f"The cost is unknown: {_unpriced(money, device)}."
    runs = f"One run costs {_usd_span(money.train_usd, money.interval)}"
    if money.project_usd is None or money.runs is None:
        return f"{runs}{_for_each(plan)}."
    low, high = money.runs
    number = count(low) if low == high else f"{count(low)} to {count(high)}"
    project = _usd_span(money.project_usd, money.project_interval)
    return f"{runs}, {number} runs until it is right {project}{_for_each(plan)}."


def _for_each(plan: Plan) -> str:
    return f", for each of the {plan.job.variants} variants" if plan.job.variants > 1 else ""


def _unpriced(money: MoneyEstimate, device: DeviceFacts) -> str:
    return f"no price of {device.name} is known" if money.usd_per_hour is None else "the length of a run is not known"


def _usd_span(value: float, interval: tuple[float, float] | None) -> str:
    return usd(value) + (f" ({usd_range(interval).removesuffix(' USD')})" if interval else "")


def _first_sentence(plan: Plan) -> str:
    names = [RUNGS[rung.name] for rung in plan.rungs if rung.first]
    if not names:
        return ""
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"Before training, try {listed}, which {'trains' if len(names) == 1 else 'train'} nothing."


def _confidence_sentence(plan: Plan) -> str:
    because = plan.verdict.confidence_because.strip().removesuffix(".")
    return f"Confidence: {plan.verdict.confidence}" + (f", because {_lower(because)}." if because else ".")


def _lower(text: str) -> str:
    """A sentence that goes on after a comma; names and abbreviations keep their capital."""
    return text[0].lower() + text[1:] if re.match(r"[A-Z][a-z]* [a-z]", text) else text


def _risk_sentence(plan: Plan) -> str:
    if plan.verdict.method == "none":
        return ""
    return f"Biggest risk: {plan.warnings[0].strip().removesuffix('.')}." if plan.warnings else ""


def warnings_left(plan: Plan) -> tuple[str, ...]:
    """The warnings that the paragraph does not say already."""
    return plan.warnings[1:] if _risk_sentence(plan) else plan.warnings


def _runner_up_sentence(plan: Plan) -> str:
    second = next((e for e in plan.candidates if e.id is not None and e.id == plan.runner_up), None)
    if second is None:
        return _cheapest_offer(plan) if plan.verdict.method == "none" else ""
    price = [_span(second.time.train_seconds, second.time.interval)]
    if second.money.train_usd is not None:
        price.append(_usd_span(second.money.train_usd, second.money.interval))
    price += _quality_against(plan)
    condition = winning_condition(plan, plan.runner_up or "")
    wins = f"; it would win if {condition}" if condition else ""
    return f"Runner-up: {second.id}, {', '.join(price)}{wins}."


def _quality_against(plan: Plan) -> list[str]:
    first, second = (plan.priors.get(name or "") for name in (plan.verdict.candidate, plan.runner_up))
    if first is None or second is None:
        return []
    ours, theirs = (f"{share(p.value)} ({bounds(p.interval, 'share')})" for p in (first, second))
    return [f"expected to gain {theirs} of what full fine-tuning would, against {ours}"]


def winning_condition(plan: Plan, candidate: str) -> str | None:
    """What would make this candidate the call: a flip point that leads to it, else what its rejection says."""
    recipe = RUNG.sub("", candidate)
    named = re.compile(rf"(?<![\w-])(?:{re.escape(recipe)}|{re.escape(candidate)})(?![\w-])")
    same = recipe == RUNG.sub("", plan.verdict.candidate or "")
    flip = next((f.if_ for f in plan.flips if not same and named.search(f.then.partition(" instead of ")[0])), None)
    said = flip or next((r.would_flip_if for r in plan.rejected if r.method == candidate), None)
    return said.strip().removesuffix(".") if said else None


def offer_sentence(offer: Offer) -> str:
    """lora-r16 (ZeRO-3) on 2 x H100-80GB: 61.0 GB of 80.0 GB, about 3 h (2 to 4.1 h), 28.00 USD (20.00 to 39.00)."""
    split = "" if offer.parallel == "none" else f" ({parallel_name(offer.parallel)})"
    where = f"{offer.count} x {offer.gpu}" if offer.count > 1 else f"one {offer.gpu}"
    cost = "cost unknown" if offer.usd is None else _usd_span(offer.usd, offer.usd_interval)
    memory = f"{size(offer.peak_device)} of {size(offer.capacity)}"
    return f"{offer.candidate}{split} on {where}: {memory}, {_span(offer.train_seconds, None)}, {cost}"


def _cheapest_offer(plan: Plan) -> str:
    priced = [o for o in plan.offers if o.usd is not None] or list(plan.offers)
    best = min(priced, key=lambda o: o.usd or 0.0, default=None)
    return "" if best is None else f"The cheapest that would fit: {offer_sentence(best)}."


def _nothing_sentence(plan: Plan) -> str:
    where = place(plan.facts.device)
    smallest = min(plan.candidates, key=lambda e: e.memory.interval[1], default=None)
    if smallest is not None and smallest.memory.fits is False and smallest.memory.capacity is not None:
        memory = smallest.memory
        return (
            f"Nothing fits {where}: the smallest option, {smallest.id or method_name(smallest.method)}, needs up to "
            f"{size(memory.interval[1])} of memory and there are {size(memory.capacity)}."
        )
    if plan.rejected:
        return f"Nothing can run on {where}. {_last_hurdle(plan.rejected)}"
    return f"Nothing can run on {where}, and the plan does not say why."


def _last_hurdle(rejected: tuple[Rejection, ...]) -> str:
    text = rejected[0].text.strip().removesuffix(".")
    number = f" ({rejected[0].number})" if rejected[0].number and rejected[0].number not in text else ""
    others = len(rejected) - 1
    more = f" {plain(others)} more {'is' if others == 1 else 'are'} excluded, by the rules below." if others else ""
    return f"{text}{number}.{more}"
