"""What to beware of: rules of risk, what is not checked because it is unknown, and what a person forced."""

import math

from rankwise.decide.capacity import bits_per_parameter, need_bits
from rankwise.decide.comparisons import RULE, ignored, prefers, shown_better, swept_rate
from rankwise.decide.forgetting import cut_of, expected_rise
from rankwise.decide.parallel import forced_parallel, not_carried_out
from rankwise.decide.preference import holds
from rankwise.decide.priced import Priced
from rankwise.decide.recipes import EXECUTED
from rankwise.decide.rulebook import rules, threshold
from rankwise.decide.updates import unseen_updates
from rankwise.decide.verdicts import Decision, soft
from rankwise.records import Facts, Job


def said(rule: str) -> str:
    """`rule significance, E12`: the rule behind a warning with its evidence, which the documentation spells out."""
    return ", ".join([f"rule {rule}", *rules()[rule].evidence])


def warnings(job: Job, facts: Facts, decision: Decision) -> list[str]:
    """Sentences, the gravest first."""
    winner = decision.winner
    found = _against_rules(job, facts, winner) + _forced(job, facts, decision, winner) if winner else []
    found += _budget(job, facts, winner)
    found += _data(job, facts)
    found += _risks(job, facts, winner) if winner else []
    if winner and not carried_out(facts, winner):
        why = not_carried_out(winner.candidate.method, winner.candidate.parallel, winner.candidate.config)
        found.append(
            f"`rankwise train` of this version cannot carry out {winner.id} on {facts.device.count} x "
            f"{facts.device.name}{f' ({why})' if why else ''}: its configuration is for your own launcher"
        )
    if facts.past is not None:
        found += ignored(job, facts.past)
    return found + _not_acted_on(job)


def carried_out(facts: Facts, winner: Priced) -> bool:
    """Can this version's `train` do it?"""
    candidate = winner.candidate
    spread = not_carried_out(candidate.method, candidate.parallel, candidate.config) is None
    return winner.recipe.executable and candidate.config.optim in EXECUTED and spread


def _against_rules(job: Job, facts: Facts, winner: Priced) -> list[str]:
    broken = soft(job, facts, winner)
    if broken is None:
        return []
    why = "what your own comparison prefers" if prefers(job, facts, winner.recipe.method) else "the best that runs here"
    who = f"the job forces {job.method.name}" if job.method else f"{winner.id} is {why}"
    return [f"{who} against the rule {broken.rule}: {broken.text} ({broken.number or 'see the evidence'})"]


def _forced(job: Job, facts: Facts, decision: Decision, winner: Priced) -> list[str]:
    """A cheaper recipe that would do the same, beside the one that the job forces; and how it is spread by force."""
    spread = forced_parallel(job, facts)
    if spread is not None and spread != winner.recipe.shards[0]:
        key = "train.deepspeed" if facts.deepspeed is not None else "train.parallel"
        first = f"the plan would try {winner.recipe.shards[0]} first"
        return [f"{key}: {spread} is the job's, {first}", *_forced_method(job, facts, decision, winner)]
    return _forced_method(job, facts, decision, winner)


def _forced_method(job: Job, facts: Facts, decision: Decision, winner: Priced) -> list[str]:
    if job.method is None:
        return []
    if (shown := shown_better(job, facts, winner.candidate.method)) is not None:
        return [f"the job forces {job.method.name}, and your {shown[0].told} shows {shown[1].gap()} (rule {RULE})"]
    if winner.candidate.method not in ("full", "qlora") or prefers(job, facts, winner.candidate.method):
        return []
    lora = next((o for o in decision.outcomes if o.recipe.name == "lora"), None)
    if lora is None or lora.best is None or not holds(job.model_copy(update={"method": None}), facts, lora.recipe):
        return []
    rule = "adapter_suffices" if winner.candidate.method == "full" else "quantisation_needed"
    return [
        f"the job forces {job.method.name} against the rule {rule}: {lora.best.id} fits and holds what this data "
        f"teaches ({lora.best.estimate.storage.checkpoint_bytes / 1e6:,.0f} MB a checkpoint against "
        f"{winner.estimate.storage.checkpoint_bytes / 1e6:,.0f} MB)"
    ]


def _budget(job: Job, facts: Facts, winner: Priced | None) -> list[str]:
    found, budget = [], job.budget
    if budget.usd is not None and not (facts.device.price and facts.device.price.at(job.costs.pricing)):
        found.append(f"budget.usd is not checked: no {job.costs.pricing} price of {facts.device.name} is known")
    if budget.hours is not None and not (winner and winner.estimate.time.train_seconds):
        found.append(f"budget.hours is not checked: the speed of {facts.device.name} is not known")
    money = winner.estimate.money if winner else None
    if budget.usd is None or money is None or money.project_usd is None or money.runs is None:
        return found
    total = money.project_usd * job.variants
    if total > budget.usd:
        low, high = money.runs
        runs = f"{low:.0f} to {high:.0f} runs" if low != high else f"{low:.0f} runs"
        tenants = f" for each of {job.variants} tenants" if job.variants > 1 else ""
        found.append(
            f"the project breaks the {budget.usd:,.0f} USD budget ({said('project_within_usd')}): {runs}{tenants} "
            f"until the model is right cost about {total:,.0f} USD with their failures, one run costs "
            f"{money.train_usd or 0:,.2f}"
        )
    return found


