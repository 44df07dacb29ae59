"""Findings of rates: gradients that jump, adapters that are not the planned ones, steps outside of the field's."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.decide.configure import Rung, configure
from rankwise.decide.recipes import BY_NAME
from rankwise.records import Event, ModelFacts, Plan
from rankwise.watch.rates import FIELD, effective_rate, gradient_spikes, planned_scale, scaling_changed
from tests import builders
from tests.builders import started, step

PLAN = builders.plan()
CONFIG = PLAN.verdict.config
assert CONFIG and CONFIG.r and CONFIG.lora_alpha


def configured(**changes: Any) -> Plan:
    verdict = PLAN.verdict.model_copy(update={"config": CONFIG.model_copy(update=changes)})
    return PLAN.model_copy(update={"verdict": verdict})


def norms(values: Sequence[float]) -> list[Event]:
    return [step(i, grad_norm=value) for i, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ((1.0,) * 9 + (10.0,), "warning"),
        ((1.0,) * 9 + (9.9,), None),
        ((50.0,) * 2 + (1.0,) * 9, None),  # the first five steps may be wild
        ((1.0,) * 8 + (10.0,), None),  # nine steps are too few
        ((0.0,) * 12, None),
        ((0.0,) * 11 + (1.0,), None),  # ten times nothing is nothing
        ((1.0,) * 12 + (10.0,) * 2, "warning"),
        ((1.0,) * 12 + (10.0,) * 3, "fault"),  # it stays there
        ((1.0,) * 12 + (10.0,) * 3 + (1.0,), "warning"),  # it came back
        (tuple(1.02**n for n in range(200)), None),  # grows slowly: 52 times in all, never a jump
    ],
)
def test_a_gradient_spike_is_ten_times_the_median_before_it(values: tuple[float, ...], level: str | None) -> None:
    finding = gradient_spikes(PLAN, norms(values))
    assert (finding and finding.level) == level


def test_a_spike_is_told_with_its_step_and_whether_it_was_clipped() -> None:
    events = norms((1.0,) * 11 + (40.0, 1.0, 20.0))
    clipped, unclipped = (gradient_spikes(configured(max_grad_norm=n), events) for n in (1.0, 0.0))
    assert clipped and clipped.number == "2 of 14 steps, worst 40.00 at step 12, median 1.00"
    assert "clipping limited" in clipped.text
    assert unclipped and "clipping" not in unclipped.text and "train.max_grad_norm" in str(unclipped.advice)


@given(st.lists(st.floats(1.0, 9.9), max_size=80), st.floats(1e-6, 1e6))
def test_norms_within_a_factor_of_ten_never_are_spikes_in_any_unit(values: list[float], unit: float) -> None:
    assert gradient_spikes(None, norms([v * unit for v in values])) is None


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({"method": "lora", "r": 8, "lora_alpha": 16.0}, 2.0),
        ({"method": "qlora", "r": 64, "lora_alpha": 16.0}, 0.25),
        ({"method": "rslora", "r": 64, "lora_alpha": 16.0}, 2.0),
        ({"method": "full", "r": None, "lora_alpha": None}, None),
        ({"method": "prompt", "r": None, "lora_alpha": None}, None),
    ],
)
def test_the_scale_that_a_plan_means(changes: dict[str, Any], scale: float | None) -> None:
    config = configured(**changes).verdict.config
    assert config and planned_scale(config) == scale


R, SCALE = CONFIG.r, CONFIG.lora_alpha / CONFIG.r


@pytest.mark.parametrize(
    ("ran", "fires"),
    [
        ({"adapter_r": R, "adapter_scaling": SCALE}, False),
        ({"adapter_r": R, "adapter_scaling": SCALE * (1 + 1e-9)}, False),
        ({"adapter_r": R, "adapter_scaling": SCALE / 2}, True),
        ({"adapter_r": 2 * R, "adapter_scaling": SCALE}, True),
        ({"adapter_r": None, "adapter_scaling": None}, False),  # nobody looked
        ({"adapter_r": R, "adapter_scaling": None}, False),
    ],
)
def test_another_adapter_than_the_planned_one_is_a_fault(ran: dict[str, Any], fires: bool) -> None:
    finding = scaling_changed(PLAN, [started(**ran)])
    assert (finding and finding.level) == ("fault" if fires else None)


def test_what_ran_last_counts_and_without_plan_or_start_nothing_is_known() -> None:
    wrong, right = (started(adapter_r=R, adapter_scaling=s) for s in (SCALE / 2, SCALE))
    assert scaling_changed(PLAN, [wrong, right]) is None and scaling_changed(PLAN, [right, wrong])
    assert scaling_changed(None, [wrong]) is scaling_changed(PLAN, [step(1)]) is None
    assert scaling_changed(configured(r=None, lora_alpha=None), [wrong]) is None


def test_the_advice_keeps_the_planned_step() -> None:
    finding = scaling_changed(PLAN, [started(adapter_r=R, adapter_scaling=SCALE / 4)])
    assert finding and str(finding.advice).endswith("train.learning_rate x 4")


def rate(value: float, method: str = "lora", **changes: Any) -> str | None:
    finding = effective_rate(configured(method=method, learning_rate=value, **changes), [step(1)])
    return finding and ("high" if "higher" in finding.text else "low")


LOW, HIGH = FIELD["adapter"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (rate(2e-4), None),
        (rate(HIGH / 2, r=8, lora_alpha=16.0), "high"),
        (rate(HIGH / 2 * 0.99, r=8, lora_alpha=16.0), None),
        (rate(LOW * 4, "qlora", r=64, lora_alpha=16.0), None),
        (rate(LOW * 3.9, "qlora", r=64, lora_alpha=16.0), "low"),
        (rate(2e-5, "full", r=None, lora_alpha=None), None),
        (rate(3e-4, "full", r=None, lora_alpha=None), "high"),
        (rate(9e-7, "full", r=None, lora_alpha=None), "low"),
        (rate(30.0, "prompt", r=None, lora_alpha=None), None),  # nobody has swept it
    ],
)
def test_rate_times_scale_against_the_field(found: str | None, expected: str | None) -> None:
    assert found == expected


def test_the_scale_on_the_model_goes_before_the_planned_one() -> None:
    plan = configured(learning_rate=2e-4, r=8, lora_alpha=16.0)
    assert effective_rate(plan, [started(), step(1)]) is None
    found = effective_rate(plan, [started(adapter_r=8, adapter_scaling=32.0), step(1)])
    assert found and "2.0e-04 x 32 = 6.4e-03" in str(found.number)


def test_a_rate_is_judged_when_steps_are_taken_with_it() -> None:
    plan = configured(learning_rate=1.0)
    assert effective_rate(plan, [started()]) is None and effective_rate(None, [step(1)]) is None
    assert effective_rate(plan, [step(1)])


@given(st.floats(1e-8, 1.0), st.sampled_from([1, 2, 8, 64]), st.sampled_from([4.0, 16.0, 32.0]))
def test_following_the_advice_silences_it(value: float, r: int, alpha: float) -> None:
    plan = configured(learning_rate=value, r=r, lora_alpha=alpha)
    finding = effective_rate(plan, [step(1)])
    if finding:
        advised = float(str(finding.advice).rsplit(" ", 1)[1])
        assert effective_rate(configured(learning_rate=advised, r=r, lora_alpha=alpha), [step(1)]) is None


@pytest.mark.parametrize("model", [builders.smollm2(), builders.tiny(), builders.llama3_8b()], ids=lambda m: m.name)
@pytest.mark.parametrize("recipe", ["lora", "qlora", "full"])
def test_what_the_planner_plans_lies_in_the_field(model: ModelFacts, recipe: str) -> None:
    config = configure(builders.job(), builders.facts(model), BY_NAME[recipe], Rung())
    verdict = PLAN.verdict.model_copy(update={"config": config})
    assert effective_rate(PLAN.model_copy(update={"verdict": verdict}), [step(1)]) is None
