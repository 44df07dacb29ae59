"""What a real run tells of its held-out rows and of its adapter, against the same computed in another way."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rankwise.evaluate.facttokens import fact_tokens
from rankwise.records import Event, Finished, Started, Validation
from rankwise.store import Run
from rankwise.text.dataset import load_dataset
from rankwise.text.masks import IGNORE
from rankwise.text.template import ChatText
from tests.training import carry_out, toy_model, toy_run, write_jsonl

NAMES = ("Clara", "Ilse", "Bruno", "Otto")


def rows(count: int) -> list[dict[str, Any]]:
    """A name and a number that the question does not say, and words that are always the same."""
    found = []
    for n in range(count):
        said = f"it was {NAMES[n % 4]} at {10 + n}, thank you."
        found.append({"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": said}]})
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[Event]]:
    folder = tmp_path_factory.mktemp("run")
    write_jsonl(folder / "train.jsonl", rows(24))
    model = toy_model(tmp_path_factory.mktemp("model"), dtype="fp32")
    method = {"name": "rslora", "r": 4, "lora_alpha": 6}
    run = toy_run(folder, model, method, train={"max_steps": 20, "eval_steps": 10, "learning_rate": 5e-3})
    return run, carry_out(run)


def checks(events: list[Event]) -> list[Validation]:
    return [e for e in events if isinstance(e, Validation)]


def test_each_validation_counts_the_same_tokens(trained: tuple[Run, list[Event]]) -> None:
    found = checks(trained[1])
    assert [v.step for v in found] == [0, 10, 20]
    many = {(v.fact_tokens, v.supervised_tokens) for v in found}
    assert len(many) == 1
    facts, supervised = many.pop()
    assert facts is not None and 0 < facts < supervised / 2
    assert all(v.fact_accuracy is not None and v.other_accuracy is not None for v in found)


def test_words_that_are_always_the_same_are_learned_before_names_and_numbers(
    trained: tuple[Run, list[Event]],
) -> None:
    base, *_, last = checks(trained[1])
    assert base.other_accuracy is not None and last.other_accuracy is not None and last.fact_accuracy is not None
    assert last.other_accuracy > base.other_accuracy + 0.3 and last.other_accuracy > last.fact_accuracy + 0.3


def test_the_shares_are_those_of_the_published_adapter_under_plain_peft(trained: tuple[Run, list[Event]]) -> None:
    run, events = trained
    plan, published = run.plan(), run.evidence().best_validation_step
    config = plan.verdict.config
    assert config and any(isinstance(e, Finished) for e in events)
    told = next(v for v in checks(events) if v.step == published)
    base = AutoModelForCausalLM.from_pretrained(plan.facts.model.path, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, run.adapter).eval()
    chat = ChatText.for_job(plan.job, plan.facts.model.path)
    data = load_dataset(
        plan.job, chat, general=None, max_length=config.max_length, on_long=config.on_long, seed=config.seed
    )
    right: dict[bool, list[bool]] = {True: [], False: []}
    for row in data.validation:
        said = model(input_ids=torch.tensor([row.ids])).logits[0].argmax(-1).tolist()
        hits = [said[i - 1] == row.ids[i] for i in range(1, len(row.ids)) if row.labels[i] != IGNORE]
        for fact, hit in zip(fact_tokens(row, chat) or (), hits, strict=True):
            right[fact].append(hit)
    assert told.fact_tokens == len(right[True])
    # bf16 arithmetic under autocast may turn a token that is nearly a tie
    assert told.fact_accuracy == pytest.approx(sum(right[True]) / len(right[True]), abs=0.05)
    assert told.other_accuracy == pytest.approx(sum(right[False]) / len(right[False]), abs=0.05)


def test_the_adapter_is_told_as_the_layers_hold_it(trained: tuple[Run, list[Event]], tmp_path: Path) -> None:
    found = next(e for e in trained[1] if isinstance(e, Started))
    assert (found.adapter_r, found.adapter_scaling) == (4, pytest.approx(6 / 4**0.5))
    assert "scaling_changed" not in {f.name for f in trained[0].evidence().findings}
