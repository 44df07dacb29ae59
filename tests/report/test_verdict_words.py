"""The verdict: one sentence for a headline, three to six for a design document."""

from typing import Any

import pytest

from rankwise.records import DeviceFacts, Facts, Plan, Rejection, Verdict
from rankwise.report import words
from rankwise.report.verdict_words import winning_condition
from tests.report.conftest import build_config, build_estimate, build_facts, build_flip, build_memory, build_plan
from tests.report.plans import OPTIONS, build_13b, build_none, config_13b, estimate

NOTHING = Verdict(
    method="none",
    candidate=None,
    parallel=None,
    config=None,
    confidence="high",
    confidence_because="",
    executable=False,
    first_try=(),
)
UNKNOWN_TIME = build_estimate().time.model_copy(update={"train_seconds": None, "interval": None})
GPUS = {"kind": "gpu", "name": "A100-80GB", "count": 2, "available_bytes": None, "cores": None}
LORA = "LoRA (r = 8, alpha = 16, all linear layers) for the embedded model"
TAKES = "about 2 min 10 s (1.1 to 4.3 min), 1.9 GB of 12.4 GB memory"


def facts_with(**changes: Any) -> Facts:
    facts = build_facts()
    device = DeviceFacts.model_validate(facts.device.model_dump() | changes)
    return facts.model_copy(update={"device": device})


def verdict(method: str, candidate: str, **changes: Any) -> Verdict:
    content = {"method": method, "candidate": candidate, "parallel": "none", "config": build_config(method)}
    content |= {"confidence": "high", "confidence_because": "", "executable": True, "first_try": ()}
    return Verdict(**(content | changes))


def too_big() -> Plan:
    memory = build_memory(fits=False, capacity=2_000_000_000)
    small = build_estimate("qlora", 0.9, memory=build_memory(0.95, fits=False, capacity=2_000_000_000))
    return build_plan(verdict=NOTHING, candidates=(build_estimate(memory=memory), small))


def rejection(method: str = "full", flip: str | None = "the budget were 900 USD") -> Rejection:
    return Rejection(method=method, rule="within_usd", number="900 USD", text="Too dear.", would_flip_if=flip)


SENTENCES = [
    (build_plan(), f"Train {LORA} on this machine: {TAKES}, 9.8 MB to store."),
    (
        build_plan(verdict=verdict("full", "full")),
        "Train all weights of the embedded model (full fine-tuning, pure bf16, adamw_torch) on this machine: "
        "about 4 min 46 s (2.4 to 9.5 min), 4.2 GB of 12.4 GB memory, 269 MB to store.",
    ),
    (
        build_plan(verdict=verdict("lora", "lora-r8", parallel="ddp"), facts=facts_with(**GPUS)),
        f"Train {LORA} on 2 x A100-80GB (data-parallel): {TAKES} on each device, 9.8 MB to store.",
    ),
    (
        build_plan(facts=facts_with(**GPUS)),
        f"Train {LORA} on one of 2 x A100-80GB: {TAKES} on each device, 9.8 MB to store.",
    ),
    (
        build_plan(facts=facts_with(**(GPUS | {"count": 1})), candidates=(build_estimate(time=UNKNOWN_TIME),)),
        f"Train {LORA} on one A100-80GB: time unknown, 1.9 GB of 12.4 GB memory, 9.8 MB to store.",
    ),
    (build_plan(candidates=()), f"Train {LORA} on this machine: time, memory and storage unknown."),
    (
        too_big(),
        "Nothing fits this machine: the smallest option, qlora-r8, needs up to 2.2 GB of memory and there are 2.0 GB.",
    ),
    (
        build_plan(verdict=NOTHING, rejected=(rejection(), rejection("lora"))),
        "Nothing can run on this machine. Too dear (900 USD). 1 more is excluded, by the rules below.",
    ),
    (
        build_plan(verdict=NOTHING, rejected=(), candidates=()),
        "Nothing can run on this machine, and the plan does not say why.",
    ),
]


@pytest.mark.parametrize(("plan", "expected"), SENTENCES)
def test_verdict_sentence(plan: Plan, expected: str) -> None:
    assert words.verdict_sentence(plan) == expected


@pytest.mark.parametrize("plan", [p for p, _ in SENTENCES])
def test_the_headline_and_what_it_takes_are_the_sentence(plan: Plan) -> None:
    headline, price = words.verdict_headline(plan)
    sentence = words.verdict_sentence(plan)
    if plan.verdict.method == "none":
        assert (headline, price) == (sentence, "")
    else:
        assert f"{headline[:-1]}: {price.removeprefix('Predicted for one run: ')}" == sentence


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("all-linear", "LoRA (r = 8, alpha = 16, all linear layers)"),
        (None, "LoRA (r = 8, alpha = 16, all linear layers)"),
        (("q_proj", "v_proj"), "LoRA (r = 8, alpha = 16, q_proj, v_proj)"),
        ("q_proj", "LoRA (r = 8, alpha = 16, q_proj)"),
    ],
)
def test_method_phrase_names_the_targets(targets: Any, expected: str) -> None:
    config = build_config().model_copy(update={"target_modules": targets})
    assert words.method_phrase("lora", config) == expected


