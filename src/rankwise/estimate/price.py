"""One candidate -> one Estimate. The four groups of numbers are computed in the files beside this one."""

from rankwise.estimate.memory import estimate_memory
from rankwise.estimate.storage import estimate_serving, estimate_storage
from rankwise.estimate.time import estimate_time
from rankwise.methods import METHODS
from rankwise.records import Candidate, Estimate, Facts, Job, MoneyEstimate

SOURCES = {
    "memory": "simple formula (docs/formulas.md), not a trace: read the interval, which was set on two CPU cores",
    "time": "simple formula: FLOPs / (matmul rate x efficiency); the interval is a factor of two either way",
    "money": "device price per hour x seconds; unknown where the price is",
    "storage": "bytes per trained parameter, exact up to file headers",
    "serving": "weights only, no KV cache",
}


def price(job: Job, facts: Facts, candidate: Candidate) -> Estimate:
    """Price one candidate on the facts' device. Bytes are per device."""
    method = METHODS[candidate.method]
    trainable = method.trainable_params(facts.model, candidate.config)
    added = 0 if method.trains == "weights" else trainable
    time = estimate_time(facts, candidate.config, method, trainable)
    return Estimate(
        id=candidate.id,
        model=facts.model.name,
        method=candidate.method,
        trainable_params=trainable,
        total_params=facts.model.total_params + added,
        memory=estimate_memory(facts, candidate.config, method, trainable),
        time=time,
        money=_money(facts, time.train_seconds, time.interval),
        storage=estimate_storage(facts, candidate.config, method, trainable),
        serving=estimate_serving(facts, method, trainable, job.variants),
        sources=SOURCES,
        notes=(),
    )


def _money(facts: Facts, seconds: float | None, interval: tuple[float, float] | None) -> MoneyEstimate:
    per_hour = facts.device.usd_per_hour
    if per_hour is None or seconds is None or interval is None:
        return MoneyEstimate(train_usd=None, interval=None)
    rate = per_hour * facts.device.count / 3600
    return MoneyEstimate(train_usd=seconds * rate, interval=(interval[0] * rate, interval[1] * rate))
