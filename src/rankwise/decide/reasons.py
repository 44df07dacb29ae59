"""Why the winner won: one reason a rule, each with the number that decided it and its evidence."""

from rankwise.decide.capacity import bits_per_parameter, bits_per_token, floor_of, most_rank, need_bits
from rankwise.decide.comparisons import CITED, RULE, finding, prefers, relevant, swept_rate, widest
from rankwise.decide.exclusions import GB
from rankwise.decide.forgetting import cut_of
from rankwise.decide.priced import Priced
from rankwise.decide.rulebook import cite, rules, threshold
from rankwise.records import Facts, Job, PastArm, PastComparison, Reason, WatchEstimate


def reason(rule: str, text: str, number: str | None = None) -> Reason:
    """A reason with the step and the evidence of its rule."""
    return Reason(step=rules()[rule].step, rule=rule, text=text, number=number, evidence=cite(rule))


def reasons(job: Job, facts: Facts, winner: Priced) -> list[Reason]:
    """In the order need, capacity, feasibility, cost, configuration."""
    return [
        *_need(job, facts),
        *_capacity(job, facts, winner),
        *_feasible(job, facts, winner),
        *_cost(job, facts, winner),
        *_configuration(job, facts, winner),
    ]


def _need(job: Job, facts: Facts) -> list[Reason]:
    found = []
    if job.method:
        found.append(
            Reason(step="need", rule="forced", text=f"The job asks for {job.method.name}.", number=None, evidence=())
        )
    if facts.diagnosis is not None:
        text = {
            "style": "The base lacks a way of talking, not knowledge.",
            "knowledge": "The base lacks knowledge, not a way of talking.",
            "both": "The base lacks both a way of talking and knowledge.",
            "prompting": "Examples in the prompt already give the base what it lacks.",
            "cannot tell": "Whether the base lacks style or knowledge cannot be told from these rows.",
        }[facts.diagnosis.conclusion]
        share = facts.diagnosis.knowledge
        number = (
            None
            if share is None
            else (f"{share.value:.0%} of the gap is knowledge ({share.interval[0]:.0%} to {share.interval[1]:.0%})")
        )
        found.append(reason("style_or_knowledge", text, number))
    bits, how = bits_per_token(job, facts)
    found.append(
        reason(
            "need_bits",
            f"{facts.data.supervised_tokens:,} answer tokens teach up to {need_bits(job, facts) / 1e6:,.2f} Mbit.",
            f"{bits:.2f} bits a token, {how}",
        )
    )
    if job.goal == "knowledge" and job.retrieval == "possible":
        found.append(
            reason("retrieval_first", "Facts that can be looked up are better looked up; weights come second.")
        )
    return found


def _capacity(job: Job, facts: Facts, winner: Priced) -> list[Reason]:
    trained, need = winner.estimate.trainable_params, need_bits(job, facts)
    if winner.recipe.trains_weights:
        if prefers(job, facts, winner.recipe.method):
            return []  # not for want of room in an adapter: see rule `own_comparison`
        return (
            [reason("capacity_suffices", "No adapter that runs here holds what the data teaches.")]
            if (job.method is None)
            else []
        )
    held, holds = trained * bits_per_parameter(job), _holds(job, facts, winner)
    return [
        reason(
            "capacity_suffices",
            f"{trained:,} adapter parameters {'hold' if holds else 'cannot hold'} what the data teaches.",
            f"{held / 1e6:,.2f} Mbit held, {need / 1e6:,.2f} Mbit to learn",
        )
    ]


def _holds(job: Job, facts: Facts, winner: Priced) -> bool:
    held = winner.estimate.trainable_params * bits_per_parameter(job)
    return held >= threshold("capacity_suffices", "least") * need_bits(job, facts)


def _feasible(job: Job, facts: Facts, winner: Priced) -> list[Reason]:
    memory = winner.estimate.memory
    return [
        reason(
            "memory_fits",
            f"It fits {facts.device.name}.",
            f"{memory.interval[1] / GB:.2f} GB at the upper end, {memory.room / GB:.2f} GB there",
        )
    ]


def _compared(job: Job, facts: Facts) -> list[Reason]:
    """What the owner's own comparisons found, whether or not it moves this call."""
    return [
        Reason(
            step=rules()[RULE].step,
            rule=RULE,
            text=f"Your {entry.told} on this base: {finding(entry)}.",
            number=widest(job, entry),
            evidence=(*cite(RULE), entry.told),
        )
        for entry in relevant(job, facts)[:CITED]
    ]


