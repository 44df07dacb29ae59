"""Which arm of a case stands for a call.

1. The call's first rung (retrieval, prompting, nothing) where an arm has it: the first thing it would do.
2. Arms of the very method. Without one, arms of a near-equivalent method, and the row says so; else no arm stands for
   the call and it is a miss.
3. Among them, arms whose targets are of the same class: attention alone, or with the MLP. An unknown class fits all.
4. Then the nearest rank, |log2 of the ratio|; an unpublished rank is behind every published one.
5. Then the same kind of recipe: plain, or one that saves memory. Then the order of the file.
"""

import math

from benchmarks.decisions.call import Call
from benchmarks.decisions.case import Arm, Case
from rankwise.records.base import Record

# Same update by another scale or base: what was learned of one is the best that is known of the other. Ordered.
NEAR = {
    "lora": ("rslora", "dora", "qlora"),
    "rslora": ("lora", "dora", "qlora"),
    "dora": ("lora", "rslora", "qlora"),
    "qlora": ("lora", "rslora"),
    "prefix": ("p-tuning",),
    "prompt": ("p-tuning",),
}


class Standing(Record):
    """The arm that stands for a call, if one does."""

    arm: str | None
    how: str


def standing(case: Case, call: Call) -> Standing:
    """The arm by the rule above."""
    if call.rung is not None and (arms := of_method(case, call.rung)):
        return Standing(arm=arms[0].name, how=f"its first rung is {call.rung}")
    if arms := of_method(case, call.method):
        return Standing(arm=nearest(arms, call).name, how="same method")
    for near in NEAR.get(call.method, ()):
        if arms := of_method(case, near):
            return Standing(arm=nearest(arms, call).name, how=f"no arm of {call.method}; {near} is near-equivalent")
    return Standing(arm=None, how=f"no arm stands for {call.method}")


def of_method(case: Case, method: str) -> list[Arm]:
    return [arm for arm in case.arms if arm.method == method]


def nearest(arms: list[Arm], call: Call) -> Arm:
    """The first arm of the least distance. `arms` is not empty."""
    return min(arms, key=lambda arm: (other_targets(arm, call), rank_distance(arm, call), other_recipe(arm, call)))


def other_targets(arm: Arm, call: Call) -> bool:
    if arm.targets is None or call.targets is None:
        return False
    return (arm.targets == "attention") != (call.targets == "attention")


def rank_distance(arm: Arm, call: Call) -> float:
    if call.r is None:
        return 0.0
    return math.inf if arm.r is None else abs(math.log2(arm.r / call.r))


def other_recipe(arm: Arm, call: Call) -> bool:
    return (arm.recipe is None) != (call.recipe is None)
