"""What a run is expected to forget, against the budget: rule `forgetting_budget`. A prior; the run measures it."""

from rankwise.decide.rulebook import threshold
from rankwise.records import Job

RULE = "forgetting_budget"
FIFTH = 0.2  # the share of replayed rows that X4 was measured at


def expected_rise(trains_weights: bool, replay: float) -> float:
    """Nats by which general loss is expected to rise at the planned learning rate.

    E12's anchors without replay; between no replay and a fifth of the rows (X4) the kept share falls in proportion.
    """
    rise = threshold(RULE, "full" if trains_weights else "adapter")
    kept = 1 - (1 - threshold(RULE, "replay_keeps")) * min(1.0, replay / FIFTH)
    return rise * kept


def spares(job: Job) -> bool:
    """Is an adapter taken before full fine-tuning for what it spares (rule `adapter_forgets_less`)?"""
    small = job.forgetting.budget_nats < threshold("adapter_forgets_less", "far")
    return small and job.data.domain in ("code", "language") and not job.forgetting.replay_allowed


def cut_of(job: Job, trains_weights: bool, replay: float) -> float:
    """By how much the learning rate is cut: the rule's factor where the expected rise is red, else 1."""
    red = threshold(RULE, "red") * job.forgetting.budget_nats
    return threshold(RULE, "cut") if expected_rise(trains_weights, replay) > red else 1.0