def _cost(job: Job, facts: Facts, winner: Priced) -> list[Reason]:
    found, config, serving = _compared(job, facts), winner.candidate.config, winner.estimate.serving
    if not winner.recipe.trains_weights and job.method is None and _holds(job, facts, winner):
        found.append(
            reason(
                "adapter_suffices",
                "Where capacity suffices, LoRA with a tuned rate learns what full fine-tuning learns.",
                f"{winner.estimate.trainable_params / facts.model.total_params:.2%} of the parameters train",
            )
        )
    if winner.recipe.trains_weights and config.dtype == "fp32" and config.autocast:
        found.append(
            reason(
                "trained_in_fp32",
                "Weights are kept in fp32 and computed in bf16, because bf16 weights would round most updates away.",
                f"learning rate {config.learning_rate:g}",
            )
        )
    if config.bf16_stochastic_round:
        found.append(
            reason(
                "stochastic_rounding",
                "Weights are kept in bf16 alone, and updates are rounded up or down by chance: to the nearest, most "
                "would be lost.",
                f"learning rate {config.learning_rate:g}",
            )
        )
    if job.variants >= threshold("many_variants", "from") and not winner.recipe.trains_weights:
        copies = serving.copies_bytes or job.variants * serving.base_bytes
        cheaper = serving.break_even_variants
        found.append(
            reason(
                "many_variants",
                f"{job.variants} tenants share one base; each adds only its adapter"
                + (f", which is cheaper than copies from {cheaper} tenants on." if cheaper else "."),
                f"{serving.all_variants_bytes / 1e6:,.0f} MB against {copies / 1e6:,.0f} MB of copies",
            )
        )
    elif not winner.recipe.trains_weights:
        found.append(reason("merge", "One tenant: the adapter is merged, so that serving costs what the base costs."))
    return found


def _configuration(job: Job, facts: Facts, winner: Priced) -> list[Reason]:
    """Why the values of the run are what they are; what the job itself says needs no reason."""
    config, said = winner.candidate.config, job.train
    found = [] if winner.recipe.trains_weights else _adapter(job, facts, winner)
    swept = swept_rate(job, facts, winner.recipe.method)
    if said.learning_rate is None and swept is not None:
        found.append(_swept(*swept, config.max_steps))
    elif said.learning_rate is None:
        times = "ten times that of full fine-tuning, fifteen times in short runs"
        text = "A prior for one run; sweep it by 1/3, 1 and 3."
        how = "" if winner.recipe.trains_weights else f", {times}"
        found.append(reason("learning_rate", text, f"{config.learning_rate:g}{how}"))
        if (cut := cut_of(job, facts, winner.recipe.trains_weights, config.replay_share)) > 1:
            text = "The rate is cut, because such a run is expected to forget more than the budget."
            found.append(reason("forgetting_budget", text, f"by {cut:g}"))
    if said.per_device_train_batch_size is None and said.gradient_accumulation_steps is None:
        rows = config.effective_batch * facts.device.count
        text = "Small enough to leave steps, and LoRA's gap grows with the batch."
        found.append(reason("batch", text, f"{rows} rows a step over all devices, {config.max_steps:,} steps"))
    if said.num_train_epochs is None:
        text = "Held-out loss decides which checkpoint is kept."
        found.append(reason("epochs", text, f"{config.num_train_epochs:g} passes over the rows"))
    if config.replay_share:
        found.append(
            reason("replay", "General rows keep what the base could do.", f"{config.replay_share:.0%} of answer tokens")
        )
    if (watch := winner.estimate.time.watch) is not None and job.forgetting.watch_steps is None:
        text = "General ability is looked at before, during and after, within 5 % of a run of half an hour or more."
        found.append(reason("forgetting_watch", text, _looks(watch)))
    return found


def _swept(entry: PastComparison, arm: PastArm, steps: int) -> Reason:
    edge = "; it was the lowest or highest of them, so sweep further" if arm.at_the_edge else ""
    return Reason(
        step="configuration",
        rule="learning_rate",
        text=f"Your {entry.told} chose it for {arm.name} in runs of {arm.steps:,} steps; this run has {steps:,}.",
        number=f"{arm.learning_rate:g} of {arm.tried} rates{edge}",
        evidence=(entry.told,),
    )


def _looks(watch: WatchEstimate) -> str:
    often = f"{watch.looks} looks, one each {watch.steps:,} steps"
    if watch.seconds is None or watch.share is None:
        return often
    return f"{often}, {watch.seconds:,.0f} s, {watch.share:.1%} of the run"


def _why_rank(job: Job, facts: Facts, winner: Priced) -> str:
    safe = threshold("capacity_suffices", "safe") * need_bits(job, facts)
    if winner.estimate.trainable_params * bits_per_parameter(job) >= safe:
        return "The smallest power of two that holds the need with room, and not below the floor of this kind of job."
    if winner.candidate.config.r == most_rank(facts, winner.candidate.config.target_modules):
        return "The highest rank that is looked at: what the data teaches asks for more."
    return "The highest rank that fits: what the data teaches asks for more room."


def _adapter(job: Job, facts: Facts, winner: Priced) -> list[Reason]:
    config, said = winner.candidate.config, job.method
    if config.r is None:
        return []
    found = []
    if said is None or said.r is None:
        found.append(reason("rank", _why_rank(job, facts, winner), f"r = {config.r}, floor {floor_of(job)}"))
    if said is None or said.lora_alpha is None:
        text = "The scale stays the same when the rank changes; the learning rate is what is swept."
        found.append(reason("alpha", text, f"alpha = {config.lora_alpha:g}"))
    if said is None or said.target_modules is None:
        found.append(reason("targets", "All linear layers: attention alone learns less at equal parameters."))
    return found
