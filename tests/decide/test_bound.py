"""The bound without a trace is never above the traced peak: what it rules out could not have fitted."""

import pytest

from rankwise.decide.bound import least_bytes
from rankwise.decide.configure import Rung
from rankwise.decide.ladder import candidate_of
from rankwise.decide.recipes import BY_NAME, RECIPES
from rankwise.records import Facts, ModelFacts
from rankwise.records.setup import Parallel
from tests import builders
from tests.decide import worlds

TRACED = [r.name for r in RECIPES if r.kind != "unkept"]
UNTIED = builders.llama(name="untied", layers=3, hidden=256, intermediate=640, kv=128, vocab=6000, tied=False)


def ways(recipe: str, count: int) -> tuple[Parallel, ...]:
    found = BY_NAME[recipe]
    return found.shards if count > 1 or found.offload != "none" else ("none",)


CASES = [
    (recipe, model, count, parallel)
    for recipe in TRACED
    for model in (worlds.TINY, UNTIED)
    for count in (1, 2)
    for parallel in ways(recipe, count)
]


def test_there_are_cases_of_every_recipe_and_way() -> None:
    assert len(CASES) >= 60
    assert {c[0] for c in CASES} == set(TRACED)
    assert {c[3] for c in CASES} == {"none", "ddp", "zero2", "zero3", "fsdp"}


@pytest.mark.parametrize(
    ("recipe", "model", "count", "parallel"), CASES, ids=lambda v: v.name if isinstance(v, ModelFacts) else str(v)
)
def test_the_bound_is_not_above_the_traced_peak(recipe: str, model: ModelFacts, count: int, parallel: Parallel) -> None:
    facts = worlds.world(model, device=worlds.card(count=count))
    rung = Rung(parallel=parallel, offload=BY_NAME[recipe].offload, micro_batch=1)
    found = worlds.priced(recipe, facts=facts, rung=rung)
    assert least_bytes(facts, found.candidate) <= found.estimate.memory.peak_allocated


@pytest.mark.parametrize("recipe", ["lora", "qlora", "full", "full-8bit", "full-bf16"])
def test_the_bound_is_most_of_the_peak_where_states_are_most_of_it(recipe: str) -> None:
    """A bound that is far too low would rule nothing out."""
    facts = builders.facts(builders.smollm2(), builders.data_facts(length=16), worlds.card())
    found = worlds.priced(recipe, facts=facts, rung=Rung(micro_batch=1, gradient_checkpointing=True))
    assert least_bytes(facts, found.candidate) > 0.35 * found.estimate.memory.peak_allocated


def bound(recipe: str, facts: Facts, parallel: Parallel = "none") -> float:
    return least_bytes(facts, candidate_of(builders.job(), facts, BY_NAME[recipe], Rung(parallel=parallel)))


def test_the_textbook_sums() -> None:
    facts = builders.facts(builders.llama3_8b(), device=builders.a100())
    weights = facts.model.total_params
    assert bound("full", facts) == 16 * weights  # fp32 weights and gradients, two fp32 states
    assert bound("full-8bit", facts) == 10 * weights
    assert bound("full-bf16", facts) == 8 * weights
    assert bound("full-backward", facts) == 2 * weights  # no gradients, paged states
    assert bound("lora", facts) == 2 * weights + 16 * 8 * 2_621_440
    four_bit = facts.model.linear_params * 0.5
    assert four_bit < bound("qlora", facts) < bound("lora", facts) / 2


def test_sharding_divides_the_bound() -> None:
    facts = builders.facts(builders.llama3_8b(), device=builders.a100(count=4))
    weights = facts.model.total_params
    assert bound("full", facts, "ddp") == 16 * weights
    assert bound("full", facts, "fsdp") == 16 * weights / 4
    # DeepSpeed holds 16-bit weights, and in fp32 a master copy and two states
    assert bound("full", facts, "zero3") == 14 * weights / 4
    assert bound("full", facts, "zero2") == 2 * weights + 12 * weights / 4
