"""Need against capacity, in bits: what the data teaches, and what an adapter of some rank can hold."""

import math

from rankwise.methods import targeted
from rankwise.records import Facts, Job

# Bits an adapter parameter can hold: 1 for text by planning (E6), 0.5 for facts seen fewer than 100 times (E14, X2).
BITS_PER_PARAMETER = {"knowledge": 0.5}
# Nats per supervised token that the base does not yet know. Unknown before it is measured; 2 is plain English under
# the embedded base.
ASSUMED_NATS_PER_TOKEN = 2.0
# An adapter is sized to hold what the data teaches; where it cannot hold half of that, it is the wrong tool.
WANTED_HEADROOM = 1.0
LEAST_HEADROOM = 0.5
# Published sweeps end at 512, and half the hidden size is where two thin matrices stop being thin.
HIGHEST_RANK = 512


def need_bits(job: Job, facts: Facts) -> float:
    """Bits to be learned from the rows: unique supervised tokens x assumed nats / ln 2."""
    return facts.data.supervised_tokens * ASSUMED_NATS_PER_TOKEN / math.log(2)


def bits_per_parameter(job: Job) -> float:
    return BITS_PER_PARAMETER.get(job.goal, 1.0)


def rank_for(job: Job, facts: Facts, least: int, target_modules: str | tuple[str, ...] | None) -> int:
    """The smallest power of two, at least `least`, whose adapter holds what is to be learned, and no more than the
    narrowest targeted matrix can have.
    """
    shapes = targeted(facts.model, target_modules)
    per_rank = sum((s.in_features + s.out_features) * s.count for s in shapes)
    wanted = WANTED_HEADROOM * need_bits(job, facts) / (bits_per_parameter(job) * per_rank)
    sides = [min(s.in_features, s.out_features) for s in shapes]
    possible = min((side for side in sides if side > 1), default=HIGHEST_RANK)  # a side of 1 is a gate, no matrix
    ceiling = max(least, min(HIGHEST_RANK, power_of_two_below(min(possible, facts.model.hidden_size / 2))))
    smallest = power_of_two_below(wanted)
    return min(ceiling, max(least, smallest if smallest >= wanted else 2 * smallest))


def power_of_two_below(value: float) -> int:
    """The largest power of two that is at most `value`, and at least 1."""
    return 1 << int(math.log2(max(1.0, value)))
