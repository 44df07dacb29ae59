"""Priced candidates -> Plan: need, capacity, feasibility, cost, risk; every loser is named with the rule and number
that excluded it, and flip points are found by deciding again with one input changed."""

from collections.abc import Callable

from rankwise.decide.candidates import candidates
from rankwise.decide.capacity import need_bits
from rankwise.decide.flips import find_flips
from rankwise.decide.rules import (
    HARD,
    RULE_EVIDENCE,
    SOFT,
    Priced,
    capacity_bits,
    capacity_suffices,
    cite,
    first_broken,
)
from rankwise.errors import JobError
from rankwise.methods import METHODS, targeted
from rankwise.records import (
    Candidate,
    Estimate,
    Facts,
    Job,
    MethodChoice,
    Plan,
    Reason,
    Rejection,
    TrainConfig,
    TrainOptions,
    Verdict,
)
from rankwise.records.base import content_hash
from rankwise.version import __version__

Price = Callable[[Job, Facts, Candidate], Estimate]


def choose(job: Job, facts: Facts, price: Price) -> Plan:
    """The call for one job. `price` comes from the estimate stage.

    Raises JobError when the forced method cannot be configured for this model.
    """
    priced = [Priced(c, price(job, facts, c)) for c in candidates(job, facts)]
    winner, order, rejected = decide(job, facts, priced)
    job_hash = job_identity(job)
    return Plan(
        verdict=_verdict(job, facts, winner),
        runner_up=next((p.candidate.id for p in order if p is not winner), None),
        reasons=tuple(_reasons(job, facts, winner)) if winner else (),
        rejected=tuple(rejected),
        flips=tuple(find_flips(job, facts, lambda j, f: _winner_id(j, f, price))),
        warnings=tuple(_warnings(job, facts, price, winner, priced)),
        questions=tuple(_questions(job, facts)),
        candidates=tuple(p.estimate for p in priced),
        job=job,
        facts=facts,
        job_hash=job_hash,
        base_hash=facts.model.weights_hash,
        data_hash=content_hash(facts.data.files),
        hardware_hash=facts.device.identity_hash,
        rankwise_version=__version__,
    )


def _winner_id(job: Job, facts: Facts, price: Price) -> str:
    winner = decide(job, facts, [Priced(c, price(job, facts, c)) for c in candidates(job, facts)])[0]
    return winner.candidate.id if winner else "none"


def job_identity(job: Job) -> str:
    """Hash of a job, wherever its folder was."""
    return job.content_hash()


def decide(job: Job, facts: Facts, priced: list[Priced]) -> tuple[Priced | None, list[Priced], list[Rejection]]:
    """(winner, all that can run in order of preference, rejections with their rule)."""
    hard = {p.candidate.id: first_broken(HARD, job, facts, p, priced) for p in priced}
    soft = {p.candidate.id: first_broken(SOFT, job, facts, p, priced) for p in priced}
    runnable = [p for p in priced if hard[p.candidate.id] is None]
    order = sorted(runnable, key=lambda p: _preference(job, p, soft[p.candidate.id]))
    forced = job.method.name if job.method else None
    if forced:
        order = [p for p in order if p.candidate.method == forced] + [p for p in order if p.candidate.method != forced]
    winner = order[0] if order and (not forced or order[0].candidate.method == forced) else None
    rejected = []
    for p in priced:
        broken = hard[p.candidate.id] or soft[p.candidate.id]
        if p is winner:
            continue
        rejected.append(broken or _less_preferred(p, forced))
    return winner, order, rejected


def _preference(job: Job, priced: Priced, broken: Rejection | None) -> tuple[object, ...]:
    """Unbroken before broken; then the cheapest rung that can hold it: LoRA, QLoRA, full; then without
    recomputation.
    """
    rung = {"lora": 0, "qlora": 1, "full": 2}[priced.candidate.method]
    capacity_broken = broken is not None and broken.rule == "capacity_suffices"
    return broken is not None, capacity_broken, rung, priced.candidate.config.gradient_checkpointing


