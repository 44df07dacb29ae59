"""The proof passes on sound files and fails on every sabotage; without it there is no artifact."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from rankwise import api
from rankwise.cli import app
from rankwise.export.merge import merge
from rankwise.export.proof import behaviour
from rankwise.files import folder_bytes, hash_folder
from rankwise.model.likelihood import final_logits
from rankwise.records import Check, Verification
from rankwise.store import Run
from rankwise.text.files import copy_text_files
from tests.training import METHOD_NAMES, toy_model, trained

ADAPTERS = ("lora", "qlora")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sound(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Trained, merged and proven runs."""
    runs = {}
    for name in METHOD_NAMES:
        run = trained(tmp_path_factory.mktemp(name), model, name, train={"max_steps": 20, "save_steps": 20})
        api.merge(run)
        outcome, artifact = api.verify(run)
        assert outcome.passed and artifact is not None, outcome
        runs[name] = run
    return runs


@pytest.fixture
def copy_of(sound: dict[str, Run], tmp_path: Path) -> Callable[[str], Run]:
    def copy(method: str) -> Run:
        folder = tmp_path / f"copy-{method}"
        shutil.copytree(sound[method].folder, folder)
        if method != "full":
            (folder / "merged_to").write_text(str(folder / "model"))
        return Run(folder)

    return copy


def checks(outcome: Verification) -> dict[str, Check]:
    return {c.name: c for c in outcome.checks}


