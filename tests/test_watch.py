"""`rankwise watch` on a run of ours, on what transformers' Trainer left, on adapters and on whole models."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
from typer.testing import CliRunner

from rankwise import api
from rankwise.cli import app
from rankwise.errors import DataError, ModelError, RunError, UsageError
from rankwise.files import read_record
from rankwise.model.adapterproducts import AdapterFolder
from rankwise.model.likelihood import final_logits
from rankwise.records import Lineage, SpectrumSeen, Watching
from rankwise.store import LINEAGE, Run
from rankwise.watch import directions
from tests.tiny import tiny_llama
from tests.training import toy_model, toy_rows, trained, write_jsonl

PROMPTS = [[1, 5, 9, 40], [7, 8, 30]]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        kept = tmp_path_factory.mktemp("cache")
        patch.setattr(directions, "cache_folder", lambda: kept)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A LoRA run that learned."""
    train = {"max_steps": 20, "eval_steps": 5, "save_steps": 5}
    return trained(tmp_path_factory.mktemp("run"), base, {"name": "lora", "r": 8}, rows=48, train=train)


@pytest.fixture(scope="module")
def trainer(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers' own Trainer leaves of a LoRA run with PEFT."""
    out = tmp_path_factory.mktemp("trainer") / "out"
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    ids = torch.randint(3, 200, (16, 10), generator=torch.Generator().manual_seed(0)).tolist()
    rows: Any = [{"input_ids": row, "labels": row, "attention_mask": [1] * 10} for row in ids]
    steps = {"max_steps": 6, "logging_steps": 1, "eval_steps": 3, "save_steps": 3, "learning_rate": 1e-2}
    settings = TrainingArguments(
        output_dir=str(out),
        eval_strategy="steps",
        eval_on_start=True,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **steps,
    )
    Trainer(model=model, args=settings, train_dataset=rows, eval_dataset=rows[:4]).train()
    return out


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["watch", *(str(a) for a in arguments)])


# -- a run of ours ---------------------------------------------------------------------------------


def test_a_run_tells_its_spectra_while_it_trains(run: Run) -> None:
    seen = [e for e in run.events() if isinstance(e, SpectrumSeen)]
    assert seen[-1].step == 20 and all(e.step % 5 == 0 and e.step > 0 for e in seen)
    assert len(seen[-1].modules) == 14 and all(m.norm > 0 and m.rank == 8 for m in seen[-1].modules)
    assert seen[-1].seconds > 0
    summary = run.evidence().spectrum
    assert summary is not None and summary.matrices == 14 and summary.last.step == 20


def test_watching_a_run_adds_what_needs_the_base(run: Run) -> None:
    found = api.watch(run.folder)
    assert (found.kind, found.method, found.step) == ("run", "lora", run.evidence().best_validation_step)
    assert "sha256" in found.matched and found.no_spectrum is None
    base = load_file(run.plan().facts.model.path / "model.safetensors")
    products = {p.module: p for p in AdapterFolder.open(run.adapter).products()}
    for module in found.modules:
        product, weight = products[module.module], base[f"{module.module}.weight"].float()
        norm = float((product.scale * product.b @ product.a).norm())
        assert module.norm == pytest.approx(norm, rel=1e-4)
        assert module.norm_ratio == pytest.approx(norm / float(weight.norm()), rel=1e-3)
        assert module.intruders is not None
    kept = run.evidence().spectrum
    assert kept == found.spectrum and kept is not None and kept.last.intruders is not None
    names = [f.name for f in run.evidence().findings]
    assert len(names) == len(set(names)) and "learned" in names


def test_the_adapter_alone_needs_no_base(run: Run) -> None:
    found = api.watch(run.folder, adapter_only=True)
    assert found.base is None and all(m.norm_ratio is m.intruders is None for m in found.modules)


def test_a_run_that_did_not_finish_is_watched_by_its_newest_checkpoint(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "events.jsonl").write_text("".join(line for line in lines if '"finished"' not in line))
    shutil.rmtree(tmp_path / "run" / "adapter")
    found = api.watch(tmp_path / "run")
    assert found.step == 20 and found.spectrum is not None and found.spectrum.last.step == 20


def test_a_checkpoint_of_ours_is_an_adapter_that_knows_its_base(run: Run) -> None:
    found = api.watch(run.checkpoints / "checkpoint-20")
    assert found.kind == "adapter" and "sha256" in found.matched and found.spectrum is not None


def test_a_planned_run_has_nothing_to_watch(run: Run, tmp_path: Path) -> None:
    shutil.copy(run.plan_path, tmp_path / "plan.json")
    with pytest.raises(RunError, match="has not started"):
        api.watch(tmp_path)


