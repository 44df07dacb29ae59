"""Events become Evidence: the same for a live run, a replayed file, and a run that was resumed."""

import pytest

from rankwise.records import Actual, Event, Evidence
from rankwise.store import replay
from rankwise.watch.evidence import summarise
from tests import builders
from tests.builders import saved, started, step, stopped, validation, whole_run

PLAN = builders.plan()


def evidence(events: list[Event]) -> Evidence:
    return summarise(PLAN, events)


def test_a_whole_run_is_summed_up() -> None:
    found = evidence(whole_run())
    assert (found.steps, found.first_loss, found.final_loss) == (20, 2.0, 0.1)
    assert (found.base_validation_loss, found.final_validation_loss) == (2.5, 0.1)
    assert (found.best_validation_loss, found.best_validation_step) == (0.1, 20)
    assert (found.tokens, found.train_seconds) == (14_000, 20.0)
    assert found.plan_hash == PLAN.content_hash() and found.evaluation is None
    assert PLAN.verdict.config and found.max_steps == PLAN.verdict.config.max_steps


def test_the_best_validation_need_not_be_the_last() -> None:
    found = evidence([started(), validation(0, 2.5), validation(5, 1.0), validation(10, 1.4)])
    assert (found.best_validation_loss, found.best_validation_step, found.final_validation_loss) == (1.0, 5, 1.4)


def test_predictions_stand_beside_what_happened() -> None:
    estimate = PLAN.chosen()
    assert estimate
    found = {a.quantity: a for a in evidence(whole_run()).actuals}
    durations = {"step_seconds", "validation_seconds", "save_seconds", "train_seconds"}
    assert set(found) == durations | {"tokens_per_second", "peak_memory", "trainable_params", "checkpoint"}
    assert (found["step_seconds"].predicted, found["step_seconds"].actual) == (estimate.time.step_seconds, 1.0)
    assert found["train_seconds"].predicted == estimate.time.train_seconds
    assert found["train_seconds"].interval == estimate.time.interval
    assert found["tokens_per_second"].actual == 700.0
    assert found["peak_memory"].actual == builders.GB and found["peak_memory"].predicted == estimate.memory.peak_device
    assert found["trainable_params"].actual == found["trainable_params"].predicted == 2_442_240
    assert found["checkpoint"].actual == 29_400_000


def test_a_run_that_did_not_end_has_unknown_actuals_not_zeros() -> None:
    found = {a.quantity: a.actual for a in evidence([started(), step(1)]).actuals}
    assert found["train_seconds"] is found["tokens_per_second"] is found["peak_memory"] is found["checkpoint"] is None


def test_no_events_are_no_evidence() -> None:
    found = evidence([])
    assert (found.steps, found.tokens, found.train_seconds, found.first_loss) == (0, 0, None, None)
    assert found.findings == ()


@pytest.mark.parametrize("killed_after", [1, 4, 5, 7, 10, 19, 20])
@pytest.mark.parametrize("said", ["stopped", "killed"])
def test_a_resumed_run_sums_up_as_the_unbroken_one(killed_after: int, said: str) -> None:
    whole = whole_run()
    before = [e for e in whole if getattr(e, "step", 0) <= killed_after and e.event != "finished"]
    resumed_from = max((e.step for e in before if e.event == "saved"), default=0)
    after = [e for e in whole if getattr(e, "step", 0) > resumed_from or e.event == "finished"]
    if not resumed_from:
        after = [validation(0, 2.5), *after]
    events = [*before, *([stopped(killed_after)] if said == "stopped" else []), started(resumed_from), *after]
    assert evidence(replay(events)) == evidence(whole)
    assert evidence(replay(replay(events))) == evidence(whole)


def test_a_run_resumed_twice_from_the_same_save_sums_up_the_same() -> None:
    whole = whole_run()
    head = [e for e in whole if getattr(e, "step", 0) <= 10 and e.event != "finished"]
    tail = [e for e in whole if getattr(e, "step", 0) > 10]
    lost = [step(11, loss=9.0, tokens=1), validation(15, 0.001), saved(15)]
    events = [*head, started(10), *lost, started(10), *lost, started(10), *tail]
    assert evidence(replay(events)) == evidence(whole)


def test_a_run_is_the_sum_of_those_parts_that_were_predicted() -> None:
    """A plan that foresaw no validations is not blamed for them; one that foresaw loading is held to it."""
    events = [started(load_seconds=9.0) if e.event == "started" else e for e in whole_run()]

    def took(**parts: float | None) -> dict[str, Actual]:
        told = {"load_seconds": None, "evaluation_seconds": None, "save_seconds": None, "relative": (0.5, 2.0), **parts}
        priced = PLAN.chosen()
        assert priced
        changed = priced.model_copy(update={"time": priced.time.model_copy(update=told)})
        others = tuple(changed if c.id == changed.id else c for c in PLAN.candidates)
        plan = PLAN.model_copy(update={"candidates": others})
        return {a.quantity: a for a in summarise(plan, events).actuals}

    assert took()["train_seconds"].actual == 20.0 and took()["train_seconds"].source == "steps"
    whole = took(load_seconds=10.0, evaluation_seconds=12.0, save_seconds=1.0)
    assert whole["train_seconds"].actual == pytest.approx(20.0 + 9.0 + 5 * 3.0 + 4 * 0.1)
    assert whole["train_seconds"].source == "steps + load + validations + checkpoints"
    assert (whole["validation_seconds"].predicted, whole["validation_seconds"].actual) == (12.0, 15.0)
    assert whole["validation_seconds"].interval == (6.0, 24.0)
    assert whole["save_seconds"].actual == pytest.approx(0.4)
