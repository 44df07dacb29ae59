"""The model card: data, method, evidence, limits; evidence is written again, the rest stays."""

import yaml

from rankwise.report.card import BEGIN, END, model_card, with_evidence
from rankwise.watch.evidence import summarise
from tests import builders


def test_a_card_has_front_matter_and_every_section() -> None:
    plan = builders.plan()
    card = model_card(plan)
    _, front, body = card.split("---\n", 2)
    said = yaml.safe_load(front)
    assert said["base_model"] == plan.job.model and said["pipeline_tag"] == "text-generation"
    assert said.get("license") == plan.facts.model.license
    titles = [line for line in body.splitlines() if line.startswith("## ")]
    assert titles == ["## Data", "## Method", "## Evidence", "## Limits"]
    assert plan.data_hash in body and str(plan.facts.model.weights_hash) in body
    assert "Nothing was measured yet" in body


def test_evidence_is_told_and_written_again() -> None:
    plan = builders.plan()
    evidence = summarise(plan, builders.whole_run())
    card = model_card(plan, evidence=evidence)
    assert "Loss on held-out rows: 2.5" in card and "`rankwise eval` does that" in card
    edited = card.replace("## Limits\n", "## Limits\n\nNot for children.\n")
    later = evidence.model_copy(update={"best_validation_loss": 0.05})
    again = with_evidence(edited, later)
    assert "Not for children." in again and "0.05" in again and with_evidence(again, later) == again
    assert again.count(BEGIN) == again.count(END) == 1
    assert with_evidence(model_card(plan), evidence).split(END)[1] == card.split(END)[1]


def test_a_card_without_a_place_for_evidence_stays() -> None:
    assert with_evidence("# Mine\n", None) == "# Mine\n"


def test_a_merged_model_is_one_of_transformers() -> None:
    card = model_card(builders.plan(), merged=True)
    assert "library_name: transformers\n" in card and "An adapter of" not in card
