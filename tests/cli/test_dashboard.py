"""The picture of a run: what is known is in it at every width, and what is not known is not."""

import io
import re
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from rich.screen import Screen

from rankwise.cli.dashboard import Dashboard
from rankwise.cli.pictures import ASCII, BLOCKS
from rankwise.records import Event, ModuleSpectrum, Plan, Slice, SpectrumSeen, Watched
from rankwise.watch.live import LiveRun
from tests import builders
from tests.builders import TIME, acted, failed, note, rehearsed, saved, started, step, validation, whole_run

PLAN = builders.plan()
ENCODINGS = {"utf-8": BLOCKS, "ascii": ASCII}


def part(name: str, difference: float, level: str, *, share: bool = False) -> Slice:
    return Slice(
        name=name,
        metric="choice" if share else "general_loss",
        unit="share" if share else "nats per token",
        items=40,
        baseline=0.5,
        value=0.5 + difference,
        difference=difference,
        interval=(difference - 0.01, difference + 0.01),
        level=level,  # type: ignore[arg-type]
    )


def spectra(n: int, rank: float) -> SpectrumSeen:
    names = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(3)]
    modules = tuple(
        ModuleSpectrum(
            module=name,
            rank=16,
            norm=0.4,
            norm_ratio=0.01,
            effective_rank=rank,
            first_energy=0.5,
            intruders=1,
            condition_a=1.7,
            condition_b=12.0,
        )
        for name in names
    )
    return SpectrumSeen(time=TIME, step=n, modules=modules, seconds=0.3)


def full_run() -> list[Event]:
    """Twelve steps of twenty with every kind of event, and a gradient that jumps."""
    events: list[Event] = [note("3 rows are too long"), started(), validation(0, 2.5, **read(0.2, 0.5))]
    for n in range(1, 13):
        events.append(step(n, grad_norm=40.0 if n == 12 else 1.0, epoch=n / 10))
        if n == 1:
            events.append(rehearsed())
        if n % 5 == 0:
            slices = (part("general text", n / 100, "amber"), part("arc_easy", -n / 200, "red", share=True))
            events += [validation(n, 2.0 / n, **read(0.22, 0.9)), saved(n), spectra(n, 3.0 + n / 10)]
            events.append(Watched(time=TIME, step=n, slices=slices, level="red", kl=0.02, seconds=1.5))
    return [*events, acted(10)]


def read(facts: float, others: float) -> dict[str, float]:
    return {"fact_tokens": 400, "fact_accuracy": facts, "other_accuracy": others}


def live(events: list[Event], plan: Plan | None = PLAN) -> LiveRun:
    run = LiveRun(plan)
    for event in events:
        run.see(event)
    return run


