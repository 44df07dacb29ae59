"""The bill in words: every figure with its unit, every unknown said, and how to make it known."""

from typing import Any

import pytest

from rankwise.records import CostOptions, Estimate
from rankwise.report.bill_words import Line, bill
from tests.report.conftest import build_estimate

PRICED: dict[str, Any] = {
    "usd_per_hour": 2.0,
    "train_usd": 12.0,
    "interval": (9.6, 20.0),
    "runs": (10.0, 20.0),
    "failures_usd": 0.4,
    "project_usd": 186.0,
    "project_interval": (100.0, 410.0),
}


def changed(estimate: Estimate, group: str, **changes: Any) -> Estimate:
    return estimate.model_copy(update={group: getattr(estimate, group).model_copy(update=changes)})


def under(heading: str, lines: list[Line]) -> str:
    """The text of one heading."""
    found, inside = [], False
    for name, text in lines:
        inside = name == heading if name else inside
        if inside:
            found.append(text)
    return "\n".join(found)


def said(heading: str, estimate: Estimate, **costs: Any) -> str:
    return under(heading, bill(estimate, CostOptions(**costs)))


@pytest.mark.parametrize("method", ["lora", "full", "qlora"])
def test_headings_stand_once_and_in_order(method: str) -> None:
    lines = bill(build_estimate(method), CostOptions())
    assert [name for name, _ in lines if name] == ["Time", "Money", "Storage", "Serving", "Velocity"]
    assert lines[0][0] == "Time" and all(text and text == text.strip() for _, text in lines)


# -- time ------------------------------------------------------------------------------------------


def test_a_step_is_told_with_its_parts_and_its_rate() -> None:
    assert said("Time", build_estimate()).splitlines()[0] == (
        "4.3 s a step (forward 45 %, backward 54 %), 168 tokens/s"  # the optimizer's 1 % is left out
    )


def test_a_run_is_told_with_its_interval_and_what_is_beside_its_steps() -> None:
    assert said("Time", build_estimate()).splitlines()[1] == (
        "whole run 2 min 10 s (1.1 to 4.3 min), of which start 12 s, validations 14 s, checkpoints 0.1 s"
    )
    without = changed(build_estimate(), "time", evaluation_seconds=0.0)
    assert "validations" not in said("Time", without)


def test_a_run_of_unknown_length_asks_for_its_rows() -> None:
    text = said("Time", changed(build_estimate(), "time", train_seconds=None, interval=None))
    assert "4.3 s a step" in text and text.endswith("whole run: unknown without --examples")


def test_a_step_that_is_not_known_is_unknown() -> None:
    unknown = changed(
        build_estimate(), "time", step_seconds=None, step=None, tokens_per_second=None, train_seconds=None
    )
    unknown = changed(unknown, "velocity", turnaround_seconds=None, runs_per_week=None)
    assert said("Time", unknown) == "unknown"
    assert said("Velocity", unknown) == "unknown"


# -- money -----------------------------------------------------------------------------------------


def test_money_is_told_for_a_run_and_for_all() -> None:
    assert said("Money", changed(build_estimate(), "money", **PRICED)).splitlines() == [
        "one run 12.00 USD (9.60 to 20.00 USD) at 2.00 USD a device-hour, on demand",
        "10 to 20 runs until it is right 186.00 USD (100.00 to 410.00 USD), of which failures and restarts 6.00 USD",
    ]


def test_one_number_of_runs_is_no_range() -> None:
    estimate = changed(build_estimate(), "money", **(PRICED | {"runs": (5.0, 5.0)}))
    text = said("Money", estimate, pricing="spot")
    assert "5 runs until" in text and "5 to 5" not in text and "failures and restarts 2.00 USD" in text
    assert "a device-hour, spot" in text


def test_without_a_price_a_file_of_prices_is_asked_for() -> None:
    text = said("Money", build_estimate(), pricing="spot")
    assert text == "unknown: no spot price of this device is known; --prices FILE gives one"


def test_without_rows_the_price_of_an_hour_is_told() -> None:
    text = said("Money", changed(build_estimate(), "money", usd_per_hour=2.0))
    assert text == "one run: unknown without --examples; 2.00 USD a device-hour, on demand"


