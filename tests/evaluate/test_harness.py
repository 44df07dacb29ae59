"""Tasks of lm-evaluation-harness on a model in memory: its own numbers, quietly, and every fault with its name."""

import importlib.util
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from rankwise.errors import BenchmarkError, UsageError
from rankwise.evaluate import harness_tasks
from rankwise.evaluate.harness import load_tokenizer, score
from rankwise.evaluate.harness_index import _members, remembered_index, task_manager
from rankwise.evaluate.harness_tasks import Asked, load_tasks
from rankwise.files import cache_folder
from rankwise.model.attach import attach, untouched
from rankwise.model.load import load_base
from rankwise.records import BenchmarkScore
from tests.lmtasks import CHOICE, QUESTIONS, write_tasks
from tests.tiny import tiny_config, tiny_llama

pytest.importorskip("lm_eval", reason="the extra `eval` is not installed")
KINDS = ("small_arc", "small_texts", "small_endings", "small_answers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny", positions=512, dtype="fp32")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))


def base(tiny: Path) -> Any:
    return load_base(tiny, dtype="fp32")


def ask(model: Any, tiny: Path, asked: Asked, **more: Any) -> dict[tuple[str, str], BenchmarkScore]:
    (loaded,), failed = load_tasks(asked)
    assert not failed
    found = score(model, load_tokenizer(tiny), loaded, asked, **more)
    return {(s.task, s.metric): s for s in found.scores}


def theirs(tiny: Path, folder: Path, tasks: list[str], monkeypatch: pytest.MonkeyPatch, **more: Any) -> dict[str, Any]:
    """lm-evaluation-harness by itself, with the model loaded by its path."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(folder)  # it looks for data files there alone
    model = {"pretrained": str(tiny), "device": "cpu", "dtype": "float32", **more.pop("model_args", {})}
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found: dict[str, Any] = simple_evaluate("hf", model_args=model, tasks=tasks, task_manager=manager, **more)
    monkeypatch.undo()
    return found


def test_the_numbers_are_the_harness_s_own(tiny: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiple choice, rolling log-likelihood, log-likelihood and generation, the value and its standard error."""
    found = theirs(tiny, folder, list(KINDS), monkeypatch)["results"]
    found |= theirs(tiny, folder, ["small_group"], monkeypatch)["results"]
    compared = 0
    for name in (*KINDS, "small_group"):
        for (task, metric), ours in ask(base(tiny), tiny, Asked((name,), folder)).items():
            assert ours.value == found[task][f"{metric},none"], (task, metric)
            stderr = found[task].get(f"{metric}_stderr,none")
            assert ours.stderr == (stderr if isinstance(stderr, float) else None), (task, metric)
            compared += ours.stderr is not None
    assert compared >= 8


def test_a_task_without_a_fault_is_warned_of_nothing(tiny: Path, folder: Path) -> None:
    asked = Asked(("small_arc",), folder, limit=2)
    (loaded,), _ = load_tasks(asked)
    assert score(base(tiny), load_tokenizer(tiny), loaded, asked).notes == ()


def test_so_are_those_with_examples_and_with_the_chat_template(
    tiny: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"num_fewshot": 2, "limit": 8, "apply_chat_template": True, "batch_size": 3}
    found = theirs(tiny, folder, ["small_arc"], monkeypatch, **said, log_samples=True)
    asked = Asked(("small_arc",), folder, limit=8, num_fewshot=2, batch_size=3, chat_template=True)
    ours = ask(base(tiny), tiny, asked)["small_arc", "acc_norm"]
    assert (ours.items, ours.num_fewshot, ours.limit, ours.chat_template) == (8, 2, 8, True)
    assert ours.value == found["results"]["small_arc"]["acc_norm,none"]
    assert ours.outcomes == tuple(float(s["acc_norm"]) for s in found["samples"]["small_arc"])


