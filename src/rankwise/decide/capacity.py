"""Need against capacity, in bits: what the data teaches, and what an adapter of some rank can hold."""

import math

from rankwise.decide.rulebook import threshold
from rankwise.methods import targeted
from rankwise.methods.lora import lora_params
from rankwise.records import Facts, Job


def bits_per_token(job: Job, facts: Facts) -> tuple[float, str]:
    """(bits that the base does not know in a supervised token, how that is known): said in the job, measured by a
    diagnosis, or assumed.
    """
    if job.data.base_loss is not None:
        return job.data.base_loss / math.log(2), "as the job says"
    if facts.diagnosis is not None:
        return facts.diagnosis.base_loss.value / math.log(2), "measured by `rankwise diagnose`"
    return threshold("need_bits", "assumed"), "assumed; `rankwise diagnose` measures it"


def need_bits(job: Job, facts: Facts) -> float:
    """Bits to be learned from the rows: unique supervised tokens x nats that the base does not know / ln 2."""
    return facts.data.supervised_tokens * bits_per_token(job, facts)[0]


def bits_per_parameter(job: Job) -> float:
    return threshold("capacity_suffices", "bits_facts" if job.goal == "knowledge" else "bits")


def rank_for(job: Job, facts: Facts, target_modules: str | tuple[str, ...] | None, *, roomy: bool = True) -> int:
    """The smallest power of two whose adapter safely holds what is to be learned (rule `capacity_suffices`): not below
    the floor of the kind of job, not above the narrowest targeted matrix nor half the hidden size.

    Args:
        roomy: code and math take the higher of their two floors, where memory allows.
    """
    least = floor_of(job, roomy=roomy)
    safe = threshold("capacity_suffices", "safe")
    wanted = safe * need_bits(job, facts) / (bits_per_parameter(job) * lora_params(facts.model, 1, target_modules))
    smallest = power_of_two_below(wanted)
    possible = most_rank(facts, target_modules)
    return min(max(least, smallest if smallest >= wanted else 2 * smallest), max(possible, 1))


def most_rank(facts: Facts, target_modules: str | tuple[str, ...] | None) -> int:
    """The highest rank that the targets can have, as a power of two."""
    shapes = targeted(facts.model, target_modules)
    sides = [min(s.in_features, s.out_features) for s in shapes]
    most = threshold("rank", "most")
    narrowest = min((side for side in sides if side > 1), default=most)  # a side of 1 is a gate, no matrix
    return power_of_two_below(min(most, narrowest, facts.model.hidden_size / 2))


def floor_of(job: Job, *, roomy: bool = True) -> int:
    """The lowest rank of a kind of job."""
    if job.data.domain in ("code", "math"):
        return int(threshold("rank", "code_math_roomy" if roomy else "code_math"))
    formats = job.format is not None and job.goal in ("instruction", "unsure")
    return int(threshold("rank", "format" if formats else "instruction"))


def power_of_two_below(value: float) -> int:
    """The largest power of two that is at most `value`, and at least 1."""
    return 1 << int(math.log2(max(1.0, value)))