@pytest.mark.parametrize(("usd", "expected"), [(1.25, "1.25 USD"), (None, "price unknown")])
def test_electricity_is_told_where_it_was_asked_for(usd: float | None, expected: str) -> None:
    estimate = changed(build_estimate(), "money", **PRICED, energy_kwh=4.2, energy_usd=usd)
    last = said("Money", estimate).splitlines()[-1]
    assert "at most 4.2 kWh" in last and expected in last
    assert "kWh" not in said("Money", changed(build_estimate(), "money", **PRICED))


# -- storage ---------------------------------------------------------------------------------------


def test_storage_of_an_adapter() -> None:
    first, second = said("Storage", build_estimate(), keep_best=1, keep_last=2).splitlines()
    assert first == ("adapter 9.8 MB, merged 269 MB, resumable checkpoint 29.4 MB, written in 0.03 s at 1.0 GB/s")
    assert second == (
        "3 checkpoints, of which 3 stay (best 1, last 2): 368 MB at most, 368 MB if none were removed; "
        "under 0.01 USD a month for what is left"
    )


def test_storage_of_a_whole_model_has_no_adapter() -> None:
    text = said("Storage", build_estimate("full"))
    assert "adapter" not in text and "merged" not in text and "1.1 GB" in text


def test_checkpoints_of_a_run_of_unknown_length_are_not_counted() -> None:
    estimate = changed(
        build_estimate(), "storage", checkpoints=None, kept=None, unpruned_bytes=None, usd_per_month=None
    )
    text = said("Storage", estimate)
    assert "stay" not in text and "if none" not in text
    assert "unknown" in text and "None" not in text


# -- serving ---------------------------------------------------------------------------------------


def test_one_variant_is_one_merged_model() -> None:
    text = said("Serving", build_estimate())
    assert text == (
        "one merged model in bf16 269 MB, key-value cache of 8 x 4,096 tokens 755 MB: GPUs unknown, price unknown"
    )


def test_several_variants_are_told_as_adapters_and_as_copies() -> None:
    estimate = changed(
        build_estimate(),
        "serving",
        all_variants_bytes=318_010_552,
        copies_bytes=1_345_302_760,
        gpus=1,
        copies_gpus=2,
        usd_per_month=1440.0,
        copies_usd_per_month=2880.0,
        unmerged_penalty=(0.08, 0.5),
        break_even_variants=4,
        slots={
            "slots": 4,
            "zipf": 1.0,
            "hit_rate": 0.9,
            "interval": (0.88, 0.92),
            "miss_seconds": 0.002,
            "active_tenants": 3.0,
        },
    )
    estimate = Estimate.model_validate(estimate.model_dump())
    adapters, copies, penalty, slots = said("Serving", estimate, variants=5, serving_format="fp8").splitlines()
    assert adapters.startswith("5 adapters on one base in fp8 318 MB") and adapters.endswith(
        ": 1 GPU, 1,440 USD a month"
    )
    assert copies == "5 full copies 1.3 GB: 2 GPUs, 2,880 USD a month; adapters take fewer GPUs from 4 variants on"
    assert penalty == "unmerged adapters cost 8 to 50 % of the throughput"
    assert slots == (
        "4 slots: 90 % (88 to 92 %) of requests find their adapter there, a miss adds 0.002 s to the first token "
        "(popularity ~ rank^-1)"
    )


def test_a_break_even_that_is_not_known_is_said() -> None:
    text = said("Serving", build_estimate(), variants=5)
    assert "whether adapters ever take fewer GPUs is unknown" in text


def test_full_fine_tuning_serves_copies_alone() -> None:
    estimate = changed(
        build_estimate("full"), "serving", all_variants_bytes=5 * 269_060_552, copies_bytes=5 * 269_060_552
    )
    text = said("Serving", estimate, variants=5)
    assert text.startswith("5 full copies in bf16 1.3 GB") and "adapters" not in text


# -- velocity --------------------------------------------------------------------------------------


def test_velocity_is_told_by_week_and_by_dollar() -> None:
    text = said("Velocity", build_estimate())
    assert text == "a result after 2 min 24 s (1.2 to 4.8 min): 4,200 runs a week, one after the other"
    priced = said("Velocity", changed(build_estimate(), "velocity", runs_per_usd=0.08))
    assert priced == text + ", 0.08 runs a dollar"


def test_velocity_of_a_run_of_unknown_length_asks_for_its_rows() -> None:
    estimate = changed(build_estimate(), "velocity", turnaround_seconds=None, runs_per_week=None)
    assert said("Velocity", estimate) == "unknown without --examples"
