"""docs/how-it-decides.md is what the rules and their evidence make, whole."""

import re
from pathlib import Path

import pytest

from rankwise.api.how import how_it_decides as committed
from rankwise.decide.compatibility import refusals
from rankwise.decide.quality import priors
from rankwise.decide.rulebook import Evidence, RuleText, evidence, rules
from rankwise.report.rules_words import KINDS, STEPS, how_it_decides, number_text

DOCS = Path(__file__).parents[2] / "docs"


def rule(**changes: object) -> RuleText:
    content = {
        "id": "enough_memory",
        "title": "It must fit",
        "step": "feasibility",
        "kind": "hard",
        "inputs": ["peak", "capacity"],
        "thresholds": {"room": {"value": 0.9, "unit": "of the device", "means": "most that may be taken"}},
        "direction": "More than `room` is refused",
        "evidence": ["E2"],
        "confidence": "high",
        "other_side": "Swapping exists",
    }
    return RuleText.model_validate(content | changes)


SOURCE = Evidence(id="E2", source="QLoRA", setup="65B", text="48 GB.", confidence="high", read="abs", other_side="No.")


def test_the_page_is_up_to_date() -> None:
    assert (DOCS / "how-it-decides.md").read_text(encoding="utf-8") == committed(), "run `make docs`"


def test_a_rule_and_its_evidence_are_told() -> None:
    text = how_it_decides({"enough_memory": rule()}, {"E2": SOURCE})
    section = text.partition("### enough_memory")[2].partition("### E2")[0]
    assert "**It must fit** (hard, confidence high). More than `room` is refused." in section
    assert "- Looks at: peak, capacity" in section
    assert "- `room` = 0.9 of the device: most that may be taken" in section
    assert "- The other side: Swapping exists." in section
    assert "[E2](#e2)" in section and "- E2, 65B: 48 GB." in section
    listed = text.partition("### E2")[2]
    assert "**QLoRA** (abstract, or notes of others, read; confidence high)." in listed
    assert "- The other side: No." in listed and "- Used by: [enough_memory](#enough_memory)" in listed


def test_a_rule_without_evidence_or_other_side_says_so() -> None:
    text = how_it_decides({"enough_memory": rule(evidence=[], other_side="", thresholds={})}, {"E2": SOURCE})
    assert "- Evidence: arithmetic" in text
    assert "- The other side: none known" in text
    assert "- Used by: no rule directly" in text


def test_evidence_that_is_missing_is_refused() -> None:
    with pytest.raises(KeyError, match="E9"):
        how_it_decides({"enough_memory": rule(evidence=["E9"])}, {"E2": SOURCE})


def test_every_line_of_the_tables_is_on_the_page() -> None:
    tables = committed().partition("## What does not work together")[2]
    for refused in refusals():
        assert f"| {', '.join(refused.methods)} | {refused.feature} | {refused.why} |" in tables
    for prior in priors():
        assert f"| {prior.value:.2f} | {prior.low:.2f} to {prior.high:.2f} | {prior.evidence} |" in tables
    assert len(refusals()) >= 5 and len(priors()) >= 8


def test_every_rule_number_and_source_of_the_product_is_on_the_page() -> None:
    page = committed()
    heads = re.findall(r"^### (\S+)$", page, re.MULTILINE)
    assert sorted(heads) == sorted([*rules(), *evidence()])
    assert len(rules()) >= 20 and len(evidence()) >= 30
    for name, told in rules().items():
        section = page.partition(f"### {name}\n")[2].partition("\n### ")[0]
        written = re.findall(r"^- `(\w+)` = (\S+) ", section, re.MULTILINE)
        assert {k: float(v.replace(",", "")) for k, v in written} == {k: t.value for k, t in told.thresholds.items()}
        assert set(re.findall(r"\[(\w+)\]\(#\w+\)", section.partition("<details>")[0])) == set(told.evidence)
    assert {r.step for r in rules().values()} <= set(STEPS) and {r.kind for r in rules().values()} <= set(KINDS)


def test_the_order_of_the_decision_comes_first() -> None:
    intro = committed().partition("## Need")[0]
    steps = re.findall(r"^\d\. \*\*(\w+)\*\*", intro, re.MULTILINE)
    assert steps == ["need", "capacity", "feasibility", "cost", "risk", "configuration"]
    assert len(intro.splitlines()) <= 40, "one screen"
    assert "forced" in intro.lower()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.05, "0.05"),
        (100.0, "100"),
        (1e7, "10,000,000"),
        (5e-5, "5e-05"),
        (0.781, "0.781"),
        (2.0, "2"),
        (0.0775, "0.0775"),
    ],
)
def test_numbers_are_written_to_the_last_digit(value: float, text: str) -> None:
    assert number_text(value) == text
    assert float(text.replace(",", "")) == value
