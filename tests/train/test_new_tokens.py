"""New tokens of the vocabulary, each way, on tied and untied embeddings: planned, trained, resumed, merged, proven, and
loaded with plain transformers and PEFT.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from rankwise import api
from rankwise.api.observing import observe
from rankwise.decide.configure import Rung, configure
from rankwise.decide.recipes import BY_NAME
from rankwise.errors import JobError, ModelError
from rankwise.model.attach import load_adapter, total_params, trainable_params
from rankwise.model.likelihood import final_logits
from rankwise.model.load import load_base
from rankwise.model.vocabulary import extend
from rankwise.records import Started, Validation
from rankwise.store import Run
from rankwise.text.template import ChatText
from tests.training import carry_out, losses, published, toy_job, toy_model, toy_run, trained, weights, write_jsonl

TOKENS = ["<open>", "<closed>", "clinically"]
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"{n} {TOKENS[n % 3]} please"},
            {"role": "assistant", "content": f"{TOKENS[n % 3]}."},
        ]
    }
    for n in range(24)
]
WAYS = [
    ("tied", "lora", "trainable_token_indices"),
    ("untied", "lora", "target_modules"),
    ("untied", "lora", "modules_to_save"),
]
PROVED = [
    ("tied", "qlora", "modules_to_save"),
    ("tied", "full", None),
    ("untied", "dora", "trainable_token_indices"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in ("tied", "untied")}
    return {name: toy_model(folder, hidden=128, intermediate=256, tied=name == "tied") for name, folder in made.items()}


def job_of(folder: Path, way: str | None, **changes: Any) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "train.jsonl", ROWS)
    (folder / "tokens.txt").write_text("\n".join(TOKENS) + "\n")
    data = {"train": "train.jsonl", "validation": 0.25, "new_tokens": "tokens.txt"}
    return {"data": data, "train": {"max_steps": 6, **({"new_token_rows": way} if way else {}), **changes}}


@pytest.fixture(
    scope="module",
    params=[*WAYS, *(pytest.param(way, marks=pytest.mark.prove) for way in PROVED)],
    ids=lambda w: f"{w[0]}-{w[1]}-{w[2]}",
)
def asked(request: pytest.FixtureRequest) -> tuple[str, str, str | None]:
    found: tuple[str, str, str | None] = request.param
    return found


@pytest.fixture(scope="module")
def run(asked: tuple[str, str, str | None], models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    kind, method, way = asked
    folder = tmp_path_factory.mktemp("run")
    return trained(folder, models[kind], method, **job_of(folder, way))


def test_the_plan_knows_what_trains(run: Run) -> None:
    plan = run.plan()
    estimate, started = plan.chosen(), next(e for e in run.events() if isinstance(e, Started))
    assert estimate is not None and plan.facts.new_tokens is not None
    assert (estimate.trainable_params, estimate.total_params) == (started.trainable_params, started.total_params)
    assert plan.facts.new_tokens.rows == plan.facts.model.vocab_size + len(TOKENS)
    if run.adapter.is_dir():
        assert (run.adapter / "adapter_model.safetensors").stat().st_size == estimate.storage.adapter_bytes


def test_it_learns_with_the_extended_tokenizer(run: Run) -> None:
    new = run.plan().facts.new_tokens
    assert new is not None and all(len(pieces) > 1 for pieces in new.pieces)
    held_out = [e.loss for e in run.events() if isinstance(e, Validation)]
    assert min(held_out) < held_out[0]
    tokenizer = AutoTokenizer.from_pretrained(published(run), local_files_only=True)
    assert [tokenizer(token, add_special_tokens=False)["input_ids"] for token in TOKENS] == [[i] for i in new.ids]


def test_merged_and_proven_and_ties_stay(run: Run, asked: tuple[str, str, str | None]) -> None:
    folder = api.merge(run)
    outcome, artifact = api.verify(run)
    assert outcome.passed and artifact is not None, [c for c in outcome.checks if not c.passed]
    merged: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    new = run.plan().facts.new_tokens
    assert new is not None and merged.config.vocab_size == new.rows
    assert (merged.get_output_embeddings().weight is merged.get_input_embeddings().weight) == (asked[0] == "tied")
    assert ChatText.from_folder(folder).encode("<open>") == [new.ids[0]]


def test_plain_peft_loads_it_after_a_resize(run: Run, asked: tuple[str, str, str | None]) -> None:
    new = run.plan().facts.new_tokens
    assert new is not None
    prompts = [[1, 5, new.ids[0], 40], [7, new.ids[2], 30]]
    if asked[1] in ("full", "qlora"):
        pytest.skip("a whole model needs no resize; a quantised base is loaded in one way alone")
    base: Any = AutoModelForCausalLM.from_pretrained(run.plan().facts.model.path, dtype=torch.bfloat16)
    base.resize_token_embeddings(new.rows)
    plain = PeftModel.from_pretrained(base, run.adapter).eval()
    ours = load_adapter(extend(load_base(run.plan().facts.model.path, dtype="bf16"), new), run.adapter)
    assert torch.equal(final_logits(plain, prompts), final_logits(ours, prompts))
    if asked[0] == "tied":
        assert torch.equal(plain.get_output_embeddings().weight, plain.get_input_embeddings().weight)


def test_stopped_and_resumed(
    run: Run, asked: tuple[str, str, str | None], models: dict[str, Path], tmp_path: Path
) -> None:
    kind, method, way = asked
    broken = toy_run(tmp_path, models[kind], method, **job_of(tmp_path, way))
    carry_out(broken, stop_after=2)
    carry_out(broken, resume=True)
    assert losses(broken.events()) == losses(run.events())
    assert weights(published(broken)) == weights(published(run))


def test_rows_begin_at_the_mean_of_their_pieces(models: dict[str, Path], tmp_path: Path) -> None:
    run = toy_run(tmp_path, models["untied"], "lora", **job_of(tmp_path, None))
    new = run.plan().facts.new_tokens
    assert new is not None
    before, after = load_base(models["untied"], dtype="fp32"), load_base(models["untied"], dtype="fp32")
    extend(after, new)
    for one, other in (
        (before.get_input_embeddings(), after.get_input_embeddings()),
        (before.get_output_embeddings(), after.get_output_embeddings()),
    ):
        assert torch.equal(other.weight[: len(one.weight)], one.weight)
        for token, pieces in zip(new.ids, new.pieces, strict=True):
            assert torch.allclose(other.weight[token], one.weight[list(pieces)].mean(dim=0))
    assert total_params(after) == total_params(before) + 2 * 3 * 128 and trainable_params(after) == total_params(after)


@pytest.mark.parametrize(
    ("kind", "count", "way"),
    [
        ("tied", 3, "trainable_token_indices"),
        ("untied", 3, "trainable_token_indices"),
        ("tied", 40, "modules_to_save"),
        ("untied", 40, "target_modules"),
    ],
)
def test_few_tokens_train_their_rows_and_many_the_embedding(
    models: dict[str, Path], tmp_path: Path, kind: str, count: int, way: str
) -> None:
    path = toy_job(tmp_path, models[kind], "lora", **job_of(tmp_path, None))
    (tmp_path / "tokens.txt").write_text("\n".join(f"<new{n}>" for n in range(count)))
    job = api.load_job(path, {})
    config = configure(job, observe(job), BY_NAME["lora"], Rung())
    assert config.new_token_rows == way and len(config.new_token_ids or ()) == count
    assert configure(job, observe(job), BY_NAME["full"], Rung()).new_token_rows is None


@pytest.mark.parametrize(
    ("method", "tokens", "way", "said"),
    [
        ("lora", ["<a>", "user"], None, "'user' is token"),
        ("lora", ["<a>", "<a>"], None, "named twice"),
        ("lora", "nowhere.txt", None, "no such file"),
        ("ia3", ["<a>"], None, "data.new_tokens does not go with ia3"),
        ("pissa", ["<a>"], None, "data.new_tokens does not go with pissa"),
        ("lora", ["<a>"], "target_modules", "tied to it"),
        ("full", ["<a>"], "modules_to_save", "full trains every row"),
        ("lora", 0, "modules_to_save", "names no token"),
    ],
)
def test_what_cannot_be_is_refused(
    models: dict[str, Path], tmp_path: Path, method: str, tokens: Any, way: str | None, said: str
) -> None:
    asked = job_of(tmp_path, way)
    asked["data"]["new_tokens"] = tokens
    with pytest.raises(JobError, match=said):
        api.plan(toy_job(tmp_path, models["tied"], method, **asked))


def test_an_adapter_with_new_tokens_is_not_gone_on_from(run: Run, models: dict[str, Path], tmp_path: Path) -> None:
    if not run.adapter.is_dir() or run.plan().verdict.method != "lora":
        pytest.skip("no LoRA adapter")
    with pytest.raises((ModelError, JobError)):
        toy_run(tmp_path, run.plan().facts.model.path, {"name": "lora", "adapter": str(run.folder)})