def _data(job: Job, facts: Facts) -> list[str]:
    data, found = facts.data, []
    if data.long_rows:
        found.append(
            f"{data.long_rows} of {data.rows + data.dropped_rows} training rows are too long; "
            f"{data.dropped_rows} rows and {data.lost_supervised_tokens} answer tokens are lost"
        )
    if job.data.train is None and job.data.tokens_per_example is None:
        found.append(f"data.tokens_per_example is not said: {data.mean_length:g} tokens a row are assumed")
    diagnosis = facts.diagnosis
    if diagnosis is not None and {diagnosis.conclusion, job.goal} in (
        {"style", "knowledge"},
        {"knowledge", "instruction"},
    ):
        found.append(f"the job says goal: {job.goal}, and the diagnosis says {diagnosis.conclusion}")
    if job.data.general is None:
        found.append(_no_general(job))
    elif data.general_to_write:
        found.append(
            f"the base writes {data.general_to_write} general rows once before training, of about "
            f"{data.general_supervised_per_row:g} answer tokens, and begins some "
            f"{threshold('replay', 'begun'):g} for each that it keeps; that time is not in the estimate"
        )
    if job.data.facts is None and job.goal == "knowledge":
        found.append("goal: knowledge without data.facts: nothing will show whether facts were learned")
    if job.format is None and job.goal == "instruction":
        found.append("no format: whether answers are well formed will not be measured")
    rows = data.validation_rows
    if 0 < rows < threshold("significance", "rows"):
        gap = 1.96 * math.sqrt(2 * 0.25 / rows)
        found.append(f"{rows} held-out rows can tell two models apart from about {gap:.0%} on ({said('significance')})")
    return found


def _no_general(job: Job) -> str:
    lack = "no data.general: nothing is replayed, so that forgetting is watched and not held back"
    if job.forgetting.watch_steps == 0:
        lack = "no data.general, and forgetting.watch_steps is 0: nothing is replayed, and forgetting is not measured"
    if not job.forgetting.replay_allowed:
        return lack
    rows = f"{threshold('replay', 'written'):g}"
    return f"{lack}; without a corpus, `general: {{self_generated: {rows}}}` has the base write such rows itself"


def _risks(job: Job, facts: Facts, winner: Priced) -> list[str]:
    found, config = [], winner.candidate.config
    room = winner.estimate.trainable_params * bits_per_parameter(job) / max(1.0, need_bits(job, facts))
    least, safe = (threshold("capacity_suffices", name) for name in ("least", "safe"))
    if winner.recipe.low_rank and least <= room < min(1.0, safe):
        found.append(f"the adapter holds {room:.2f} times what is to be learned: its loss may stop above that of full")
    if job.goal == "knowledge":
        found.append(
            "the gain on facts depends on paraphrases: about "
            f"{threshold('known_facts_at_risk', 'paraphrases'):.0f} wordings of each fact and "
            f"{threshold('known_facts_at_risk', 'exposures'):.0f} exposures, or extraction stays near 0; "
            f"known facts are lost as new ones come ({said('known_facts_at_risk')})"
        )
    found += _forgetting(job, facts, winner)
    unseen = unseen_updates(facts, config)
    if unseen is not None:
        found.append(unseen)
    if job.data.new_token_count:
        found.append(_new_tokens(job, facts))
    needed = threshold("replay", "far" if job.data.domain in ("code", "language") else "same")
    if job.data.general is not None and job.forgetting.replay_allowed and config.replay_share < needed:
        found.append(
            f"replay is {config.replay_share:.0%} of the answer tokens; {needed:.0%} is what such a shift asks for"
        )
    return found


def _forgetting(job: Job, facts: Facts, winner: Priced) -> list[str]:
    weights, replay = winner.recipe.trains_weights, winner.candidate.config.replay_share
    rise, budget = expected_rise(facts, weights, replay), job.forgetting.budget_nats
    if rise <= budget:
        return []
    cut = cut_of(job, facts, weights, replay)
    left = expected_rise(facts, weights, replay, cut)
    then = f"the learning rate is cut by {cut:g}, which leaves about {left:.3f} and learns more slowly"
    if job.train.learning_rate is not None:
        then = "that is at our own rate, and the job says another; watch the general loss"
    elif swept_rate(job, facts, winner.recipe.method) is not None:
        then = "that is at our own rate, and your own comparison chose another; watch the general loss"
    elif cut == 1:
        then = "watch the general loss"
    return [
        f"general loss is expected to rise by about {rise:.3f} nats, a prior of low confidence, and the budget is "
        f"{budget:g} ({said('forgetting_budget')}): {then}"
    ]


def _new_tokens(job: Job, facts: Facts) -> str:
    share = job.data.new_token_count / facts.model.vocab_size
    if share > threshold("new_tokens", "share"):
        how = "train embedding and head " + ("whole" if facts.model.tie_word_embeddings else "with LoRA")
    else:
        how = "train those rows alone (PEFT's trainable_token_indices), begun at the mean of their sub-tokens"
    served = "; vLLM loads them merged only" if job.serving.engine == "vllm" else ""
    return f"{job.data.new_token_count} new tokens, {share:.2%} of the vocabulary ({said('new_tokens')}): {how}{served}"


def _not_acted_on(job: Job) -> list[str]:
    """Keys that are part of the contract and that no part of this version reads yet: said, never ignored silently."""
    unread = []
    if job.data.new_token_count and not job.data.named_tokens:
        unread.append("data.new_tokens (it is a number; name the tokens, and their rows are trained)")
    return [f"not acted on in this version: {key}" for key in unread]
