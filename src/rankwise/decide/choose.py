"""Job x Facts -> Plan: need, capacity, feasibility, cost, risk; every loser is named with the rule and number that
excluded it, and flips, questions and offers are found by deciding again."""

from rankwise.decide.ahead import coming
from rankwise.decide.capacity import bits_per_parameter, need_bits
from rankwise.decide.cautions import carried_out, warnings
from rankwise.decide.compatibility import refused
from rankwise.decide.configure import Rung, configure
from rankwise.decide.continuing import require_same_adapter, with_adapter
from rankwise.decide.deepspeed import with_deepspeed
from rankwise.decide.flips import Flips
from rankwise.decide.ladder import climb_all, place_all
from rankwise.decide.offers import Market, offers
from rankwise.decide.overrides import overrides
from rankwise.decide.parallel import require_possible
from rankwise.decide.preference import compared, takeable
from rankwise.decide.priced import Announce, Price, Priced
from rankwise.decide.quality import quality
from rankwise.decide.questions import questions
from rankwise.decide.reasons import reasons
from rankwise.decide.rulebook import threshold
from rankwise.decide.rungs import first_try, rungs
from rankwise.decide.updates import require_sound_updates
from rankwise.decide.verdicts import Decision, decide, soft
from rankwise.decide.vocabulary import require_trainable_tokens
from rankwise.errors import JobError
from rankwise.methods import METHODS, targeted
from rankwise.records import Facts, Job, Plan, TrainConfig, Verdict
from rankwise.records.base import content_hash
from rankwise.version import __version__


def choose(
    job: Job,
    facts: Facts,
    price: Price,
    market: Market | None = None,
    *,
    brief: bool = False,
    announce: Announce = lambda coming: None,
) -> Plan:
    """The call for one job.

    Args:
        price: from the estimate stage.
        market: what could be rented; None: nobody looks.
        brief: the verdict with its reasons alone: no flips, no questions, and nothing that is never the verdict.
        announce: told what is about to be priced, for tracing it side by side.

    Raises:
        JobError: the forced method cannot be configured for this model.
    """
    said, job = job, with_deepspeed(with_adapter(with_known_goal(job, facts), facts), facts)
    taken = climb_all(job, facts, takeable(job, facts), price)
    called = decide(job, facts, taken).winner
    if not brief:
        announce(list(coming(job, facts, Flips(job, facts, price, tuple(taken)), called, market)))
    beside = () if brief else compared(job, facts)
    decision = decide(job, facts, [*taken, *place_all(job, facts, beside, price, called)])
    winner, runner_up = decision.winner, decision.runner_up
    again = Flips(job, facts, price, decision.outcomes)
    below = rungs(job, facts, next((p.estimate for p in decision.priced), None))
    return Plan(
        verdict=_verdict(job, facts, decision, first_try(below)),
        runner_up=runner_up.id if runner_up else None,
        reasons=tuple(reasons(job, facts, winner)) if winner else (),
        rejected=decision.rejected,
        flips=() if brief else again.find(),
        warnings=(*warnings(job, facts, decision), *(overrides(job, facts, winner) if winner else ())),
        questions=() if brief else questions(job, facts, again.traced),
        need_bits=need_bits(job, facts),
        held_bits=_held_bits(job, winner),
        rungs=below,
        offers=offers(job, facts, winner, market),
        candidates=tuple(p.estimate for p in decision.priced),
        priors={p.id: quality(job, facts, p) for p in decision.priced},
        job=said,
        facts=facts,
        job_hash=job_identity(said),
        base_hash=facts.model.weights_hash,
        data_hash=content_hash(facts.data.files),
        hardware_hash=facts.device.identity_hash,
        rankwise_version=__version__,
    )


def _held_bits(job: Job, winner: Priced | None) -> float | None:
    if winner is None or winner.recipe.trains_weights:
        return None
    return winner.estimate.trainable_params * bits_per_parameter(job)