def drawn(run: LiveRun, width: int, height: int = 40, now: datetime | None = None, coded: str = "utf-8") -> list[str]:
    """Lines as a terminal of that size would show them."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=coded)
    console = Console(file=file, record=True, force_terminal=True, width=width, height=height)
    console.print(Screen(Dashboard(run, "runs/clinic", now)))
    return [line.rstrip() for line in console.export_text().splitlines()]


EVERYWHERE = (
    "runs/clinic: LoRA, r 8",
    "step 12 of 20, epoch 1.20",
    "loss",
    "0.1667 nats, first 2.0000",
    "validation",
    "2.500 -> 0.200 nats, best at step 10",
    "names, numbers",
    "22 % right, the rest 90 %",
    "learning rate",
    "1.00e-03",
    "gradient norm",
    "40.00, median 1.00",
    "700 tokens/s, plan ",
    "1.2 GB, plan ",
    "general text",
    "amber: +0.100 nats (+0.090 to +0.110)",
    "arc_easy",
    "red: -5 points (-6 to -4)",
    "0.020 nats per token",
    "effective rank",
    "4.0 of 16, median of 3 matrices",
    "1 % of the weights' norm, 3 intruders",
    "warning: The gradient norm jumped",
    "docs/findings.md#gradient-spikes",
    "forgetting watch, step 10: learning rate times",
)


@pytest.mark.parametrize("width", [80, 100, 119, 120, 140, 200])
def test_all_that_is_known_is_shown_at_every_width(width: int) -> None:
    run = live(full_run())
    run.memory.extend([1_000_000_000, 1_200_000_000])
    lines = drawn(run, width, height=60)
    assert max(map(len, lines)) <= width
    text = re.sub(r"\s+", " ", " ".join(lines))
    whole = re.sub(r"\s+", "", text)  # a sentence may be broken anywhere
    assert [said for said in EVERYWHERE if re.sub(r"\s+", "", said) not in whole] == []


@pytest.mark.parametrize(("width", "beside"), [(80, False), (140, True)])
def test_a_wide_terminal_has_two_columns(width: int, beside: bool) -> None:
    lines = drawn(live(full_run()), width)
    loss = next(line for line in lines if line.startswith("loss"))
    assert ("general text" in loss) == beside


def test_the_most_important_fits_the_smallest_usual_terminal() -> None:
    run = live(full_run())
    run.memory.append(10**9)
    shown = " ".join(drawn(run, 80, height=24))
    for name in ("step 12 of 20", "loss", "validation", "general text", "effective rank", "warning: The gradient"):
        assert name in shown, name


@pytest.mark.parametrize("width", [20, 40, 60])
def test_a_terminal_that_is_far_too_narrow_is_not_overrun(width: int) -> None:
    lines = drawn(live(full_run()), width)
    assert max(map(len, lines)) <= width and any("loss" in line for line in lines)


@pytest.mark.parametrize(("height", "more"), [(24, False), (40, True)])
def test_a_tall_terminal_draws_the_loss_large(height: int, more: bool) -> None:
    blocks = [line for line in drawn(live(full_run()), 80, height) if re.fullmatch(r" {15}[▁▂▃▄▅▆▇█ ]+", line)]
    assert (len(blocks) >= 4) == more


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_curves_are_drawn_with_what_the_terminal_can_write(encoding: str) -> None:
    lines = drawn(live(full_run()), 100, coded=encoding)
    curve = next(line for line in lines if line.startswith("loss")).split()[1]
    assert len(curve) == 12 and set(curve) <= set(ENCODINGS[encoding])
    assert curve[0] == ENCODINGS[encoding][-1] and curve[-1] == ENCODINGS[encoding][0], "it falls"


def test_before_anything_has_happened_there_is_a_plan() -> None:
    text = " ".join(drawn(live([]), 80, now=datetime.now(UTC)))
    assert "LoRA, r 8" in text and "step 0 of" in text and "left (" in text and "planned)" in text
    assert not any(word in text for word in ("loss", "memory", "None", "nan"))


def test_a_run_of_others_has_no_plan_and_no_made_up_numbers() -> None:
    text = " ".join(drawn(live([e for e in full_run() if e.event != "started"], None), 80))
    assert "step 12 of unknown" in text and "plan " not in text and "left" not in text


def test_the_time_that_is_left_runs_on_between_steps() -> None:
    run, last = live(full_run()), datetime.fromisoformat(TIME)

    def left(now: datetime | None) -> str:
        found = re.search(r"(\S.*) left \((.*), measured\)", " ".join(drawn(run, 120, now=now)))
        assert found
        return found[1].split("  ")[-1].strip()

    assert left(None) == left(last) == left(last - timedelta(seconds=60))  # a clock that is set back
    assert left(last + timedelta(seconds=5)) != left(last)
    assert left(datetime.now(UTC)) == "0 s"


@pytest.mark.parametrize(("events", "said"), [(whole_run(), "finished"), ([step(1), failed()], "failed")])
def test_a_run_that_has_ended_says_how(events: list[Event], said: str) -> None:
    lines = drawn(live(events), 80)
    assert said in lines[1] and "left" not in lines[1]


def test_what_a_row_says_is_text_and_no_markup() -> None:
    text = " ".join(drawn(live([note("[bold]x[/bold] [/red]"), step(1)]), 80))
    assert "[bold]x[/bold] [/red]" in text
