"""What the owner's own comparisons move in a call, and what they do not."""

from typing import Any

import pytest

from rankwise.decide.cautions import warnings
from rankwise.decide.comparisons import earned, finding, prefers, shown_better, widest
from rankwise.decide.configure import Rung, configure
from rankwise.decide.preference import takeable
from rankwise.decide.reasons import reasons
from rankwise.decide.recipes import BY_NAME
from rankwise.decide.verdicts import decide
from rankwise.records import Facts, Job, PastArm, PastComparison
from tests.builders import a100, data_facts, facts, job, past, past_comparison, past_contrast
from tests.decide import worlds

GPU = facts(device=a100())


def knowing(*found: PastComparison, seen: Facts = GPU, **changes: Any) -> Facts:
    return seen.model_copy(update={"past": past(*found, **changes)})


def order(job: Job, seen: Facts) -> list[str]:
    return [recipe.name for recipe in takeable(job, seen)]


def with_arm(method: str, *contrasts: Any) -> PastComparison:
    plain = past_comparison(*contrasts)
    arm = PastArm(name=method, method=method, r=8, learning_rate=3e-4, tried=3, at_the_edge=False, steps=40)
    return plain.model_copy(update={"arms": (*plain.arms, arm)})


# -- which method comes first ----------------------------------------------------------------------


def test_the_method_that_is_shown_better_comes_first() -> None:
    assert order(job(), GPU)[:3] == ["lora", "qlora", "full"]
    assert order(job(), knowing())[:4] == ["full", "full-8bit", "lora", "qlora"]


def test_lora_shown_better_comes_before_full_even_where_it_holds_less() -> None:
    much = facts(data=data_facts(20_000_000), device=a100())
    assert order(job(), much)[0] == "full"
    assert order(job(), knowing(past_comparison(past_contrast("worse")), seen=much))[0] == "lora"


@pytest.mark.parametrize(
    "entry",
    [
        past_comparison(past_contrast("cannot tell")),
        past_comparison(past_contrast(side="facts")),
        past_comparison(past_contrast(seeds=1)),
        past_comparison(goal="knowledge"),
        past_comparison(domain="code"),
    ],
    ids=["cannot tell", "another side", "one seed", "another goal", "another domain"],
)
def test_nothing_else_moves_the_order(entry: PastComparison) -> None:
    assert order(job(), knowing(entry)) == order(job(), GPU)


def test_each_goal_asks_its_own_side() -> None:
    entry = past_comparison(past_contrast("worse"), past_contrast(side="facts"), goal="knowledge")
    assert order(job(goal="knowledge"), knowing(entry))[0] == "full"


def test_a_forced_method_still_wins() -> None:
    forced = job(method="lora")
    assert order(forced, knowing())[0] == "lora"


def test_the_newest_comparison_that_compared_it_counts() -> None:
    newer, older = past_comparison(past_contrast("cannot tell"), at="2026-12-01T00:00:00+00:00"), past_comparison()
    assert order(job(), knowing(newer, older)) == order(job(), GPU)


def test_one_arm_of_a_method_is_not_the_method() -> None:
    """Full beats LoRA of rank 8, and nothing is shown of LoRA of rank 64."""
    plain = past_comparison()
    arm = plain.arms[1].model_copy(update={"name": "lora:r=64", "r": 64})
    one = plain.model_copy(update={"arms": (*plain.arms, arm)})
    assert shown_better(job(), knowing(one), "lora") is None
    both = one.model_copy(update={"contrasts": (*one.contrasts, past_contrast(second="lora:r=64"))})
    assert shown_better(job(), knowing(both), "lora") is not None


def test_an_untrained_arm_puts_no_method_behind_another() -> None:
    entry = past_comparison(past_contrast(first="base"))
    assert shown_better(job(), knowing(entry), "lora") is None


@pytest.mark.parametrize(("seeds", "taken"), [(3, True), (2, False)])
def test_a_variant_is_earned_with_three_seeds(seeds: int, taken: bool) -> None:
    seen = knowing(with_arm("dora", past_contrast(first="dora", seeds=seeds)))
    assert earned(job(), seen, "dora") == taken
    assert (order(job(), seen)[0] == "dora") == taken


# -- which rate ------------------------------------------------------------------------------------


def rate(seen: Facts, recipe: str = "lora", **changes: Any) -> float:
    return configure(job(**changes), seen, BY_NAME[recipe], Rung()).learning_rate


def test_a_swept_rate_takes_the_place_of_the_prior() -> None:
    assert (rate(knowing()), rate(knowing(), "full")) == (7e-4, 4e-5)
    assert rate(knowing()) != rate(GPU)
    assert rate(knowing(), "dora") == rate(GPU, "dora")  # not compared
    assert rate(knowing(), train={"learning_rate": 1e-5}) == 1e-5