def with_known_goal(job: Job, facts: Facts) -> Job:
    """An unsure job takes its goal from the diagnosis, where that could tell (rule `style_or_knowledge`)."""
    if job.goal != "unsure" or facts.diagnosis is None or facts.diagnosis.conclusion == "cannot tell":
        return job
    knows = facts.diagnosis.conclusion in ("knowledge", "both")
    return job.model_copy(update={"goal": "knowledge" if knows else "instruction"})


def job_identity(job: Job) -> str:
    """Hash of a job, wherever its folder was."""
    return job.content_hash()


def _verdict(job: Job, facts: Facts, decision: Decision, first: tuple[str, ...]) -> Verdict:
    winner = decision.winner
    if winner is None:
        return Verdict(
            method="none",
            candidate=None,
            parallel=None,
            config=None,
            confidence="high",
            confidence_because="every way that may be taken breaks a hard rule",
            executable=False,
            first_try=first,
        )
    confidence, because = _confidence(job, facts, winner)
    return Verdict.model_validate(
        {
            "method": winner.candidate.method,
            "candidate": winner.id,
            "parallel": winner.candidate.parallel,
            "config": _watched(winner),
            "confidence": confidence,
            "confidence_because": because,
            "executable": carried_out(facts, winner),
            "first_try": first,
        }
    )


def _watched(winner: Priced) -> TrainConfig:
    """The configuration with the looks at general ability that its price was made for."""
    watch = winner.estimate.time.watch
    found = {"watch_steps": watch.steps, "watch_items": watch.items} if watch else {}
    return winner.candidate.config.model_copy(update=found)


def _confidence(job: Job, facts: Facts, winner: Priced) -> tuple[str, str]:
    """(high, medium or low; what it rests on)."""
    doubts = []
    if job.goal == "unsure":
        doubts.append("the goal is not known")
    if job.data.train is None:
        doubts.append("the data is described, not read")
    if soft(job, facts, winner) is not None:
        doubts.append("it is taken against a rule")
    if doubts:
        return "low", " and ".join(doubts)
    if facts.diagnosis is None and job.data.base_loss is None:
        return "medium", "what the base knows of the answers is assumed, not measured"
    room = winner.estimate.trainable_params * bits_per_parameter(job) / max(1.0, need_bits(job, facts))
    if room < threshold("capacity_suffices", "safe"):
        return "medium", f"it holds {room:.1f} times what is to be learned"
    return "high", f"need is measured, it holds {room:,.1f} times that, and its memory fits at the upper end"


def require_sound_method(job: Job, facts: Facts) -> None:
    """Raises JobError when the forced method has no such option, is not that of the adapter to go on from, or cannot
    recompute activations, when no layer has a targeted name, when the rank is beyond a targeted matrix, or when a
    forced way of spreading it is not possible; or what `require_sound_updates` raises.
    """
    require_trainable_tokens(job, facts)
    require_possible(job, facts)
    require_sound_updates(job, facts, configure(job, facts, takeable(job, facts)[0], Rung()))
    if job.method is None:
        return
    options = METHODS[job.method.name].options
    if foreign := [key for key in job.method.model_dump(exclude={"name"}, exclude_none=True) if key not in options]:
        raise JobError(
            f"method.{foreign[0]} is given, and {job.method.name} has no such option",
            expected=f"of it: {', '.join(options) or 'nothing'}",
            fix="remove it, or choose a method that has it",
        )
    require_same_adapter(job, facts)
    never = refused(job.method.name, "gradient_checkpointing")
    if never is not None and job.train.gradient_checkpointing:
        raise JobError(
            f"train.gradient_checkpointing does not go with {job.method.name}: {never.why}",
            fix="leave it out, or choose another method",
        )
    if job.method.r is None:
        return
    targets = targeted(facts.model, job.method.target_modules)
    limit = min((min(s.in_features, s.out_features) for s in targets), default=job.method.r)
    if job.method.r > limit:
        raise JobError(
            f"method.r is {job.method.r}, but the smallest targeted matrix of {facts.model.name} has rank {limit}",
            expected=f"a rank of 1 to {limit}",
        )
