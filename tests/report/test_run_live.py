"""What the app says of a run while it trains."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rankwise.records import Event, Finding, Interval
from rankwise.report import run_live
from tests.builders import note, plan, spectrum, started, step, validation, watched, whole_run


@dataclass(frozen=True)
class Left:
    seconds: float = 90.0
    interval: Interval = (60.0, 240.0)
    source: str = "measured"


@dataclass(frozen=True)
class Look:
    state: str = "running"
    events: list[Event] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    step: int | None = None
    max_steps: int | None = 20
    left: Left | None = None
    memory: int | None = None
    peak_memory: int | None = None
    speed: float | None = None
    planned_speed: tuple[float, Interval] | None = None
    stopping: bool = False


def figures(**known: Any) -> dict[str, tuple[str, str]]:
    found = run_live.live_view(plan(), Look(**known), Path("runs/a")).figures
    return {f.name: (f.value, f.source) for f in found}


@pytest.mark.parametrize(
    ("look", "said", "then"),
    [
        (Look(step=5, left=Left()), "Running: step 5 of 20, 1 min 30 s left (1 to 4 min, measured).", ""),
        (Look(step=5), "Running: step 5 of 20.", ""),
        (Look(), "Starting: the model and the data are being loaded.", ""),
        (
            Look(step=5, left=Left(), stopping=True),
            "Stopping: step 5 of 20. It ends after the step at work, with a checkpoint.",
            "",
        ),
        (
            Look("stopped", step=5),
            "Stopped at step 5 of 20.",
            "Continue: `rankwise train 'my runs/a' --resume`",
        ),
        (Look("finished", step=20), "Finished: step 20 of 20.", "Talk to it: `rankwise chat 'my runs/a'`"),
    ],
)
def test_where_it_stands(look: Look, said: str, then: str) -> None:
    view = run_live.live_view(plan(), look, Path("my runs/a"))
    assert (view.sentence, view.next_step) == (said, then)
    assert "--resume" in view.resume and "'my runs/a'" in view.resume


def test_what_is_not_known_is_called_so_and_never_0() -> None:
    found = figures()
    assert found["Time in steps"][0] == found["Training loss"][0] == found["Validation loss"][0] == "unknown"
    assert found["Speed"][0] == found["Memory"][0] == "unknown"
    view = run_live.live_view(plan(), Look(), Path("a"))
    assert view.share is None and view.newest == () and view.memory is not None and view.memory.dot is None
    assert "has not told of its memory yet" in view.memory_sentence
    assert run_live.live_figures([], None) == {}


def test_numbers_stand_beside_what_was_planned_of_them() -> None:
    events = [started(), validation(0, 2.0), step(1), step(2), validation(2, 1.5)]
    found = figures(
        events=events, step=2, memory=10**9, peak_memory=2 * 10**9, speed=50.0, planned_speed=(100.0, (80.0, 130.0))
    )
    assert found["Speed"] == ("50 tokens/s", "over all steps but the first; planned 100 (80 to 130)")
    assert found["Memory"][0] == "1.0 GB" and found["Memory"][1].startswith("resident now; planned ")
    assert found["Validation loss"][0].startswith("1.5")
    assert "step 2; base 2" in found["Validation loss"][1]
    ended = figures(events=events, state="finished", peak_memory=2 * 10**9)
    assert ended["Memory"][1].startswith("highest peak of the process")


@pytest.mark.parametrize(
    ("times", "said"), [(0.5, "below"), (1.0, "inside the interval"), (50.0, "ABOVE the interval")]
)
def test_memory_is_judged_against_the_interval_and_drawn_on_one_scale(times: float, said: str) -> None:
    decided = plan()
    estimate = decided.chosen()
    assert estimate is not None
    low, _ = estimate.memory.interval
    used = int(low * times) if times != 1.0 else estimate.memory.peak_device
    view = run_live.live_view(decided, Look(peak_memory=used), Path("a"))
    assert said in view.memory_sentence
    assert view.memory is not None and view.memory.dot is not None and view.capacity_at is not None
    assert 0 <= view.memory.low <= view.memory.high <= 100 and 0 < view.memory.dot <= 100 and view.capacity_at <= 100
    assert view.memory.dot / view.capacity_at == pytest.approx(used / estimate.memory.room)


def test_the_newest_is_said_first_and_steps_are_not_said() -> None:
    events = [started(), note("one"), step(1), note("two"), watched(), spectrum()]
    view = run_live.live_view(plan(), Look(events=events), Path("a"))
    assert "two" in " ".join(view.newest) and view.newest[-1].endswith("one") and len(view.newest) == 4
    assert view.watch.watched == watched() and view.watch.spectrum == spectrum()
    whole = run_live.live_view(plan(), Look(events=whole_run()), Path("a"))
    assert len(whole.newest) <= run_live.NEWEST and "curves-data" in run_live.live_figures(whole_run(), None)


def test_a_model_is_called_by_its_name() -> None:
    assert run_live.short_model("/data/models/tiny") == "tiny" and run_live.short_model("./tiny") == "tiny"
    assert run_live.short_model("org/name") == "org/name" and run_live.short_model("embedded") == "embedded"