def _less_preferred(priced: Priced, forced: str | None) -> Rejection:
    why = f"The job forces {forced}." if forced else "It would do, but the choice above is the cheaper rung."
    return Rejection(method=priced.candidate.id, rule="preference", number=None, text=why, would_flip_if=None)


def _verdict(job: Job, facts: Facts, winner: Priced | None) -> Verdict:
    first_try = []
    if job.goal == "knowledge" and job.retrieval == "possible":
        first_try.append("retrieval: put the source of each answer into the prompt")
    if job.goal in ("knowledge", "unsure", "task"):
        first_try.append("prompting: a few worked examples in the prompt")
    if winner is None:
        return Verdict(
            method="none", candidate=None, parallel=None, config=None, confidence="high", first_try=tuple(first_try)
        )
    unsure = job.goal == "unsure" or job.data.train is None
    return Verdict(
        method=winner.candidate.method,
        candidate=winner.candidate.id,
        parallel=winner.candidate.parallel,
        config=winner.candidate.config,
        confidence="low" if unsure else "medium",
        first_try=tuple(first_try),
    )


def _reason(rule: str, text: str, number: str | None = None) -> Reason:
    return Reason(rule=rule, text=text, number=number, evidence=cite(*RULE_EVIDENCE.get(rule, ())))


def _reasons(job: Job, facts: Facts, winner: Priced) -> list[Reason]:
    need, config = need_bits(job, facts), winner.candidate.config
    reasons = []
    if job.method:
        reasons.append(_reason("forced", f"The job asks for {job.method.name}."))
    if winner.candidate.method != "full":
        capacity = capacity_bits(job, winner)
        holds = capacity_suffices(job, facts, winner, []) is None
        reasons.append(
            _reason(
                "capacity_suffices",
                f"{winner.estimate.trainable_params:,} adapter parameters "
                f"{'hold' if holds else 'cannot hold'} what the data teaches.",
                f"{capacity / 1e6:.2f} Mbit held, {need / 1e6:.2f} Mbit to learn",
            )
        )
        if holds:
            reasons.append(
                _reason(
                    "adapter_suffices",
                    "Where capacity suffices, LoRA with a tuned rate learns what full fine-tuning learns.",
                    f"{winner.estimate.trainable_params / facts.model.total_params:.2%} of the parameters train",
                )
            )
    elif config.dtype == "fp32" and config.autocast:
        reasons.append(
            _reason(
                "trained_in_fp32",
                "Weights are kept in fp32 and computed in bf16, because bf16 weights would round most updates away.",
                f"learning rate {config.learning_rate:g}",
            )
        )
    memory = winner.estimate.memory
    reasons.append(
        _reason(
            "memory_fits",
            f"It fits {facts.device.name}.",
            f"{memory.interval[1] / 1e9:.2f} GB at the upper end, {memory.room / 1e9:.2f} GB there",
        )
    )
    if job.variants > 1 and winner.candidate.method != "full":
        serving = winner.estimate.serving
        reasons.append(
            _reason(
                "many_variants",
                f"{job.variants} tenants share one base; each adds only its adapter.",
                f"{serving.all_variants_bytes / 1e6:,.0f} MB against "
                f"{job.variants * serving.base_bytes / 1e6:,.0f} MB of copies",
            )
        )
    if job.goal == "knowledge":
        reasons.append(
            _reason("facts_by_retrieval", "Facts that can be looked up are better looked up; weights come second.")
        )
    return reasons