def test_what_a_rank_is_worth_and_a_smaller_adapter_with_its_proof(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "smaller"
    result = call(run.folder, "--shrink", 3, "--out", out, "--json", "--page", tmp_path / "page.html")
    found = Watching.model_validate(json.loads(result.stdout))
    assert result.exit_code == 0, result.output
    assert found.truncation is not None and [r.rank for r in found.truncation.ranks] == [1, 2, 3, 4]
    assert found.truncation.gain > 0 and found.shrunk is not None and found.shrunk.passed
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (3, 3)
    lineage, whole = read_record(out / LINEAGE, Lineage), run.plan().lineage()
    assert lineage.parent is not None and lineage.parent.lineage == whole
    assert lineage.base_weights == whole.base_weights and (out / "artifact.json").is_file()
    # It loads with plain PEFT, and what it adds is the dense truncation.
    plain = AutoModelForCausalLM.from_pretrained(run.plan().facts.model.path, dtype=torch.float32)
    small: Any = PeftModel.from_pretrained(plain, out).eval()
    for product in AdapterFolder.open(run.adapter).products():
        u, s, vh = torch.linalg.svd(product.scale * product.b @ product.a, full_matrices=False)
        added = small.base_model.model.get_submodule(product.module).get_delta_weight("default")
        assert torch.allclose(added, u[:, :3] * s[:3] @ vh[:3], atol=1e-4 * float(s[0]))
    whole_model: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(run.plan().facts.model.path, dtype=torch.float32), run.adapter
    ).eval()
    assert not torch.allclose(final_logits(small, PROMPTS), final_logits(whole_model, PROMPTS), atol=1e-6)
    page = (tmp_path / "page.html").read_text()
    assert "What a rank is worth" in page and "smaller" in page and "http://" not in page
    with pytest.raises(RunError, match="already in use"):
        api.shrink(run, 2, out)
    watched = api.watch(out)  # the smaller adapter is one, too, and knows its base by hash
    assert watched.kind == "adapter" and "sha256" in watched.matched and watched.spectrum is not None
    assert watched.spectrum.rank == 3


@pytest.mark.prove
@pytest.mark.parametrize("method", ["rslora", "dora", "qlora", "lora-8bit", "pissa"])
def test_every_kind_of_lora_is_made_smaller_with_its_proof(method: str, base: Path, tmp_path: Path) -> None:
    run = trained(tmp_path, base, {"name": method, "r": 4}, train={"max_steps": 12})
    found = api.watch(run.folder, truncate=True)
    assert found.truncation is not None and found.truncation.full_rank == (8 if method == "pissa" else 4)
    shrunk, outcome = api.shrink(run, 2, tmp_path / "smaller")
    assert shrunk.passed, [c for c in outcome.checks if not c.passed]
    with pytest.raises(UsageError, match="rank 9 for an adapter of rank"):
        api.shrink(run, 9, tmp_path / "larger")


@pytest.mark.parametrize("rank", [8, 20])
def test_a_rank_that_is_none_below_is_refused(rank: int, run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"rank {rank} for an adapter of rank 8"):
        api.shrink(run, rank, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- runs of others --------------------------------------------------------------------------------


def test_output_of_transformers_trainer_is_watched(trainer: Path, base: Path) -> None:
    found = api.watch(trainer, base=str(base))
    assert (found.kind, found.method, found.step) == ("trainer", "lora", 6)
    assert found.spectrum is not None and [p.step for p in found.spectrum.growth] == [3, 6]
    assert found.spectrum.growth[1].norm > found.spectrum.growth[0].norm > 0
    assert found.spectrum.last.intruders is not None and len(found.modules) == 4
    assert "learned" in [f.name for f in found.findings] and "by name and shape of 4 of 4 weights" in found.matched
    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), trainer / "checkpoint-6")
    for module in found.modules:
        delta = model.base_model.model.get_submodule(module.module).get_delta_weight("default").float()
        assert module.norm == pytest.approx(float(delta.norm()), rel=1e-2)  # in the base's bf16


def test_the_base_that_an_adapter_names_is_found(trainer: Path, base: Path) -> None:
    found = api.watch(trainer / "checkpoint-3")
    assert found.base is not None and Path(found.base) == base.resolve() and found.kind == "trainer"
    assert "it names" in found.matched


def test_a_log_alone_has_findings_and_no_spectrum(trainer: Path, tmp_path: Path) -> None:
    shutil.copy(trainer / "checkpoint-6" / "trainer_state.json", tmp_path)
    found = api.watch(tmp_path)
    assert found.spectrum is None and found.step is None and "learned" in [f.name for f in found.findings]
    assert any("log alone" in note for note in found.notes)