def test_an_adapter_counts_where_it_is_on(
    tiny: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = attach(base(tiny), tiny_config("lora", r=8))
    torch.manual_seed(5)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    tuned.save_pretrained(tmp_path / "adapter")
    found = theirs(tiny, folder, ["small_texts"], monkeypatch, model_args={"peft": str(tmp_path / "adapter")})
    asked, key = Asked(("small_texts",), folder), ("small_texts", "word_perplexity")
    plain = ask(base(tiny), tiny, asked)[key]
    on = ask(tuned, tiny, asked)[key]
    with untouched(tuned) as off:
        assert ask(off, tiny, asked)[key] == plain
    assert on.value == found["results"]["small_texts"]["word_perplexity,none"]
    assert on.value != plain.value and on.data_hash == plain.data_hash


@pytest.mark.parametrize("method", ["bottleneck", "ia3", "prompt", "prefix"])
def test_every_kind_of_request_is_answered_by_every_family(method: str, tiny: Path, folder: Path) -> None:
    tuned = attach(base(tiny), tiny_config(method, **METHOD[method]))
    for name in KINDS:
        asked = Asked((name,), folder, limit=2)
        assert all(s.items == 2 for s in ask(tuned, tiny, asked, resamples=0).values())
        with untouched(tuned) as off:
            assert ask(off, tiny, asked, resamples=0) == ask(base(tiny), tiny, asked, resamples=0)


NO_LORA = {"r": None, "lora_alpha": None, "lora_dropout": None, "target_modules": None}
METHOD: dict[str, dict[str, Any]] = {
    "bottleneck": {**NO_LORA, "bottleneck_size": 4},
    "ia3": {**NO_LORA, "target_modules": "all-linear"},
    "prompt": {**NO_LORA, "num_virtual_tokens": 4},
    "prefix": {**NO_LORA, "num_virtual_tokens": 4},
}


@pytest.mark.parametrize(
    "trained",
    [
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "trainable_token_indices": [5, 6]},
        {"target_modules": ["q_proj", "lm_head"]},
    ],
    ids=["a copy of the embedding", "rows of it", "the head"],
)
def test_a_model_whose_embedding_trains_is_not_tied_again(trained: dict[str, Any], tiny: Path, folder: Path) -> None:
    """The harness ties what it is given: it would change the first model, and break off at the others."""
    from peft import LoraConfig, get_peft_model

    tuned: Any = get_peft_model(base(tiny), LoraConfig(r=2, **trained))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    ids = torch.arange(3, 20)[None]
    before = tuned.eval()(ids).logits
    assert ask(tuned, tiny, Asked(("small_arc",), folder, limit=2))["small_arc", "acc"].items == 2
    assert torch.equal(tuned(ids).logits, before) and "tie_weights" not in vars(tuned)


def test_training_goes_on_as_if_nothing_had_been_asked(tiny: Path, folder: Path) -> None:
    model = base(tiny).train()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    ask(model, tiny, Asked(("small_arc",), folder, limit=2, num_fewshot=1))
    assert model.training and all(m.training for m in model.modules())
    assert torch.equal(torch.get_rng_state(), state[0]) and random.getstate() == state[1]
    assert np.random.get_state()[1].tolist() == state[2]  # type: ignore[union-attr]


def test_each_model_gets_the_same_examples(tiny: Path, folder: Path) -> None:
    asked = Asked(("small_arc",), folder, num_fewshot=2)
    (loaded,), _ = load_tasks(asked)
    model, tokenizer = base(tiny), load_tokenizer(tiny)
    assert score(model, tokenizer, loaded, asked) == score(model, tokenizer, loaded, asked)
    other = Asked(("small_arc",), folder, num_fewshot=2, seed=7)
    assert [s.seed for s in score(model, tokenizer, loaded, other).scores] == [7, 7]


