"""What a run is expected to forget, against the budget: rule `forgetting_budget`. A prior; the run measures it."""

from math import log, pow

from rankwise.decide.rulebook import threshold
from rankwise.records import Facts, Job

RULE = "forgetting_budget"
FIFTH = 0.2  # of the answer tokens replayed, where it was measured what that leaves of the rise
MOST_CUTS = 2  # a ninth of the rate: below it nothing was measured, and little is learned


def expected_rise(facts: Facts, trains_weights: bool, replay: float, cut: float = 1.0) -> float:
    """Nats by which general loss is expected to rise at the planned learning rate divided by `cut`.

    E12's anchors at 3B and X3's at 135M, without replay; between the two sizes a straight line in logarithms, beyond
    them the nearer one. From no replay to a fifth (X4, docs/log.md) what is left of it falls in proportion.
    """
    small, large = threshold(RULE, "small"), threshold(RULE, "large")
    size = min(max(facts.model.total_params, small), large)
    place = log(size / small) / log(large / small)
    if trains_weights:
        ends = threshold(RULE, "full_small"), threshold(RULE, "full")
    else:
        ends = threshold(RULE, "adapter_small"), threshold(RULE, "adapter")
    kept = 1 - (1 - threshold(RULE, "replay_keeps")) * min(1.0, replay / FIFTH)
    return pow(ends[0], 1 - place) * pow(ends[1], place) * kept * pow(cut, -threshold(RULE, "power"))


def spares(job: Job) -> bool:
    """Is an adapter taken before full fine-tuning for what it spares (rule `adapter_forgets_less`)?"""
    small = job.forgetting.budget_nats < threshold("adapter_forgets_less", "far")
    return small and job.data.domain in ("code", "language") and not job.forgetting.replay_allowed


def cut_of(job: Job, facts: Facts, trains_weights: bool, replay: float) -> float:
    """By how much the learning rate is cut: the rule's factor as often as the expected rise is red, at most twice.

    Not for knowledge: a third of the rate left the rise where it was and took 13 points off the facts (docs/log.md).
    """
    if job.goal == "knowledge":
        return 1.0
    red, cut = threshold(RULE, "red") * job.forgetting.budget_nats, 1.0
    for _ in range(MOST_CUTS):
        if expected_rise(facts, trains_weights, replay, cut) <= red:
            break
        cut *= threshold(RULE, "cut")
    return cut