def test_general_rows_show_what_was_forgotten(trainer: Path, base: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", toy_rows(12))
    found = api.watch(trainer, base=str(base), general=rows, data=rows, truncate=True)
    (held,) = found.comparisons
    assert held.metric == "heldout_loss" and held.items == 12 and found.forgetting is not None
    (general,) = found.forgetting.slices
    assert (general.baseline, general.value) == pytest.approx((held.base, held.tuned), abs=1e-5)
    assert general.items == 12 and general.baseline != general.value and found.forgetting.step == 6
    cut = found.truncation
    assert cut is not None and cut.full_rank == 4 and [r.rank for r in cut.ranks] == [1, 2]
    assert (cut.base_loss, cut.full_loss) == pytest.approx((held.base, held.tuned), abs=1e-5)


def test_general_ability_is_asked_of_our_own_sets_and_what_is_red_is_a_fault(base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.embed_tokens.weight"] *= 4  # four times as sure of everything
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    result = call(broken, "--base", base, "--forgetting", "--json")
    found = Watching.model_validate(json.loads(result.stdout))
    assert result.exit_code == 3 and found.forgetting is not None and found.forgetting.level == "red"
    assert [s.name for s in found.forgetting.slices] == ["general text", "general answers", "general questions"]
    assert [f.name for f in found.findings if f.level == "fault"] == ["forgot"]


def test_a_whole_model_is_watched_by_its_difference(base: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned"
    shutil.copytree(base, tuned)
    tensors = load_file(tuned / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    before = tensors[name].float()
    tensors[name] = (before + 0.1 * torch.outer(torch.ones(64), torch.ones(128))).bfloat16()
    save_file(tensors, tuned / "model.safetensors", {"format": "pt"})
    found = api.watch(tuned, base=str(base))
    changed = {m.module: m for m in found.modules if m.norm > 0}
    (module,) = changed.values()
    assert (found.kind, found.method) == ("model", "full") and list(changed) == [name.removesuffix(".weight")]
    change = tensors[name].float() - before
    assert module.norm_ratio == pytest.approx(float(change.norm() / before.norm()), rel=1e-3)
    assert module.effective_rank is not None and module.effective_rank < 2 and module.rank == 64
    alone = api.watch(tuned)
    assert alone.spectrum is None and "difference to the base" in (alone.no_spectrum or "")


def test_exit_code_3_where_a_finding_is_a_fault(trainer: Path, base: Path, tmp_path: Path) -> None:
    shutil.copytree(trainer / "checkpoint-6", tmp_path / "dead")
    file = tmp_path / "dead" / "adapter_model.safetensors"
    save_file({n: t if "lora_A" in n else 0 * t for n, t in load_file(file).items()}, file, {"format": "pt"})
    result = call(tmp_path / "dead", "--base", base)
    assert result.exit_code == 3 and "FAULT: Nothing that was to train has changed" in result.stdout
    sound = call(trainer, "--base", base)
    assert sound.exit_code == 0 and "Update of 4 matrices" in sound.stdout and "Condition number" in sound.stdout
    assert "infinite" in sound.stdout


# -- what is refused -------------------------------------------------------------------------------


def test_a_base_of_another_hash_is_refused(run: Run, tmp_path: Path) -> None:
    other = toy_model(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match="another base") as caught:
        api.watch(run.folder, base=str(other))
    assert "sha256" in caught.value.expected and "lineage" in caught.value.expected
    with pytest.raises(ModelError, match="another base"):
        api.watch(run.adapter, base=str(other))
    assert call(run.adapter, "--base", other).exit_code == 1


def test_a_base_of_other_shapes_is_refused(trainer: Path, tmp_path: Path) -> None:
    other = tiny_llama(tmp_path / "small")
    with pytest.raises(ModelError, match=r"does not belong on .* 64 x 64, and the base's has 32 x 32"):
        api.watch(trainer, base=str(other))
    save_file({"h.weight": torch.ones(2, 2)}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="none of its 4 modules"):
        api.watch(trainer, base=str(other))


def test_a_base_that_is_not_here_leaves_the_adapter_alone(trainer: Path, tmp_path: Path) -> None:
    shutil.copytree(trainer / "checkpoint-6", tmp_path / "moved")
    config = tmp_path / "moved" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "somebody/elses"}))
    found = api.watch(tmp_path / "moved")
    assert found.base is None and found.spectrum is not None and "--base" in found.notes[-1]
    with pytest.raises(ModelError):
        api.watch(tmp_path / "moved", general=write_jsonl(tmp_path / "rows.jsonl", toy_rows(3)))


def test_rows_need_a_tokenizer_and_spectra_do_not(trainer: Path, base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    rows = write_jsonl(tmp_path / "rows.jsonl", toy_rows(3))
    assert api.watch(trainer, base=str(tmp_path / "bare")).spectrum is not None
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        api.watch(trainer, base=str(tmp_path / "bare"), general=rows)


def test_an_empty_file_of_rows_is_refused(trainer: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty"):
        api.watch(trainer, base=str(base), general=write_jsonl(tmp_path / "none.jsonl", []))


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing that can be watched"):
        api.watch(tmp_path)
    result = call(tmp_path / "nowhere")
    assert result.exit_code == 1 and "there is no folder" in result.stderr


def test_options_that_belong_together(run: Run, trainer: Path, tmp_path: Path) -> None:
    assert call(run.folder, "--shrink", 2).exit_code == 2
    with pytest.raises(UsageError, match="held-out rows"):
        api.watch(trainer, truncate=True)
    rows = write_jsonl(tmp_path / "rows.jsonl", toy_rows(3))
    with pytest.raises(UsageError, match="beside those of the base"):
        api.watch(trainer, adapter_only=True, general=rows)
    with pytest.raises(RunError, match="not a run folder"):
        api.open_run(trainer)
