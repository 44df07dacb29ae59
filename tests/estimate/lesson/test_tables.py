"""The memory and cost tables: every number is that of an estimate, and the number of GPUs is the fewest."""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from rankwise import api
from rankwise.errors import JobError, UsageError
from rankwise.estimate.lesson.costtable import ROWS, cost_row, packed
from rankwise.estimate.lesson.desk import COUNTS, LARGE, MEDIUM, MODELS, RECIPES, STEP, Desk, recipe
from rankwise.estimate.lesson.memorytable import COUNTED, counted_row, memory_row
from rankwise.estimate.lesson.said import said_cost, said_memory, said_number
from rankwise.estimate.lesson.tables import assumptions, build_tables
from rankwise.records import Estimate


@cache
def desk() -> Desk:
    return Desk(lambda asked: api.estimate(**asked), lambda asked: api.plan(**asked))


def test_a_row_is_what_rankwise_estimate_says() -> None:
    row = memory_row(desk(), "8B", recipe("LoRA"))
    asked = api.estimate(model="llama-3-8b", method="lora", rank=16, gpu=LARGE, gradient_checkpointing=True)
    fit = next(f for f in row.fits if f.gpu == LARGE)
    assert (fit.gpus, fit.peak_device, fit.interval) == (1, asked.memory.peak_device, asked.memory.interval)
    assert (fit.parallel, fit.capacity) == ("none", asked.memory.capacity)
    assert (row.trainable_params, row.total_params) == (41_943_040, 8_072_204_288)


def test_state_is_weights_gradients_and_optimizer() -> None:
    base, adapter = 8_030_261_248, 41_943_040
    assert desk().state_bytes("llama-3-8b", recipe("LoRA")) == pytest.approx(2 * base + 16 * adapter, rel=0.002)
    assert desk().state_bytes("llama-3-8b", recipe("autocast")) == pytest.approx(16 * base, rel=0.002)


@pytest.mark.parametrize(("name", "gpu"), [("autocast", LARGE), ("ZeRO-3", MEDIUM), ("LoRA", MEDIUM)])
def test_one_count_less_does_not_fit(name: str, gpu: str) -> None:
    """Asked of the estimate itself, also where the table left the trace out."""
    way = recipe(name)
    fit, found = desk().fewest("llama-3-8b", way, gpu)
    assert fit.gpus is not None and found is not None and found.memory.fits
    for count in COUNTS[: COUNTS.index(fit.gpus)]:
        assert not desk().priced("llama-3-8b", way, gpu, count).memory.fits


def test_where_nothing_fits_the_answer_is_unknown_not_a_number() -> None:
    fit, found = desk().fewest(MODELS["70B"], recipe("autocast"), MEDIUM)
    assert (fit.gpus, fit.peak_device, fit.parallel, found) == (None, None, None, None)
    assert fit.tried == COUNTS[-1]


def test_the_lessons_own_count_is_14_bytes_a_parameter() -> None:
    row = counted_row(desk(), "34B")
    assert row.recipe == COUNTED and row.state_bytes == 14 * 33_743_970_304
    assert {f.gpu: f.gpus for f in row.fits}[LARGE] == 6  # as it says
    assert all(f.peak_device is None and f.interval is None for f in row.fits)


def test_every_cell_of_the_lesson_has_a_reason() -> None:
    for size in ("7B", "13B", "34B", "70B"):
        for method in ("full", "lora", "qlora"):
            cell = said_memory(size, method)
            assert cell is not None and cell.why and cell.bytes > 1e9 and cell.gpus >= 1
    for size in ("7B", "13B", "70B"):
        for method in ("full", "lora", "qlora"):
            price = said_cost(size, method)
            assert price is not None and price.why and price.usd[0] < price.usd[1]
    assert said_memory("8B", "full") is None and said_cost("34B", "full") is None


def test_a_cost_row_adds_up() -> None:
    row = cost_row(desk(), "7B", recipe("LoRA"), 512)
    assert row.gpus == 1 and row.train_seconds is not None and row.gpu_hours is not None
    assert row.gpu_hours == pytest.approx(row.train_seconds / 3600)
    assert row.usd_at_said_price == pytest.approx(3 * row.gpu_hours)
    low, high = row.usd_at_said_price_interval or (0, 0)
    assert low < (row.usd_at_said_price or 0) < high
    assert row.times_lora == 1.0
    assert row.usd is None or row.usd_per_hour is not None  # a price has a source, or there is none


def test_full_fine_tuning_costs_no_ten_times_lora_and_qlora_is_not_half_of_it() -> None:
    full, qlora = (cost_row(desk(), "7B", recipe(name), 512).times_lora for name in ("ZeRO-3", "QLoRA"))
    assert full is not None and 0.7 < full < 5.0
    assert qlora is not None and 1.0 < qlora < 2.0


def test_the_run_has_the_lessons_tokens_whatever_the_gpus() -> None:
    for gpus in (1, 4, 64):
        options = packed(512, gpus)
        tokens = options["examples"] * options["epochs"] * STEP["seq_len"]
        assert tokens == pytest.approx(said_number("examples") * said_number("epochs") * 512, rel=0.001)
        assert options["grad_accum"] == max(1, ROWS // gpus)


def test_another_gpu_has_no_price_of_the_lessons() -> None:
    other = Desk(
        lambda asked: api.estimate(**asked), lambda asked: api.plan(**asked), gpus=("L40S-48GB",), large="L40S-48GB"
    )
    row = cost_row(other, "7B", recipe("LoRA"), 512)
    assert row.gpu == "L40S-48GB" and row.gpu_hours is not None
    assert row.usd_at_said_price is None and row.against_said is None


def test_a_question_is_asked_once() -> None:
    asked: Counter[str] = Counter()

    def price(options: Mapping[str, Any]) -> Estimate:
        asked[repr(sorted(options.items()))] += 1
        return api.estimate(**options)

    counting = Desk(price, lambda options: api.plan(**options))
    first = memory_row(counting, "8B", recipe("QLoRA"))
    assert memory_row(counting, "8B", recipe("QLoRA")) == first
    assert asked and max(asked.values()) == 1


def test_an_error_is_raised_each_time() -> None:
    for _ in range(2):
        with pytest.raises(JobError, match="could be several"):
            desk().price("llama-3-8b", "lora", gpu="A100")


def test_parts_that_were_not_asked_for_are_empty() -> None:
    def never(options: Mapping[str, Any]) -> Any:
        raise AssertionError("nothing is priced")

    found = build_tables(never, never, parts=(), progress=lambda *a: None)
    assert found.contract() == {"memory": [], "cost": [], "claims": [], "assumptions": assumptions(desk())}


def test_assumptions_name_every_recipe_and_the_prices() -> None:
    said = assumptions(desk())
    assert all(f"recipe {way.name}" in said for way in RECIPES)
    assert "3 USD" in said["price"] and "50,000 examples x 3 epochs" in said["cost"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"only": ("prices",)}, "there is no part prices"),
        ({"gpu": "cpu"}, "cpu is no GPU"),
        ({"gpu": "A1000000"}, "no such GPU"),
    ],
)
def test_bad_input_is_refused_before_anything_is_traced(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        api.tables(**asked)
