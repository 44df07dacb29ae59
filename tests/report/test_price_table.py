"""The priced options as a table: order, marks, units, and what is left out where room is short."""

from itertools import pairwise

import pytest

from rankwise.cli.printing import print_priced
from rankwise.records import Plan
from rankwise.report.price_table import ROWS, PriceTable, candidate_rows, price_table
from rankwise.report.quantities import UNKNOWN
from tests.report.conftest import build_memory, build_plan
from tests.report.plans import OPTIONS, build_13b, build_none, estimate


def column(table: PriceTable, head: str) -> tuple[str, ...]:
    return next(c.cells for c in table.columns if c.head.replace("\n", " ").startswith(head))


def test_the_verdict_leads_then_what_fits_by_price() -> None:
    rows = candidate_rows(build_13b())
    assert len(rows) == len(OPTIONS) == 14
    assert [r.role for r in rows] == ["chosen", "runner-up", "possible", *["rejected"] * 11]
    rejected = [r.estimate for r in rows if r.role == "rejected"]
    assert [e.memory.fits for e in rejected] == [True] * 8 + [False] * 3
    fitting = [e.money.train_usd or 0.0 for e in rejected[:8]]
    assert fitting == sorted(fitting)


def test_without_prices_time_sorts() -> None:
    plan = build_13b(candidates=tuple(estimate(o, price=None) for o in OPTIONS))
    hours = [r.estimate.time.train_seconds or 0.0 for r in candidate_rows(plan) if r.role == "rejected"][:8]
    assert hours == sorted(hours)
    heads = [c.head for c in price_table(plan).columns]
    assert not [h for h in heads if "USD" in h], "a column of unknowns says nothing"


def test_cells_have_the_unit_of_their_head() -> None:
    table = price_table(build_13b())
    assert table.chosen == 0
    assert column(table, "option")[:2] == ("lora-r16", "full-8bit-zero3")
    assert column(table, "call")[:4] == ("chosen", "runner-up", "possible", "discouraged")
    assert column(table, "memory GB of 80.0")[0] == "36.4 fits"
    assert column(table, "one run h")[0] == "14.9 (11.9-18.6)"
    assert column(table, "one run USD")[0] == "68.2"
    assert column(table, "quality % of full")[0] == "97 (92-101)"
    assert column(table, "project USD")[0] == "1,065"
    assert column(table, "5 served GB")[:2] == ("26.7", "130")
    assert "214 over" in column(table, "memory")


def test_what_is_unknown_says_so() -> None:
    table = price_table(build_13b())
    row = column(table, "option").index("prefix-20")
    assert column(table, "quality")[row] == UNKNOWN
    unknown = build_plan().candidates[0].model_copy(update={"memory": build_memory(fits=None, capacity=None)})
    blank = price_table(build_plan(candidates=(unknown,)))
    assert column(blank, "memory GB")[0] == "1.89 fits?"


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("lora-r16", ["lora-r16"]),
        ("full-bf16-fsdp-checkpointing-b1", ["full-bf16-fsdp-", "checkpointing-b1"]),
        ("averylongnamewithouthyphens", ["averylongnamewithouthyphens"]),
    ],
)
def test_a_long_name_is_broken_behind_its_hyphens(name: str, lines: list[str]) -> None:
    named = build_plan().candidates[0].model_copy(update={"id": name})
    option = price_table(build_plan(candidates=(named,))).columns[0]
    assert option.cells == (name,)
    assert option.short == ("\n".join(lines),)


def test_a_long_list_is_cut_and_counted() -> None:
    first = build_13b().candidates
    rest = [e.model_copy(update={"id": f"more-{n}"}) for n, e in enumerate(first[5:8])]
    table = price_table(build_13b(candidates=(*first, *rest)))
    assert {len(c.cells) for c in table.columns} == {ROWS}
    assert table.left_out == "1 more option is on the page and in plan.json, excluded by memory_fits."
    assert price_table(build_13b()).left_out == ""


def test_every_step_is_narrower_and_the_least_important_goes_first() -> None:
    table = price_table(build_13b())
    choices = list(table.narrower())
    assert choices[0] == table.columns
    assert [c.head for c in choices[-1]] == ["option", "call"]
    dropped = [len(a) - len(b) for a, b in pairwise(choices)]
    assert set(dropped) == {0, 1}
    missing = [table.missing(c) for c in choices]
    assert missing[0] == ""
    assert missing[1] == "Left out for room: 5 served, GB. The page and plan.json have them."
    assert "intervals of one run, h" in missing[5]
    assert not [m for m in missing if "option" in m], "a name on two lines is all there"


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
@pytest.mark.parametrize("plan", [build_13b(), build_none(), build_plan()], ids=["13b", "none", "clinic"])
def test_no_line_is_wider_than_the_terminal(plan: Plan, width: int, capsys: pytest.CaptureFixture[str]) -> None:
    print_priced(price_table(plan), width=width)
    lines = capsys.readouterr().out.splitlines()
    printed = [line for line in lines if not line.startswith("Left out")]
    assert max(map(len, printed)) <= width
    text = "\n".join(printed)
    for candidate in plan.candidates:
        assert candidate.id is not None
        assert all(part in text for part in candidate.id.split("-"))
        assert candidate.id in text or width < 140
    assert "…" not in text
    if width == 200:
        assert len(lines) == len(printed)


@pytest.mark.parametrize(
    ("width", "kept"), [(80, ["memory", "one run", "quality"]), (100, ["memory", "one run", "quality", "("])]
)
def test_what_matters_stays_at_the_usual_widths(
    width: int, kept: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    print_priced(price_table(build_13b()), width=width)
    out = capsys.readouterr().out.partition("Left out")[0]
    assert [word for word in kept if word not in out] == []
    assert "USD" in out


def test_ids_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    odd = build_plan().candidates[0].model_copy(update={"id": "[bold]x[/bold]"})
    print_priced(price_table(build_plan(candidates=(odd,))), width=100)
    assert "[bold]x[/bold]" in capsys.readouterr().out
