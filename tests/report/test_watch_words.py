"""What a run was seen to forget, in a sentence."""

from rankwise.records import Forgotten, Threshold
from rankwise.report import words
from rankwise.report.watch_words import watched_level, watched_sentence
from rankwise.watch.evidence import summarise
from tests import builders


def forgotten(**changes: object) -> Forgotten:
    look = builders.watched(10)
    limit = Threshold(slice="general text", unit="nats per token", baseline=2.9, amber=0.03, red=0.1, source="C10")
    content = {
        "level": "amber",
        "step": 10,
        "worst": "red",
        "worst_step": 20,
        "slices": look.slices,
        "thresholds": (limit,),
        "frontier": (),
        "looks": 3,
        "seconds": 24.0,
    }
    return Forgotten.model_validate(content | changes)


def test_each_slice_stands_beside_its_limit() -> None:
    said = watched_sentence(forgotten())
    assert said.startswith("General ability at step 10 is amber, red at step 20 (3 looks, 24 s): general text amber, ")
    assert "+0.050 nats" in said and "+0.040 to +0.060" in said and "red from +0.100 nats" in said
    assert watched_level(forgotten()) == "warning"
    assert [watched_level(forgotten(level=level)) for level in ("green", "red", "unknown")] == [
        "good",
        "fault",
        "unknown",
    ]


def test_a_run_says_it_among_its_outcomes() -> None:
    plan = builders.plan()
    events = builders.whole_run()
    unwatched = words.outcome_lines(summarise(plan, events), None)
    watched = words.outcome_lines(summarise(plan, [*events[:-1], builders.watched(20), events[-1]]), None)
    assert len(watched) == len(unwatched) + 1
    assert sum("General ability at step 20" in line for line in watched) == 1
