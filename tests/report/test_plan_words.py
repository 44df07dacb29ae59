"""The call in a sentence, and the passages under it."""

from typing import Any

import pytest

from rankwise.records import DeviceFacts, Facts, Plan, Reason, Rejection, Verdict
from rankwise.report import words
from tests.report.conftest import build_config, build_estimate, build_facts, build_memory, build_plan

NOTHING = Verdict(method="none", candidate=None, parallel=None, config=None, confidence="high", first_try=())


def facts_with(**changes: Any) -> Facts:
    facts = build_facts()
    device = DeviceFacts.model_validate(facts.device.model_dump() | changes)
    return facts.model_copy(update={"device": device})


def verdict(method: str, candidate: str, **changes: Any) -> Verdict:
    content = {"method": method, "candidate": candidate, "parallel": "none", "config": build_config(method)}
    return Verdict(**(content | {"confidence": "high", "first_try": ()} | changes))


def too_big() -> Plan:
    memory = build_memory(fits=False, capacity=2_000_000_000)
    small = build_estimate("qlora", 0.9, memory=build_memory(0.95, fits=False, capacity=2_000_000_000))
    return build_plan(verdict=NOTHING, candidates=(build_estimate(memory=memory), small))


UNKNOWN_TIME = build_estimate().time.model_copy(update={"train_seconds": None, "interval": None})
GPUS = {"kind": "gpu", "name": "A100-80GB", "count": 2, "available_bytes": None, "cores": None}
REJECTION = Rejection(
    method="full", rule="within_usd", number="900 USD", text="Too dear.", would_flip_if="the budget were 900 USD"
)

SENTENCES = [
    (
        build_plan(),
        "Train LoRA (r = 8, all linear layers) on this machine: "
        "about 2 min 10 s (1.1 to 4.3 min), 1.9 GB of memory, 9.8 MB to store.",
    ),
    (
        build_plan(verdict=verdict("full", "full")),
        "Train all weights (full fine-tuning) on this machine: "
        "about 4 min 46 s (2.4 to 9.5 min), 4.2 GB of memory, 269 MB to store.",
    ),
    (
        build_plan(verdict=verdict("lora", "lora-r8", parallel="ddp"), facts=facts_with(**GPUS)),
        "Train LoRA (r = 8, all linear layers) on 2 x A100-80GB (data-parallel): "
        "about 2 min 10 s (1.1 to 4.3 min), 1.9 GB of memory, 9.8 MB to store.",
    ),
    (
        build_plan(
            facts=facts_with(**(GPUS | {"count": 1})),
            candidates=(build_estimate(time=UNKNOWN_TIME, money={"train_usd": 3.2, "interval": None}),),
        ),
        "Train LoRA (r = 8, all linear layers) on one A100-80GB: "
        "time unknown, 1.9 GB of memory, 3.20 USD, 9.8 MB to store.",
    ),
    (
        build_plan(candidates=()),
        "Train LoRA (r = 8, all linear layers) on this machine: time, memory and storage unknown.",
    ),
    (
        too_big(),
        "Nothing fits this machine: the smallest option, QLoRA, needs up to 2.2 GB of memory and there are 2.0 GB.",
    ),
    (
        build_plan(verdict=NOTHING, rejected=(REJECTION,)),
        "Nothing can run on this machine. full fine-tuning: Too dear (900 USD). "
        "It would be chosen if the budget were 900 USD.",
    ),
    (
        build_plan(verdict=NOTHING, rejected=(), candidates=()),
        "Nothing can run on this machine, and the plan does not say why.",
    ),
]


@pytest.mark.parametrize(("plan", "expected"), SENTENCES)
def test_verdict_sentence(plan: Plan, expected: str) -> None:
    assert words.verdict_sentence(plan) == expected


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("all-linear", "LoRA (r = 8, all linear layers)"),
        (None, "LoRA (r = 8, all linear layers)"),
        (("q_proj", "v_proj"), "LoRA (r = 8, q_proj, v_proj)"),
        ("q_proj", "LoRA (r = 8, q_proj)"),
    ],
)
def test_method_phrase_names_the_targets(targets: Any, expected: str) -> None:
    config = build_config().model_copy(update={"target_modules": targets})
    assert words.method_phrase("lora", config) == expected


def test_plan_lines_say_everything_in_the_plan() -> None:
    passages = words.plan_lines(build_plan())
    assert [(p.title, len(p.lines)) for p in passages] == [
        ("Try first", 1),
        ("Why", 2),
        ("Rejected", 2),
        ("What would change the call", 2),
        ("Warnings", 1),
        ("Questions", 1),
    ]
    lines = {p.title: p.lines[0] for p in passages}
    assert lines["Why"] == (
        "The job teaches a format, and formats are learned with few parameters (2,442,240 of 134,515,008 parameters). "
        "Evidence: E1."
    )
    assert lines["Rejected"] == (
        "full fine-tuning: Full fine-tuning reaches the same format at more memory and storage "
        "(4.2 GB against 1.9 GB). It would be chosen if the goal were knowledge."
    )
    assert lines["What would change the call"] == "If less than 2.3 GB of memory were free: QLoRA (r = 8)"


def test_empty_passages_are_left_out() -> None:
    empty = build_plan(reasons=(), rejected=(), flips=(), warnings=(), questions=(), verdict=NOTHING)
    assert words.plan_lines(empty) == []


@pytest.mark.parametrize(
    ("text", "number", "expected"),
    [
        ("It fits", "2 GB", "It fits (2 GB)."),
        ("It needs 2 GB.", "2 GB", "It needs 2 GB."),
        ("It fits.", None, "It fits."),
        ("Is it?", None, "Is it?"),
    ],
)
def test_a_number_is_said_once(text: str, number: str | None, expected: str) -> None:
    reason = Reason(rule="r", text=text, number=number, evidence=())
    assert words.reason_line(reason) == expected


def test_an_option_is_named_once() -> None:
    text = "lora-r64 does not fit into the memory"
    rejection = Rejection(method="lora-r64", rule="memory_fits", number=None, text=text, would_flip_if=None)
    assert words.rejection_line(rejection) == f"{text}."