def change_tensors(file: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    tensors = {name: change(name, tensor).contiguous() for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# -- sound ones ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_sound_files_are_proven(sound: dict[str, Run], method: str) -> None:
    artifact = sound[method].artifact()
    assert artifact is not None and artifact.verification.passed
    of_folder = ("tensors", "size", "same_ids", "stop_ids", "licence", "card")
    names = {"reload", "changes_output", "lineage", "tied_model", *(f"{name}_model" for name in of_folder)}
    if method != "full":
        names |= {"modules_applied", "merged_logits", "merged_choices", "merged_text"}
        names |= {f"{name}_adapter" for name in of_folder}
    assert set(checks(artifact.verification)) == names
    assert all(c.number and c.limit and c.text for c in artifact.verification.checks)
    assert artifact.kind == ("model" if method == "full" else "adapter+merged")
    run, plan = sound[method], sound[method].plan()
    for name, digest in artifact.files.items():
        folder, _, file = name.partition("/")
        assert hash_folder(run.folder / folder)[file] == digest
    assert artifact.lineage.plan == plan.content_hash() and artifact.lineage.base_weights == plan.base_hash
    assert artifact.lineage.job == plan.job_hash and artifact.license == "apache-2.0"


@pytest.mark.parametrize("method", ADAPTERS)
def test_the_merged_model_is_the_base_in_size_and_precision(sound: dict[str, Run], model: Path, method: str) -> None:
    merged, base = load_file(sound[method].model / "model.safetensors"), load_file(model / "model.safetensors")
    assert {k: (v.shape, v.dtype) for k, v in merged.items()} == {k: (v.shape, v.dtype) for k, v in base.items()}
    config = json.loads((sound[method].model / "config.json").read_text())
    assert "quantization_config" not in config and config["dtype"] == "bfloat16"
    changed = [k for k in base if not torch.equal(base[k], merged[k])]
    assert len(changed) == 14 and all(k.endswith("proj.weight") for k in changed)


def test_the_merge_is_the_sum_in_fp32(sound: dict[str, Run], model: Path) -> None:
    run = sound["lora"]
    merged, base = load_file(run.model / "model.safetensors"), load_file(model / "model.safetensors")
    adapter = load_file(run.adapter / "adapter_model.safetensors")
    config = json.loads((run.adapter / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    for name, weight in base.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in adapter:
            delta = scale * adapter[f"{stem}.lora_B.weight"].float() @ adapter[f"{stem}.lora_A.weight"].float()
            expected = (weight.float() + delta).to(torch.bfloat16).float()
            assert torch.allclose(merged[name].float(), expected, rtol=1e-2, atol=1e-6)  # one bf16 step


def test_a_full_model_is_copied(sound: dict[str, Run], tmp_path: Path) -> None:
    run = sound["full"]
    assert api.merge(run) == run.model
    out = api.merge(run, tmp_path / "out")
    assert hash_folder(out) == hash_folder(run.model)


@pytest.mark.parametrize("method", ADAPTERS)
def test_merged_elsewhere_is_proven_there(copy_of: Callable[[str], Run], tmp_path: Path, method: str) -> None:
    run = copy_of(method)
    shutil.rmtree(run.model)
    out = api.merge(run, tmp_path / "elsewhere")
    outcome, artifact = api.verify(run)
    assert outcome.passed and artifact is not None and artifact.model == str(out)
    AutoModelForCausalLM.from_pretrained(out)
    assert folder_bytes(out) < 2 * run.plan().facts.model.weight_bytes + 100_000


def test_without_a_merged_model_the_adapter_alone_is_proven(copy_of: Callable[[str], Run]) -> None:
    run = copy_of("lora")
    shutil.rmtree(run.model)
    outcome, artifact = api.verify(run)
    assert outcome.passed and artifact is not None and artifact.kind == "adapter" and artifact.model is None


# -- sabotage --------------------------------------------------------------------------------------


def zero_b(run: Run) -> None:
    file = run.adapter / "adapter_model.safetensors"
    change_tensors(file, lambda name, t: torch.zeros_like(t) if "lora_B" in name else t)


def zero_one_b(run: Run) -> None:
    file = run.adapter / "adapter_model.safetensors"
    change_tensors(file, lambda name, t: torch.zeros_like(t) if "layers.1.mlp.up_proj.lora_B" in name else t)


def drop_one_module(run: Run) -> None:
    file = run.adapter / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "layers.0.self_attn.v_proj" not in k}, file)


def perturb(run: Run) -> None:
    change_tensors(run.adapter / "adapter_model.safetensors", lambda name, t: t * 1.01)


def merge_another_base(run: Run) -> None:
    other = toy_model(run.folder.parent / "other", seed=7)
    base = AutoModelForCausalLM.from_pretrained(other, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, run.adapter).merge_and_unload()
    shutil.rmtree(run.model)
    merged.to(torch.bfloat16).save_pretrained(run.model)
    copy_text_files(other, run.model)


def merge_wrong_scale(run: Run) -> None:
    twice = run.folder.parent / "twice"
    shutil.copytree(run.adapter, twice)
    change_json(
        twice / "adapter_config.json",
        lora_alpha=2 * json.loads((twice / "adapter_config.json").read_text())["lora_alpha"],
    )
    merge(run.plan(), twice, run.model)


def merge_nothing(run: Run) -> None:
    base = AutoModelForCausalLM.from_pretrained(run.plan().facts.model.folder)
    shutil.rmtree(run.model)
    base.save_pretrained(run.model)
    copy_text_files(Path(run.plan().facts.model.folder), run.model)


def another_template(folder: str) -> Callable[[Run], None]:
    def sabotage(run: Run) -> None:
        file = run.folder / folder / "chat_template.jinja"
        file.write_text(file.read_text().replace("<|im_start|>assistant", "<|im_start|>Assistant"))

    return sabotage


def another_eos(folder: str) -> Callable[[Run], None]:
    return lambda run: change_json(run.folder / folder / "tokenizer_config.json", eos_token="<|im_start|>")


def another_stop(run: Run) -> None:
    change_json(run.model / "generation_config.json", eos_token_id=1)


def another_vocabulary(run: Run) -> None:
    file = run.adapter / "tokenizer.json"
    content = json.loads(file.read_text())
    vocab = content["model"]["vocab"]
    vocab["H"], vocab["B"] = vocab["B"], vocab["H"]
    file.write_text(json.dumps(content))


def weights_of(run: Run) -> Path:
    """The file that the artifact is about: the adapter's, else the full model's."""
    adapter = run.adapter / "adapter_model.safetensors"
    return adapter if adapter.is_file() else run.model / "model.safetensors"


def first_becomes(change: Callable[[torch.Tensor], torch.Tensor], part: str) -> Callable[[Path], None]:
    """Change the first tensor of a file whose name has `part`."""

    def sabotage(file: Path) -> None:
        chosen = next(name for name in sorted(load_file(file)) if part in name)
        change_tensors(file, lambda name, t: change(t) if name == chosen else t)

    return sabotage


def empty_tensor(run: Run) -> None:
    """What ZeRO-3 leaves of a weight that was not gathered before it was saved."""
    first_becomes(lambda t: t.new_zeros(0), "layers.1")(weights_of(run))


def not_a_number(run: Run) -> None:
    first_becomes(lambda t: t.clone().index_fill_(0, torch.tensor([0]), float("nan")), "layers.1")(weights_of(run))


def infinite_merged(run: Run) -> None:
    first_becomes(lambda t: t.clone().fill_(float("inf")), "norm")(run.model / "model.safetensors")


def cut_in_half(run: Run) -> None:
    content = weights_of(run).read_bytes()
    weights_of(run).write_bytes(content[: len(content) // 2])


def no_weights(run: Run) -> None:
    weights_of(run).unlink()


def lacking_tensor(run: Run) -> None:
    file = run.model / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, file, {"format": "pt"})


def collapsed_embedding(run: Run) -> None:
    def flat(t: torch.Tensor) -> torch.Tensor:
        return t[:1].expand_as(t).contiguous()

    first_becomes(flat, "embed_tokens")(run.model / "model.safetensors")


def head_stored_apart(run: Run) -> None:
    """A head that trained by itself while config.json ties it: loading would drop it without a word."""
    file = run.model / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 2
    save_file(tensors, file, {"format": "pt"})


def untied(run: Run) -> None:
    file = run.model / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone() * 2
    save_file(tensors, file, {"format": "pt"})
    change_json(run.model / "config.json", tie_word_embeddings=False)


def grown_adapter(run: Run) -> None:
    file = run.adapter / "adapter_model.safetensors"
    save_file({name: t.double() for name, t in load_file(file).items()}, file, {"format": "pt"})


def another_lineage(folder: str) -> Callable[[Run], None]:
    return lambda run: change_json(run.folder / folder / "lineage.json", base_weights="0" * 64)


def without_card(folder: str) -> Callable[[Run], None]:
    return lambda run: (run.folder / folder / "README.md").unlink()


def edited_card(folder: str, old: str, new: str) -> Callable[[Run], None]:
    def sabotage(run: Run) -> None:
        card = run.folder / folder / "README.md"
        text = card.read_text()
        assert old in text
        card.write_text(text.replace(old, new))

    return sabotage


def broken_tokenizer(run: Run) -> None:
    (run.model / "tokenizer.json").write_text("{")


SABOTAGES = {
    "every B zeroed": (ADAPTERS, zero_b, {"reload", "changes_output", "modules_applied"}),
    "one B zeroed": (ADAPTERS, zero_one_b, {"reload", "modules_applied"}),
    "one module missing": (ADAPTERS, drop_one_module, {"modules_applied", "size_adapter"}),
    "adapter changed after training": (ADAPTERS, perturb, {"reload"}),
    "merged onto another base": (ADAPTERS, merge_another_base, {"merged_logits"}),
    "merged with twice the scale": (ADAPTERS, merge_wrong_scale, {"merged_logits"}),
    "merged without the adapter": (ADAPTERS, merge_nothing, {"merged_logits"}),
    "template of the adapter": (ADAPTERS, another_template("adapter"), {"same_ids_adapter"}),
    "template of the merged model": (ADAPTERS, another_template("model"), {"same_ids_model"}),
    "eos of the adapter": (ADAPTERS, another_eos("adapter"), {"stop_ids_adapter"}),
    "eos of the merged model": (ADAPTERS, another_eos("model"), {"stop_ids_model"}),
    "vocabulary of the adapter": (ADAPTERS, another_vocabulary, {"same_ids_adapter"}),
    "generation stops elsewhere": (METHOD_NAMES, another_stop, {"stop_ids_model"}),
    "an empty tensor": (("full", "lora"), empty_tensor, set()),
    "a number that is none": (("full", "lora"), not_a_number, set()),
    "an infinite number in the merged model": (("lora",), infinite_merged, {"tensors_model"}),
    "a file cut in half": (("full", "lora"), cut_in_half, set()),
    "no weights": (("full", "lora"), no_weights, set()),
    "a tensor missing from the model": (("full", "lora"), lacking_tensor, {"tensors_model", "size_model"}),
    "an embedding of one row": (("full", "lora"), collapsed_embedding, {"tied_model"}),
    "a head beside the embedding it is tied to": (("lora",), head_stored_apart, {"tied_model"}),
    "embedding and head come apart": (("lora",), untied, {"tied_model", "size_model"}),
    "an adapter of twice the size": (("lora",), grown_adapter, {"size_adapter"}),
    "lineage of the adapter": (("lora",), another_lineage("adapter"), {"lineage"}),
    "lineage of the model": (("full", "lora"), another_lineage("model"), {"lineage"}),
    "no card": (("full", "lora"), without_card("model"), {"card_model", "licence_model"}),
    "no licence in the card": (
        ("lora",),
        edited_card("adapter", "license: apache-2.0\n", ""),
        {"licence_adapter"},
    ),
    "another base in the card": (("lora",), edited_card("adapter", "base_model: ", "base_model: x"), {"card_adapter"}),
    "no limits in the card": (("lora",), edited_card("model", "## Limits", "## More"), {"card_model"}),
    "a tokenizer that cannot be read": (("full", "lora"), broken_tokenizer, {"same_ids_model"}),
    "template of the full model": (("full",), another_template("model"), {"same_ids_model"}),
    "eos of the full model": (("full",), another_eos("model"), {"stop_ids_model"}),
    "full model changed": (
        ("full",),
        lambda run: change_tensors(run.model / "model.safetensors", lambda name, t: t * 1.05),
        {"reload"},
    ),
    "full model is the base": (("full",), merge_nothing, {"reload", "changes_output"}),
}


@pytest.mark.parametrize(("name", "method"), [(name, m) for name, (ms, _, _) in SABOTAGES.items() for m in ms])
def test_sabotage_is_found(copy_of: Callable[[str], Run], name: str, method: str) -> None:
    _, sabotage, at_least = SABOTAGES[name]
    run = copy_of(method)
    assert run.artifact_path.is_file()
    own = weights_of(run).parent.name
    sabotage(run)
    said = CliRunner().invoke(app, ["verify", str(run.folder), "--json"])
    assert said.exit_code == 3, said.output
    assert not run.artifact_path.exists()
    document = json.loads(said.stdout)
    failed = {c["name"] for c in document["verification"]["checks"] if not c["passed"]}
    assert (
        failed >= (at_least or {f"tensors_{own}"})
        and document["artifact"] is None
        and not document["verification"]["passed"]
    )


def test_a_4_bit_adapter_does_not_go_with_the_16_bit_base(copy_of: Callable[[str], Run]) -> None:
    """What the merge onto the dequantised base is for."""
    run = copy_of("qlora")
    base = AutoModelForCausalLM.from_pretrained(run.plan().facts.model.folder, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, run.adapter).merge_and_unload()
    shutil.rmtree(run.model)
    merged.to(torch.bfloat16).save_pretrained(run.model)
    copy_text_files(Path(run.plan().facts.model.folder), run.model)
    outcome, _ = api.verify(run)
    assert not checks(outcome)["merged_logits"].passed


def test_an_artifact_comes_back_when_the_files_are_sound_again(copy_of: Callable[[str], Run]) -> None:
    run = copy_of("lora")
    content = (run.adapter / "adapter_model.safetensors").read_bytes()
    perturb(run)
    assert api.verify(run)[1] is None and run.artifact() is None
    (run.adapter / "adapter_model.safetensors").write_bytes(content)
    assert api.verify(run)[1] == run.artifact() is not None


def test_a_damaged_file_is_not_loaded_and_says_which_tensor(copy_of: Callable[[str], Run]) -> None:
    run = copy_of("lora")
    empty_tensor(run)
    outcome, _ = api.verify(run)
    found = checks(outcome)
    assert "reload" not in found and "merged_logits" not in found
    number = found["tensors_adapter"].number
    assert number is not None and number.startswith("1 empty, as a sharded model leaves them") and "layers.1" in number


def test_data_and_base_that_changed_since_are_told(tmp_path: Path) -> None:
    base = toy_model(tmp_path / "base")
    run = trained(tmp_path / "job", base, "lora", train={"max_steps": 4, "save_steps": 4})
    assert api.verify(run)[0].passed
    rows = tmp_path / "job" / "train.jsonl"
    content = rows.read_text()
    rows.write_text(content + content.splitlines()[0] + "\n")
    lineage = checks(api.verify(run)[0])["lineage"]
    assert not lineage.passed and lineage.number is not None and f"data {rows}" in lineage.number
    assert run.artifact() is None
    rows.write_text(content)
    first_becomes(lambda t: t * 1.5, "norm")(base / "model.safetensors")
    lineage = checks(api.verify(run)[0])["lineage"]
    assert not lineage.passed and lineage.number is not None and lineage.number.startswith("base weights: recorded")


def test_the_licence_file_of_the_base_goes_along(tmp_path: Path) -> None:
    base = toy_model(tmp_path / "base")
    (base / "LICENSE").write_text("Do what you like.\n")
    run = trained(tmp_path / "job", base, "lora", train={"max_steps": 4, "save_steps": 4})
    api.merge(run)
    assert api.verify(run)[0].passed
    assert (run.adapter / "LICENSE").read_text() == (run.model / "LICENSE").read_text() == "Do what you like.\n"
    (run.adapter / "LICENSE").unlink()
    found = checks(api.verify(run)[0])["licence_adapter"]
    assert not found.passed and found.number == "LICENSE of the base is not carried along"


def test_an_unknown_licence_is_told_and_passes(tmp_path: Path) -> None:
    run = trained(tmp_path / "job", toy_model(tmp_path / "base", license=None), "lora", train={"max_steps": 4})
    outcome, artifact = api.verify(run)
    found = checks(outcome)["licence_adapter"]
    assert outcome.passed and artifact is not None and artifact.license is None
    assert found.number == "unknown: the base's card names none"


def test_an_untied_head_that_collapsed_is_found(tmp_path: Path) -> None:
    run = trained(tmp_path / "job", toy_model(tmp_path / "base", tied=False), "lora", train={"max_steps": 4})
    api.merge(run)
    assert api.verify(run)[0].passed
    file = run.model / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, file, {"format": "pt"})
    found = checks(api.verify(run)[0])["tied_model"]
    assert not found.passed and found.number == "lm_head.weight holds the very numbers of model.embed_tokens.weight"


def test_cards_carry_the_evidence_of_today_and_keep_what_a_person_wrote(copy_of: Callable[[str], Run]) -> None:
    run = copy_of("lora")
    card = run.adapter / "README.md"
    card.write_text(card.read_text().replace("## Limits\n", "## Limits\n\nNot for children.\n"))
    assert api.verify(run)[0].passed
    text = card.read_text()
    assert "Not for children." in text and "Loss on held-out rows: " in text and "Forgetting was not watched." in text
    assert "rankwise eval" in text
    api.evaluate(run)
    assert api.verify(run)[0].passed
    assert "rankwise eval" not in card.read_text() and "95 %" in card.read_text()


def test_a_pass_that_the_machine_got_wrong_is_told_and_repeated(
    copy_of: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real files and the real passes; the disturbance of one of them is what cannot be had at will."""
    run, passes = copy_of("lora"), []

    def disturbed(*given: Any) -> torch.Tensor:
        passes.append(1)
        return final_logits(*given) + (0.44 if len(passes) in wrong else 0.0)

    monkeypatch.setattr(behaviour, "final_logits", disturbed)
    wrong: set[int] = {1}
    found = checks(api.verify(run)[0])["reload"]
    assert found.passed and found.number.startswith("0.44 largest") and ", and in another pass 0 " in found.number
    passes.clear()
    wrong = {1, 2}
    found = checks(api.verify(run)[0])["reload"]
    assert not found.passed and found.number.count("0.44") == 2