@pytest.mark.parametrize(
    ("method", "changes", "expected"),
    [
        ("full", {"dtype": "fp32", "autocast": "bf16"}, "all weights (full fine-tuning, fp32 weights under bf16 "),
        ("full", {"optimizer_in_backward": True}, "adamw_torch, optimizer in the backward pass)"),
        ("prompt", {"r": None, "num_virtual_tokens": 20}, "prompt tuning (20 virtual tokens)"),
        ("ia3", {"r": None}, "IA3"),
    ],
)
def test_method_phrase_says_what_makes_it_another_recipe(method: str, changes: dict[str, Any], expected: str) -> None:
    assert expected in words.method_phrase(method, build_config(method).model_copy(update=changes))
    assert words.method_phrase("qlora", None) == "QLoRA"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"deepspeed": {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}}}, True),
        ({"deepspeed": {"zero_optimization": {"stage": 3}}}, False),
        ({"fsdp_config": {"cpu_offload": True}}, True),
        ({"fsdp_config": {"cpu_offload": False}}, False),
    ],
)
def test_offload_is_said(config: dict[str, Any], said: bool) -> None:
    changed = config_13b().model_copy(update=config)
    call = build_13b().verdict.model_copy(update={"parallel": "zero3", "config": changed})
    assert ("(ZeRO-3 with offload to the host)" in words.verdict_sentence(build_13b(verdict=call))) is said


def test_the_paragraph_of_a_call() -> None:
    sentences = words.verdict_paragraph(build_13b())
    assert list(sentences[1:]) == [
        "One run costs 68.24 USD (54.59 to 85.30), 10 to 20 runs until it is right 1,065 USD (566.41 to 1,774), for "
        "each of the 5 variants.",
        "Before training, try prompting, which trains nothing.",
        "Confidence: medium, because nobody has measured how much of this data the base already knows.",
        "Biggest risk: the whole project lies beyond the budget: 5,323 USD of 550 USD.",
        "Runner-up: full-8bit-zero3, about 26 h 12 min (21 to 33 h), 120.00 USD (96.00 to 150.00), expected to gain "
        "99 % (95 to 100) of what full fine-tuning would, against 97 % (92 to 101); it would win if the data had "
        "91,750,000 answer tokens instead of 20,480,000.",
    ]


def test_the_paragraph_where_nothing_runs_names_what_would() -> None:
    sentences = words.verdict_paragraph(build_none())
    assert sentences[0].startswith("Nothing fits 2 x A100-80GB: the smallest option, full-zero3, needs up to 111 GB")
    assert sentences[-1] == (
        "The cheapest that would fit: qlora-r16 on one L4-24GB: 19.3 GB of 24.0 GB, about 31 h 30 min, 22.10 USD "
        "(17.68 to 27.62)."
    )
    assert not [s for s in sentences if "risk" in s]
    assert words.warnings_left(build_none()) == build_none().warnings


def test_no_number_is_made_up() -> None:
    unpriced = tuple(estimate(o, price=None) for o in OPTIONS)
    cost = words.verdict_paragraph(build_13b(candidates=unpriced))[1]
    assert cost == "The cost is unknown: no price of A100-80GB is known."
    timeless = tuple(e.model_copy(update={"time": UNKNOWN_TIME}) for e in unpriced)
    assert "time unknown" in words.verdict_sentence(build_13b(candidates=timeless))
    assert "USD" not in " ".join(words.verdict_paragraph(build_plan())), "our own machine has no price to speak of"


@pytest.mark.parametrize("plan", [build_13b(), build_none(), build_plan()], ids=["13b", "none", "clinic"])
def test_three_to_six_sentences_none_twice(plan: Plan) -> None:
    sentences = words.verdict_paragraph(plan)
    assert 3 <= len(sentences) <= 6
    assert len(set(sentences)) == len(sentences)
    below = [line for passage in words.plan_lines(plan) for line in passage.lines]
    assert not set(sentences) & set(below)
    assert all(s.endswith(".") and not s.endswith("..") for s in sentences)


@pytest.mark.parametrize(
    ("runner_up", "then", "flip", "expected"),
    [
        ("full-8bit-zero3", "prompting first, then full-8bit instead of lora", "x", "there were 9"),
        ("full-zero3", "full-8bit instead of lora", "x", "x"),
        ("full-8bit", "full instead of lora", None, None),
        ("qlora-r16", "lora instead of qlora", None, None),
        ("lora-r16-checkpointing", "retrieval first, then lora instead of lora", "x", "x"),
    ],
)
def test_the_runner_up_wins_by_a_flip_to_its_own_recipe(
    runner_up: str, then: str, flip: str | None, expected: str | None
) -> None:
    flips = (build_flip("there were 9", then, "hardware.count", 9.0, 2.0, "GPUs"),)
    plan = build_13b(runner_up=runner_up, flips=flips, rejected=(rejection(runner_up, flip),))
    assert winning_condition(plan, runner_up) == expected