def test_a_rate_that_nobody_swept_is_no_evidence() -> None:
    plain = past_comparison()
    arms = tuple(arm.model_copy(update={"tried": 1}) for arm in plain.arms)
    assert rate(knowing(plain.model_copy(update={"arms": arms}))) == rate(GPU)


def test_the_rank_that_the_job_forces_picks_the_arm() -> None:
    plain = past_comparison()
    arm = plain.arms[1].model_copy(update={"name": "lora:r=64", "r": 64, "learning_rate": 2e-4})
    seen = knowing(plain.model_copy(update={"arms": (*plain.arms, arm)}))
    assert rate(seen) == 7e-4
    assert rate(seen, method={"name": "lora", "r": 64}) == 2e-4


def test_it_is_not_cut_for_what_a_prior_expects_to_be_forgotten() -> None:
    roomy, small = {"budget_nats": 10.0}, {"budget_nats": 0.001}
    assert rate(GPU, forgetting=small) < rate(GPU, forgetting=roomy)
    assert rate(knowing(), forgetting=small) == rate(knowing(), forgetting=roomy) == 7e-4
    _, warned, _ = told(
        job(forgetting=small), knowing(past_comparison(past_contrast("cannot tell")), seen=worlds.world())
    )
    assert any("your own comparison chose another; watch the general loss" in w for w in warned)


# -- what is said ----------------------------------------------------------------------------------


def told(job: Job, seen: Facts) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """(reasons by rule, warnings, rejections by candidate) of a call."""
    decision = decide(job, seen, worlds.climbed(job, seen))
    assert decision.winner is not None
    said = {r.rule: r for r in reasons(job, seen, decision.winner)}
    return said, warnings(job, seen, decision), {r.method: r for r in decision.rejected}


def test_a_call_that_it_moves_says_so() -> None:
    said, warned, lost = told(job(), knowing(seen=worlds.world()))
    cited = said["own_comparison"]
    assert "Your comparison of 2026-11-23 (/runs/compare-clinic) on this base" in cited.text
    assert cited.number == "full over lora:r=8 on style: +12 points [+3 to +21]"
    assert cited.evidence[-1] == "comparison of 2026-11-23 (/runs/compare-clinic)"
    assert "capacity_suffices" not in said
    assert lost["lora-r8"].rule == "own_comparison"
    chosen = said["learning_rate"]
    assert chosen.number == "4e-05 of 3 rates; it was the lowest or highest of them, so sweep further"
    assert "in runs of 30 steps" in chosen.text
    assert not any("forces" in w for w in warned)


def test_cannot_tell_is_cited_and_moves_nothing() -> None:
    entry = past_comparison(past_contrast("cannot tell"))
    said, _, lost = told(job(), knowing(entry, seen=worlds.world()))
    assert "on style it cannot tell them apart" in said["own_comparison"].text
    assert said["own_comparison"].number == "full over lora:r=8 on style: +12 points [-2 to +21], cannot tell"
    assert "own_comparison" not in {r.rule for r in lost.values()}


def test_forcing_the_loser_warns() -> None:
    _, warned, _ = told(job(method="lora"), knowing(seen=worlds.world()))
    assert any("the job forces lora, and your comparison of 2026-11-23" in w for w in warned)


def test_forcing_the_winner_is_no_fault() -> None:
    forced = job(method="full")
    assert any("against the rule adapter_suffices" in w for w in worlds.plan_of(forced, worlds.world()).warnings)
    seen = knowing(seen=worlds.world())
    assert not any("adapter_suffices" in w for w in worlds.plan_of(forced, seen).warnings)


def test_what_is_not_used_is_said() -> None:
    seen = worlds.world()
    unlike = knowing(
        past_comparison(goal="task", domain="code"), seen=seen, elsewhere=("pythia", "pythia"), unreadable=2
    )
    said, warned, _ = told(job(), unlike)
    assert "own_comparison" not in said
    assert "2 earlier comparisons were not used: made on other base weights (pythia)" in warned
    assert "an earlier comparison on this base was not used: of another kind of data (goal: task, code)" in warned
    assert "2 lines of the file of comparisons cannot be read" in warned


def test_two_sides_are_two_findings() -> None:
    entry = past_comparison(past_contrast("cannot tell"), past_contrast(side="facts"))
    assert finding(entry) == "on style it cannot tell them apart; on facts nobody is shown to beat full"
    assert widest(job(goal="knowledge"), entry) == "full over lora:r=8 on facts: +12 points [+3 to +21]"
    assert prefers(job(), knowing(past_comparison()), "full")
    assert not prefers(job(), knowing(entry), "full")