def _warnings(job: Job, facts: Facts, price: Price, winner: Priced | None, priced: list[Priced]) -> list[str]:
    data, warnings = facts.data, []
    if winner and (broken := first_broken(SOFT, job, facts, winner, priced)):
        who = f"the job forces {job.method.name}" if job.method else f"{winner.candidate.id} is the best that runs here"
        warnings.append(f"{who} against the rule {broken.rule}: {broken.text} ({broken.number})")
    if winner:
        warnings += _overrides(job, facts, price, winner)
    if data.long_rows:
        warnings.append(
            f"{data.long_rows} of {data.rows + data.dropped_rows} training rows are too long; "
            f"{data.dropped_rows} rows and {data.lost_supervised_tokens} answer tokens are lost"
        )
    if job.budget.usd is not None and not (facts.device.price and facts.device.price.at(job.costs.pricing)):
        warnings.append(f"budget.usd is not checked: no {job.costs.pricing} price of {facts.device.name} is known")
    if job.budget.hours is not None and not (winner and winner.estimate.time.train_seconds):
        warnings.append(f"budget.hours is not checked: the speed of {facts.device.name} is not known")
    if job.data.general is None:
        warnings.append("no data.general: forgetting of general ability will not be measured, and nothing is replayed")
    if job.data.facts is None and job.goal == "knowledge":
        warnings.append("goal: knowledge without data.facts: nothing will show whether facts were learned")
    if job.format is None and job.goal == "instruction":
        warnings.append("no format: whether answers are well formed will not be measured")
    if job.goal == "knowledge":
        warnings.append(
            "the gain on facts depends on paraphrases: about ten wordings of each fact, or extraction stays near 0"
        )
    warnings += _not_acted_on(job)
    return warnings


def _overrides(job: Job, facts: Facts, price: Price, winner: Priced) -> list[str]:
    """What the job's `train` and `method` blocks changed against what the plan would choose for the same method."""
    method = winner.candidate.method
    free = job.model_copy(update={"train": TrainOptions(), "method": MethodChoice(name=method)})
    priced = [Priced(c, price(free, facts, c)) for c in candidates(free, facts)]
    best = decide(free, facts, priced)[0] or next(p for p in priced if p.candidate.method == method)
    ours, theirs = _options(best.candidate.config), _options(winner.candidate.config)
    said = {f"train.{k}": k for k in job.train.model_dump(exclude_none=True)}
    if job.method:
        said |= {f"method.{k}": k for k in job.method.model_dump(exclude={"name"}, exclude_none=True)}
    return [
        f"{key}: {theirs[name]} is the job's, the plan would take {ours[name]}"
        for key, name in said.items()
        if name in ours and ours[name] != theirs[name]
    ]


def _options(config: TrainConfig) -> dict[str, object]:
    return {**config.model_dump(), "bf16": "bf16" in (config.dtype, config.autocast)}


def _not_acted_on(job: Job) -> list[str]:
    """Keys that are part of the contract and that no part of this version reads yet: said, never ignored silently."""
    unread = []
    if job.forgetting.action != "warn":
        unread.append(f"forgetting.action: {job.forgetting.action} (forgetting is measured after training, not during)")
    if job.hardware.nodes > 1:
        unread.append("hardware.nodes (this version trains on one machine)")
    if job.method and METHODS[job.method.name].trains == "weights":
        said = job.method.model_dump(exclude={"name"}, exclude_none=True)
        unread += [f"method.{key} ({job.method.name} has no adapter)" for key in said]
    return [f"not acted on in this version: {key}" for key in unread]


def _questions(job: Job, facts: Facts) -> list[str]:
    questions = []
    if job.goal == "unsure":
        questions.append("Should the model answer differently (instruction), or know something new (knowledge)?")
    if job.data.facts is None:
        questions.append("What must it know afterwards? A file of questions and answers (data.facts) would measure it.")
    return questions[:2]


def require_known_targets(job: Job, facts: Facts) -> None:
    """Raises JobError when no layer has a targeted name, or the forced rank is beyond a targeted matrix."""
    if job.method is None or job.method.r is None:
        return
    targets = targeted(facts.model, job.method.target_modules)
    limit = min((min(s.in_features, s.out_features) for s in targets), default=job.method.r)
    if job.method.r > limit:
        raise JobError(
            f"method.r is {job.method.r}, but the smallest targeted matrix of {facts.model.name} has rank {limit}",
            expected=f"a rank of 1 to {limit}",
        )
