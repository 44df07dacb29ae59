"""What `rankwise tables` prints: units, ranges, unknowns, and the lesson's word beside ours."""

import pytest

from rankwise.records.tables import Claim, CostRow, Figure, Fit, MemoryRow, SaidCost, SaidMemory, Tables
from rankwise.report import tables_words as words

ONE = Fit(
    gpu="A100-80GB",
    gpus=4,
    tried=4,
    parallel="fsdp",
    peak_device=40_500_000_000,
    interval=(40.5e9, 56.4e9),
    capacity=84_975_550_464,
)
NOWHERE = ONE.model_copy(update={"gpus": None, "tried": 64, "parallel": None, "peak_device": None, "interval": None})
STATE_ALONE = ONE.model_copy(update={"parallel": None, "peak_device": None, "interval": None})
SAID = SaidMemory(
    text="~98 GB (8x A100 40GB)",
    bytes=98_000_000_000,
    gpu="A100-80GB",
    gpus=8,
    verdict="inconsistent",
    why="Two rules.",
)


def build_row(recipe: str, fit: Fit, state: int, method: str = "full", source: str = "traced") -> MemoryRow:
    return MemoryRow(
        size="7B",
        model="llama-2-7b",
        method=method,
        recipe=recipe,
        total_params=6_738_415_616,
        trainable_params=6_738_415_616,
        state_bytes=state,
        fits=(fit,),
        said=SAID,
        source=source,
    )


def build_cost(**changes: object) -> CostRow:
    content = {
        "size": "7B",
        "model": "llama-2-7b",
        "method": "lora",
        "recipe": "LoRA",
        "tokens_per_example": 512,
        "gpu": "A100-80GB",
        "gpus": 1,
        "parallel": "none",
        "train_seconds": 29_640.0,
        "interval": (14_820.0, 59_280.0),
        "gpu_hours": 8.233,
        "usd_at_said_price": 24.7,
        "usd_at_said_price_interval": (12.35, 49.4),
        "usd_per_hour": None,
        "usd": None,
        "times_lora": 1.0,
        "said": SaidCost(text="$15-30", usd=(15, 30), verdict="inconsistent", why="No length is named."),
        "against_said": "overlaps",
        "source": "time; money",
    }
    return CostRow.model_validate(content | changes)


def build_claim(**changes: object) -> Claim:
    content = {
        "id": "N2",
        "topic": "counts",
        "said": "LoRA r=16 trains 83,886,080.",
        "computed": (Figure(name="trained, r=16", value=41_943_040, unit="parameters", said=83_886_080),),
        "verdict": "wrong",
        "why": "That is the output of r = 32.",
        "source": "counted",
    }
    return Claim.model_validate(content | changes)


def build_tables() -> Tables:
    rows = (
        build_row("lesson's count", STATE_ALONE, 94_300_000_000, source="14 bytes"),
        build_row("pure bf16", ONE, 53_900_000_000),
        build_row("ZeRO-3", NOWHERE, 135_000_000_000),
    )
    plain = build_claim(id="22", topic="history", computed=None, verdict="right")
    return Tables(
        memory=rows,
        cost=(build_cost(), build_cost(tokens_per_example=2048)),
        claims=(build_claim(), plain),
        assumptions={"step": "batch 1", "cost": "50,000 examples x 3 epochs", "price": "3 USD an hour"},
    )


@pytest.mark.parametrize(
    ("fit", "text"),
    [
        (ONE, "4 x 40.5 GB (40.5 to 56.4 GB)"),
        (NOWHERE, "not on 64"),
        (STATE_ALONE, "4 for the state alone"),
    ],
)
def test_gpus_with_the_peak_of_each(fit: Fit, text: str) -> None:
    assert words.fit_words(fit) == text


def build_figure(value: object, unit: str, **more: object) -> Figure:
    return Figure.model_validate({"name": "n", "value": value, "unit": unit, **more})


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (build_figure(41_943_040, "parameters", said=2), "n: 41,943,040 parameters (the lesson: 2 parameters)"),
        (build_figure(None, "USD"), "n: unknown"),
        (build_figure(0.005195983, "share", said=0.01034), "n: 0.5196 % (the lesson: 1.034 %)"),
        (build_figure(1, "GPUs", said=12), "n: 1 GPU (the lesson: 12 GPUs)"),
        (build_figure("more than 64", "GPUs", said="impossible"), "n: more than 64 GPUs (the lesson: impossible)"),
        (build_figure(24.7, "USD", interval=(12.3, 49.4)), "n: 24.70 USD (12.30 to 49.40 USD)"),
        (build_figure(30.0, "USD", said=(150, 300)), "n: 30.00 USD (the lesson: 150 to 300 USD)"),
        (build_figure(1.23, "ratio", said=(10, 100)), "n: 1.23 times (the lesson: 10 to 100 times)"),
        (build_figure(8.2e9, "B", interval=(7.8e9, 10.2e9)), "n: 8.2 GB (7.8 to 10.2 GB)"),
        (build_figure(34_557.0, "s", said=(2700, 14_400)), "n: 9 h 36 min (the lesson: 0.8 to 4 h)"),
        (build_figure("qlora", "", said="lora"), "n: qlora (the lesson: lora)"),
        (build_figure(2.08, "B/parameter"), "n: 2.08 bytes a parameter"),
    ],
)
def test_a_figure_has_its_unit_and_the_lessons_word(figure: Figure, text: str) -> None:
    assert words.figure_line(figure) == text


def test_rows_are_as_wide_as_their_heads() -> None:
    tables = build_tables()
    for _, heads, rows, _ in words.printed_tables(tables):
        assert rows and all(len(row) == len(heads) for row in rows)


def test_what_was_said_of_full_fine_tuning_stands_once() -> None:
    said = [row[-1] for row in words.printed_tables(build_tables())[0][2]]
    assert said == [SAID.text, "", ""]


def test_a_cell_sums_up_the_recipes_that_were_traced() -> None:
    (cell,) = words.memory_verdicts(build_tables())
    assert cell.computed == "53.9 to 135 GB of state, by recipe; 4 A100-80GB, or more than 64"
    assert words.cell_line(cell).startswith("7B full: the lesson said ~98 GB (8x A100 40GB); computed: 53.9 to 135 GB")


def test_unknown_money_is_said_to_be_unknown() -> None:
    row = build_cost(train_seconds=None, interval=None, gpu_hours=None, usd_at_said_price=None, times_lora=None)
    row = row.model_copy(update={"against_said": None})
    cells = words.cost_cells(row)
    assert cells[4:9] == ["unknown"] * 5 and cells[9] == "$15-30"


def test_claims_stand_by_topic_with_their_source() -> None:
    by_topic = words.claims_by_topic(build_tables().claims)
    assert list(by_topic) == ["Counts in its code", "History"]
    lines = words.claim_lines(by_topic["Counts in its code"][0])
    assert lines[0] == "N2. wrong: LoRA r=16 trains 83,886,080."
    assert lines[-1] == "     source: counted"


def test_verdicts_are_counted() -> None:
    assert words.verdict_counts(build_tables().claims) == (
        "2 claims: 1 right, 1 wrong. 1 of them are computed here, the others carry evidence."
    )