def test_nothing_is_said_but_how_far_it_is(tiny: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import sys

    told: list[tuple[str, int, int]] = []

    def tell(*now: Any) -> None:
        told.append(now)
        print("aloud", file=sys.stderr)

    asked = Asked(("small_texts",), folder)
    ask(base(tiny), tiny, asked, progress=tell)
    ask(base(tiny), tiny, Asked(("small_arc",), folder, limit=3), progress=tell)
    said = capfd.readouterr()
    assert said.out == "" and set(said.err.split()) == {"aloud"}
    assert told == [("small_texts", n, 4) for n in (1, 2, 3, 4)] + [("small_arc", n, 12) for n in range(1, 13)]


def test_what_the_harness_warns_of_is_kept(tmp_path: Path, folder: Path) -> None:
    short = tiny_llama(tmp_path / "short", positions=16, dtype="fp32")
    asked = Asked(("small_arc",), folder, limit=2)
    (loaded,), _ = load_tasks(asked)
    notes = score(base(short), load_tokenizer(short), loaded, asked).notes
    assert len(notes) == 1 and "Truncating" in notes[0] and "times)" in notes[0]


def test_the_hash_knows_the_items_and_the_prompt(tiny: Path, folder: Path, tmp_path: Path) -> None:
    def hashed(where: Path, **more: Any) -> str:
        (loaded,), _ = load_tasks(Asked(("small_arc",), where, **more))
        return loaded.hashes["small_arc"]

    first = hashed(folder)
    assert hashed(write_tasks(tmp_path / "same")) == first  # in another place
    changed = [*QUESTIONS[:-1], {**QUESTIONS[-1], "answer": 0}]
    others = {
        hashed(write_tasks(tmp_path / "changed", questions=changed)),
        hashed(folder, limit=5),
        hashed(folder, num_fewshot=1),
    }
    text = (folder / "small_arc.yaml").read_text().replace("Answer:", "The answer:")
    (write_tasks(tmp_path / "asked") / "small_arc.yaml").write_text(text)
    others.add(hashed(tmp_path / "asked"))
    assert len(others | {first}) == 5


def test_what_is_made_of_the_data_lies_in_our_cache(tiny: Path, folder: Path, tmp_path: Path) -> None:
    before = sorted(p.name for p in folder.iterdir())
    load_tasks(Asked(("small_arc",), folder))
    assert (tmp_path / "cache" / "datasets" / "json").is_dir()
    assert sorted(p.name for p in folder.iterdir()) == before


# -- faults ----------------------------------------------------------------------------------------


def test_data_that_are_not_here_are_named_and_the_others_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded, failed = load_tasks(Asked(("not_here", "small_arc", "no_file"), folder))
    assert [one.name for one in loaded] == ["small_arc"]
    assert [f.task for f in failed] == ["not_here", "no_file"]
    hub, file = failed
    assert hub.what.startswith("the dataset nobody/nothing is not on this machine") and "HF_HUB_OFFLINE" in hub.what
    assert "load_dataset('nobody/nothing')" in hub.fix and "--tasks-path" in hub.fix
    assert "gone.jsonl" in file.what and "data_files" in file.fix


@pytest.fixture(scope="module")
def index() -> Path:
    """A cache in which the harness's own files have been read: the real one, so that they are read once."""
    assert len(remembered_index()) > 10_000
    return cache_folder()


def test_a_name_that_is_none_is_told_with_the_nearest(
    folder: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKWISE_CACHE", str(index))
    with pytest.raises(UsageError) as refused:
        load_tasks(Asked(("arc_esay",), folder))
    assert "'arc_esay'" in refused.value.what and "arc_easy" in refused.value.fix
    broken = write_tasks(tmp_path / "broken", ["small_arc"])
    (broken / "mine.yaml").write_text("task: [mine\n")
    with pytest.raises(UsageError, match=r"mine\.yaml"):
        load_tasks(Asked(("mine",), broken))
    with pytest.raises(UsageError, match="is not a folder"):
        load_tasks(Asked(("small_arc",), folder / "nowhere"))


def test_only_the_folders_of_the_tasks_are_read(index: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKWISE_CACHE", str(index))
    names = ("mmlu", "ai2_arc", "hellaswag")
    manager = task_manager((*names, "small_group"), folder)
    assert len(manager.task_index) < 1000 and {"arc_easy", "mmlu_anatomy", "mmlu_stem"} <= manager.task_index.keys()
    everything = remembered_index()
    for name in names:
        assert manager.task_index[name].name == name and everything[name].members == _members(manager.task_index[name])


def test_without_a_hub_the_datasets_of_known_tasks_are_named(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKWISE_CACHE", str(index))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded, failed = load_tasks(Asked(("arc_easy", "mmlu", "hellaswag")))
    assert not loaded
    said = [f.what for f in failed]
    assert "allenai/ai2_arc (ARC-Easy)" in said[0] and "cais/mmlu" in said[1] and "hellaswag" in said[2].lower()


def test_a_group_of_ones_own_may_hold_a_task_of_the_harness(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKWISE_CACHE", str(index))
    mine = write_tasks(tmp_path / "mine", ["small_arc"])
    (mine / "both.yaml").write_text(yaml.safe_dump({"group": "both", "task": ["small_arc", "arc_easy"]}))
    assert {"both", "small_arc", "arc_easy"} <= task_manager(("both",), mine).task_index.keys()
    by_path = load_tasks(Asked((str(mine / "small_arc.yaml"),), mine))
    assert [one.name for one in by_path[0]] == [str(mine / "small_arc.yaml")]


def test_a_task_whose_code_or_kind_cannot_run_is_told(folder: Path, tmp_path: Path) -> None:
    mine = write_tasks(tmp_path / "mine", ["small_arc"])
    code = "def rows(split):\n    raise RuntimeError('no such column: answr')\n"
    (mine / "columns.py").write_text(code)
    text = yaml.safe_dump({"task": "wrong", **CHOICE}, sort_keys=False)
    (mine / "wrong.yaml").write_text(text + "process_docs: !function columns.rows\n")
    (mine / "unsafe.yaml").write_text(yaml.safe_dump({"task": "unsafe", **CHOICE, "unsafe_code": True}))
    (mine / "image.yaml").write_text(yaml.safe_dump({"task": "image", **CHOICE, "doc_to_image": "picture"}))
    loaded, failed = load_tasks(Asked(("wrong", "unsafe", "image", "small_arc"), mine))
    assert len(loaded) == 1
    said = {f.task: f.what for f in failed}
    assert "could not be loaded: RuntimeError: no such column: answr" in said["wrong"]
    assert said["unsafe"] == "unsafe runs code that the model writes"
    assert "asks about images" in said["image"]


def test_a_chat_template_that_is_not_there_is_missed(tiny: Path, folder: Path) -> None:
    asked = Asked(("small_arc",), folder, chat_template=True)
    (loaded,), _ = load_tasks(asked)
    tokenizer = load_tokenizer(tiny)
    tokenizer.chat_template = None
    with pytest.raises(BenchmarkError, match="no chat template"):
        score(base(tiny), tokenizer, loaded, asked)


def test_without_the_extra_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BenchmarkError) as missing:
        load_tasks(Asked(("arc_easy",)))
    assert "lm-evaluation-harness is not installed" in missing.value.what
    assert "rankwise[eval]" in missing.value.fix == harness_tasks.INSTALL
