"""The ladder of a recipe: the quickest rung that runs, what was not worth pricing, and how much is priced."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.decide.configure import Rung
from rankwise.decide.exclusions import first_broken
from rankwise.decide.ladder import Outcome, climb_all, climb_one, place_all
from rankwise.decide.preference import compared, takeable
from rankwise.decide.recipes import BY_NAME, RECIPES
from rankwise.records import Facts, Job
from tests import builders
from tests.builders import job
from tests.decide import worlds

TAKEN = [r.name for r in RECIPES if r.kind == "usual"]


def climb(recipe: str, wanted: Job | None = None, facts: Facts | None = None) -> Outcome:
    (found,) = climb_all(wanted or job(), facts or worlds.world(), [BY_NAME[recipe]], worlds.real_prices)
    return found


def upper(outcome: Outcome, candidate: str) -> float:
    return next(p.estimate.memory.interval[1] for p in outcome.priced if p.id == candidate)


def test_with_room_the_plain_rung_is_taken_and_one_beyond_it_is_priced() -> None:
    found = climb("lora")
    assert [p.id for p in found.priced] == ["lora-r8", "lora-r8-checkpointing"]
    assert found.best and found.best.id == "lora-r8" and not found.rejected
    assert [p.id for p in climb("full-8bit").priced] == ["full-8bit"]  # nobody compares its rungs


def test_with_less_room_fewer_rows_go_at_once_before_anything_is_computed_twice() -> None:
    plain = climb("lora", facts=worlds.world(worlds.SMALL))
    less = worlds.world(worlds.SMALL, device=worlds.card(int(upper(plain, "lora-r8")) - 1))
    found = climb("lora", facts=less)
    assert found.best and not found.best.candidate.config.gradient_checkpointing
    assert found.best.candidate.config.per_device_train_batch_size < 8
    assert found.best.candidate.config.effective_batch == plain.priced[0].candidate.config.effective_batch
    assert found.best.estimate.memory.fits and not found.priced[0].estimate.memory.fits


def test_recomputation_comes_where_fewer_rows_are_not_enough() -> None:
    wanted = job(train={"per_device_train_batch_size": 8})
    room = worlds.world(worlds.SMALL)
    plain, again = (upper(climb("lora", wanted, room), name) for name in ("lora-r8", "lora-r8-checkpointing"))
    assert again < plain
    less = worlds.world(worlds.SMALL, device=worlds.card(int((plain + again) / 2)))
    found = climb("lora", wanted, less)
    assert found.best and found.best.id == "lora-r8-checkpointing"


@pytest.mark.parametrize("said", [True, False])
def test_recomputation_that_the_job_decides_is_not_varied(said: bool) -> None:
    wanted = job(train={"gradient_checkpointing": said})
    for facts in (worlds.world(), worlds.world(device=worlds.card(600_000_000))):
        for recipe in ("lora", "full"):
            assert {p.candidate.config.gradient_checkpointing for p in climb(recipe, wanted, facts).priced} == {said}


def test_a_batch_that_the_job_decides_is_not_varied() -> None:
    wanted = job(train={"per_device_train_batch_size": 4})
    found = climb("lora", wanted, worlds.world(device=worlds.card(600_000_000)))
    assert found.best is None and {p.candidate.config.per_device_train_batch_size for p in found.priced} == {4}


def test_code_takes_the_higher_rank_where_it_fits_and_the_lower_one_where_it_does_not() -> None:
    wanted = job(data={"examples": 9, "domain": "code"})
    roomy = climb("lora", wanted, worlds.world(worlds.SMALL))
    assert roomy.best and roomy.best.candidate.config.r == 128  # 256 is wished, 192 is the narrowest target
    low = climb("lora", job(method={"name": "lora", "r": 64}), worlds.world(worlds.SMALL))
    leanest = climb("lora", job(method={"name": "lora", "r": 64}), worlds.world(worlds.SMALL, device=worlds.card(1)))
    assert low.best and leanest.best is None
    size = next(p for p in leanest.priced if p.id.endswith("checkpointing-b1")).estimate.memory.interval[1]
    found = climb("lora", wanted, worlds.world(worlds.SMALL, device=worlds.card(int(size) + 1)))
    assert found.best and found.best.candidate.config.r == 64


def test_what_cannot_fit_by_its_states_is_priced_once_at_its_leanest() -> None:
    facts = builders.facts(builders.llama3_8b(), device=builders.a100())
    counted = worlds.Counted()
    (found,) = climb_all(job(), facts, [BY_NAME["full"]], counted)
    assert [r.rule for r in found.rejected] == ["states_fit"] and found.best is None
    assert counted.ids == ["full-checkpointing-b1"]


def test_a_budget_that_breaks_where_memory_fits_ends_the_climb() -> None:
    counted = worlds.Counted()
    (found,) = climb_all(job(budget={"hours": 1e-6}), worlds.world(), [BY_NAME["lora"]], counted)
    assert found.best is None and counted.ids == ["lora-r8"]


def test_several_devices_are_tried_with_whole_copies_before_shards() -> None:
    found = climb("lora", facts=worlds.world(device=worlds.card(count=2)))
    assert found.best and found.best.candidate.parallel == "ddp"
    assert "fsdp" in {p.candidate.parallel for p in found.priced}
    assert {p.candidate.parallel for p in climb("lora").priced} == {"none"}


def test_shards_are_taken_where_a_copy_does_not_fit() -> None:
    llama = builders.facts(builders.llama3_8b(), builders.data_facts(2000, 64), builders.a100(count=8))
    found = climb("full", facts=llama)
    assert found.best and found.best.candidate.parallel in ("zero2", "fsdp", "zero3")
    assert {r.rule for r in found.rejected} == {"states_fit"}


def test_an_optimizer_in_the_backward_pass_stays_on_one_device() -> None:
    found = climb("full-backward", facts=worlds.world(device=worlds.card(count=2)))
    assert not found.priced and [r.rule for r in found.rejected] == ["works_together"]


# -- all recipes together --------------------------------------------------------------------------


def test_recipes_are_priced_together_in_rounds() -> None:
    counted, facts = worlds.Counted(), worlds.world()
    outcomes = climb_all(job(), facts, takeable(job(), facts), counted)
    assert [o.recipe.name for o in outcomes] == [r.name for r in takeable(job(), facts)]
    assert len(counted.asked) <= 3 and len(counted.asked[0]) == len(outcomes)
    assert sorted(counted.ids) == sorted(p.id for o in outcomes for p in o.priced)
    assert len(set(counted.ids)) == len(counted.ids)


def test_a_plan_prices_as_many_candidates_as_it_shows_and_no_more_than_thirty() -> None:
    from rankwise.decide.choose import choose

    for device, most in ((worlds.card(), 20), (worlds.card(640_000_000), 30), (builders.laptop(), 14)):
        counted, facts = worlds.Counted(), worlds.world(device=device)
        plan = choose(job(), facts, counted)
        shown = {c.id for c in plan.candidates}
        assert len(shown) == len(plan.candidates) <= most
        assert shown <= set(counted.ids)


def test_what_is_compared_is_priced_once_beside_the_call() -> None:
    facts, counted = worlds.world(), worlds.Counted()
    best = climb("lora").best
    outcomes = place_all(job(), facts, compared(job(), facts), counted, best)
    assert all(len(o.priced) + len(o.rejected) == 1 for o in outcomes)
    assert all(bool(o.rejected) == (o.recipe.kind == "unkept") for o in outcomes)
    for outcome in outcomes:
        for priced in outcome.priced:
            config, beside = priced.candidate.config, best.candidate.config if best else None
            assert beside and config.r in (None, beside.r)
            rows = 1 if outcome.recipe.trains_weights else beside.per_device_train_batch_size  # 1: its leanest rung
            assert config.per_device_train_batch_size == rows


@settings(max_examples=25, deadline=None)
@given(
    st.integers(*worlds.SCARCE),
    st.sampled_from([1, 2]),
    st.sampled_from(TAKEN),
    st.sampled_from([240, 20_000]),
)
def test_the_short_climb_finds_a_rung_where_the_whole_one_does(memory: int, count: int, recipe: str, rows: int) -> None:
    """Flips ask the short one."""
    facts = worlds.world(rows=rows, device=worlds.card(memory, count))
    short = climb_one(job(), facts, BY_NAME[recipe], worlds.real_prices)
    assert (short.best is None) == (climb(recipe, facts=facts).best is None)


def test_the_short_climb_knows_that_accumulation_may_take_more_than_a_whole_batch_at_once() -> None:
    """Gradients of 135M weights outlast a pass when the next one follows; those of one pass replace activations."""
    rung = {"gradient_checkpointing": True}
    whole, single = (
        worlds.priced("full-8bit", facts=worlds.world(worlds.SMALL), rung=Rung(micro_batch=n, **rung))
        for n in (None, 1)
    )
    needs, more = (p.estimate.memory.interval[1] for p in (whole, single))
    assert needs < more
    facts = worlds.world(worlds.SMALL, device=worlds.card(int((needs + more) / 2)))
    assert climb("full-8bit", facts=facts).best is not None
    assert climb_one(job(), facts, BY_NAME["full-8bit"], worlds.real_prices).best is not None


@settings(max_examples=25, deadline=None)
@given(st.integers(*worlds.SCARCE), st.integers(0, 10**9), st.sampled_from([1, 2]), st.sampled_from(TAKEN))
def test_more_memory_never_makes_a_runnable_recipe_unrunnable(memory: int, more: int, count: int, recipe: str) -> None:
    little, much = (climb(recipe, facts=worlds.world(device=worlds.card(m, count))) for m in (memory, memory + more))
    assert little.best is None or much.best is not None
    runs = {
        p.id for p in little.priced if first_broken(job(), worlds.world(device=worlds.card(memory, count)), p) is None
    }
    lost = {p.id for p in much.priced if not p.estimate.memory.fits}
    assert not runs & lost


def names(found: Any) -> list[str]:
    return [p.id for o in found for p in o.priced]


def test_candidates_have_different_names() -> None:
    for device in (worlds.card(), worlds.card(640_000_000), worlds.card(count=2), builders.laptop()):
        for wanted in (job(), job(data={"examples": 9, "domain": "code"}), job(method="full")):
            facts = worlds.world(device=device)
            found = names(worlds.climbed(wanted, facts))
            assert len(found) == len(set(found))
