"""`rankwise estimate`, `models` and `gpus`: the contract of their JSON, exit codes, batches, and what people read."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rankwise import api
from rankwise.cli import app
from rankwise.estimate.options import OPTIONS
from rankwise.observe.catalogue import architectures
from rankwise.records import Estimate
from tests import builders
from tests.tiny import tiny_llama

SMALL = builders.llama_config(2, 128, 256, 64, 320, True, 512)
NUMBERS = {
    "memory": {
        *("weights", "gradients", "optimizer", "activations", "logits", "workspace", "peak_allocated"),
        *("peak_reserved", "peak_device", "peak_phase", "peak_op", "eval_peak", "save_peak", "merge_peak"),
        *("capacity", "interval", "fits"),
    },
    "time": {"flops_per_token", "flops", "tokens_per_second", "step_seconds", "train_seconds", "interval"},
    "money": {"train_usd", "interval"},
    "storage": {"checkpoint_bytes", "adapter_bytes", "run_bytes", "usd_per_month"},
    "serving": {"base_bytes", "per_variant_bytes", "all_variants_bytes"},
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a cache of their own; a small config file in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "small.json").write_text(json.dumps(SMALL))
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def document(result: Result) -> Any:
    return json.loads(result.stdout)


def answer(*arguments: object) -> dict[str, Any]:
    result = run("estimate", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = document(result)
    return found


def refused(*arguments: object) -> dict[str, Any]:
    plain, with_json = run("estimate", *arguments), run("estimate", *arguments, "--json")
    assert (plain.exit_code, with_json.exit_code) == (2, 2), plain.output
    assert plain.stdout == "" and "Traceback" not in plain.stderr
    error: dict[str, Any] = document(with_json)["error"]
    return error


def batch(folder: Path, entries: Any, *more: object) -> list[dict[str, Any]]:
    (folder / "batch.yaml").write_text(json.dumps(entries))  # JSON is YAML
    result = run("estimate", "--batch-file", folder / "batch.yaml", *more, "--json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = document(result)
    return found


# -- the contract --------------------------------------------------------------------------------


def test_the_document_has_the_keys_of_the_contract_and_null_where_unknown() -> None:
    found = answer("--model", "small.json", "--gpu", "A100-80GB", "--seq-len", 64)
    top = {"id", "model", "method", "trainable_params", "total_params", "sources", "notes", "velocity"}
    assert set(found) == top | set(NUMBERS)
    assert all(NUMBERS[group] <= set(found[group]) for group in NUMBERS)
    assert set(found["time"]["flops"]) == {"forward", "backward", "optimizer"}
    assert Estimate.model_validate(found)
    assert (found["id"], found["method"], found["model"]) == (None, "lora", "small.json")
    assert found["money"]["train_usd"] is found["money"]["interval"] is found["money"]["project_usd"] is None
    assert found["time"]["train_seconds"] is found["time"]["interval"] is None
    assert set(found["velocity"].values()) == {None}
    memory = found["memory"]
    parts = ("weights", "gradients", "optimizer", "activations", "logits", "workspace")
    assert sum(memory[p] for p in parts) == memory["peak_allocated"] <= memory["peak_reserved"] < memory["peak_device"]
    assert memory["fits"] and memory["capacity"] == 81039 << 20


def test_the_time_of_a_run_needs_its_examples() -> None:
    common = ("--model", "small.json", "--gpu", "A100-80GB", "--seq-len", 64, "--batch", 4, "--grad-accum", 2)
    step = answer(*common)["time"]["step_seconds"]
    run_time = answer(*common, "--examples", 1000, "--epochs", 2)["time"]
    beside = run_time["load_seconds"] + run_time["evaluation_seconds"] + run_time["save_seconds"]
    assert run_time["train_seconds"] == pytest.approx(step * 250 + beside)
    shorter = answer(*common, "--examples", 1000, "--tokens-per-example", 16)["time"]
    assert shorter["step_seconds"] <= step and shorter["tokens_per_second"] == pytest.approx(
        4 * 2 * 16 / shorter["step_seconds"]
    )
    several = answer(*common, "--examples", 1000, "--gpus", 5)["time"]
    assert several["step_seconds"] >= step and several["step"]["communication"] > 0
    assert several["tokens_per_second"] == pytest.approx(5 * 4 * 2 * 64 / several["step_seconds"])


def test_prices_of_a_person_go_before_ours_and_what_is_wrong_in_them_is_said(here: Path) -> None:
    common = ("--model", "small.json", "--gpu", "A100-80GB", "--seq-len", 64, "--examples", 10_000)
    ours = answer(*common)["money"]
    (here / "prices.yaml").write_text("currency: USD\ndate: 2026-11-01\ngpus: {A100-80GB: {on_demand: 100.0}}\n")
    own = answer(*common, "--prices", "prices.yaml")
    assert own["money"]["usd_per_hour"] == 100.0 and own["money"]["train_usd"] > 10 * ours["train_usd"]
    assert "prices.yaml" in own["sources"]["money"]
    assert answer(*common, "--prices", "prices.yaml", "--pricing", "spot")["money"]["train_usd"] is None
    for wrong, word in (
        ("gpus: {A100-80GB: {on_demand: -1}}", "A100-80GB"),
        ("gpus: {A100-80GB: {on_demand: '€2.10'}}", "€"),
        ("gpus: {A1000-80GB: {on_demand: 2}}", "A1000"),
        ("currency: EUR\ngpus: {A100-80GB: {on_demand: 2}}", "usd_per_unit"),
    ):
        (here / "wrong.yaml").write_text(f"date: 2026-11-01\n{wrong}\n")
        result = run("estimate", *common, "--prices", "wrong.yaml", "--json")
        assert result.exit_code == 2, wrong
        assert word in json.dumps(json.loads(result.stdout)["error"], ensure_ascii=False)


def test_adapters_count_into_the_total() -> None:
    full, lora = (answer("--model", "small.json", "--gpu", "L4", "--method", m) for m in ("full", "lora"))
    assert full["trainable_params"] == full["total_params"]
    assert lora["total_params"] == full["total_params"] + lora["trainable_params"]


def test_nothing_named_means_this_machine() -> None:
    found = answer("--model", "small.json", "--seq-len", 64)
    assert "this machine" in found["sources"]["device"] and found["memory"]["peak_reserved"] is None


def test_what_does_not_fit_exits_with_3_and_is_answered_all_the_same() -> None:
    result = run("estimate", "--model", "llama-2-7b", "--method", "full", "--gpu", "L4", "--seq-len", 64, "--json")
    assert result.exit_code == 3 and document(result)["memory"]["fits"] is False


# -- where a model comes from --------------------------------------------------------------------


def test_one_model_by_many_names_is_one_answer(here: Path) -> None:
    names = ["smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct", "embedded"]
    (here / "config.json").write_text(json.dumps(SMALL))
    tiny_llama(here / "folder")
    found = [answer("--model", n, "--gpu", "L4", "--seq-len", 64) for n in names]
    assert len({e["memory"]["peak_device"] for e in found}) == 1 and found[0]["total_params"] > 134_000_000
    one, other = (answer("--model", n, "--gpu", "L4", "--seq-len", 64) for n in ("small.json", "."))
    assert one["memory"] == other["memory"]
    assert answer("--model", "folder", "--gpu", "L4", "--rank", 4)["total_params"] < 100_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as a model config"),
        ("[]", "is not a JSON object"),
        ('{"hidden_size": 8}', "names no model_type"),
        ('{"model_type": "nonsense"}', "nonsense"),
        ('{"model_type": "llava", "vision_config": {"hidden_size": 8}}', "vision or audio model"),
    ],
)
def test_a_config_that_is_none_is_refused(content: str, said: str, here: Path) -> None:
    (here / "bad.json").write_text(content)
    assert said in refused("--model", "bad.json")["what"]


def test_an_unknown_model_is_answered_with_the_nearest_names() -> None:
    error = refused("--model", "lama-3-8b")
    assert "llama-3-8b" in error["fix"] and "not in the catalogue" in error["what"]
    assert "no model is named" in refused("--method", "lora")["what"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpu", "A100"], "could be several GPUs"),
        (["--rank", "200"], "rank 200"),
        (["--targets", "c_attn"], "c_attn"),
        (["--optimizer", "adam"], "adam"),
        (["--seq-len", "513"], "513"),
        (["--method", "dpo"], "dpo is not modelled"),
        (["--parallel", "tensor"], "tensor parallelism is not modelled"),
        (["--method", "qlora", "--parallel", "zero3", "--gpus", "2"], "ZeRO-3"),
        (["--batch", "0"], "batch is 0"),
        (["--batch", "two"], "--batch"),
        (["--batch-file", "no.yaml"], "no.yaml cannot be read"),
        (["--bogus"], "--bogus"),
    ],
)
def test_bad_input_is_a_usage_error(options: list[str], said: str) -> None:
    assert said in refused("--model", "small.json", *options)["what"]


def test_an_unknown_gpu_leaves_unknown_what_depends_on_it_and_prices_the_rest() -> None:
    common = ("--model", "small.json", "--seq-len", 64, "--examples", 1000, "--variants", 3)
    found, known = answer(*common, "--gpu", "Voodoo 2"), answer(*common, "--gpu", "A100-80GB")
    assert found["memory"]["capacity"] is found["memory"]["fits"] is None
    assert found["time"]["train_seconds"] is found["money"]["train_usd"] is found["serving"]["gpus"] is None
    assert found["memory"]["peak_allocated"] == known["memory"]["peak_allocated"]
    assert found["storage"] == known["storage"] and found["serving"]["base_bytes"] == known["serving"]["base_bytes"]
    assert any("no GPU Voodoo 2 is known" in note for note in found["notes"])
    text = run("estimate", *common, "--gpu", "Voodoo 2").stdout
    assert "nobody knows if it fits" in text and "one change" not in text


# -- batches -------------------------------------------------------------------------------------


def test_a_batch_answers_in_order_and_no_entry_stops_the_others(here: Path) -> None:
    entries = [
        {"id": "a", "model": "small.json", "rank": 4},
        {"id": 2, "model": "small.json", "rnak": 4},
        {"model": "nowhere"},
        {"id": "d", "model": "small.json", "rank": 4, "gpu": "T4"},
    ]
    found = batch(here, entries, "--gpu", "L4", "--seq-len", 64)
    assert [e["id"] for e in found] == ["a", "2", None, "d"]
    assert [set(e) == {"id", "error"} for e in found] == [False, True, True, False]
    assert found[1]["error"]["kind"] == "UsageError" and found[1]["error"]["fix"] == "did you mean rank?"
    single = answer("--model", "small.json", "--rank", 4, "--gpu", "L4", "--seq-len", 64)
    assert {k: v for k, v in found[0].items() if k != "id"} == {k: v for k, v in single.items() if k != "id"}
    assert found[3]["memory"]["capacity"] < found[0]["memory"]["capacity"]


@pytest.mark.parametrize("content", ["{}", "[1]", "[", "text"])
def test_a_batch_that_is_no_list_of_mappings_is_refused(content: str, here: Path) -> None:
    (here / "batch.yaml").write_text(content)
    assert "batch.yaml" in refused("--batch-file", "batch.yaml")["what"]


def test_an_empty_batch_is_an_empty_answer(here: Path) -> None:
    assert batch(here, []) == []


def test_two_hundred_configurations_are_priced_in_one_process(here: Path) -> None:
    """Ten different steps on twenty devices and lengths of the run: each step is traced once."""
    gpus = ["A100-80GB", "A100-40GB", "A30", "A800"]
    entries = [
        {"id": f"{rank}-{n}-{gpu}", "model": "small.json", "rank": rank, "gpu": gpu, "examples": n, "seq_len": 72}
        for rank in range(1, 11)
        for n in range(1, 6)
        for gpu in gpus
    ]
    found = batch(here, entries)
    assert [e["id"] for e in found] == [e["id"] for e in entries] and len(found) == 200
    assert all(e["memory"]["peak_device"] > 0 for e in found)
    assert len({e["memory"]["peak_allocated"] for e in found}) == 10 == len(list((here / "cache" / "traces").iterdir()))


# -- for people ----------------------------------------------------------------------------------


def test_every_option_and_its_default_stand_in_the_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    text = " ".join(CliRunner().invoke(app, ["estimate", "--help"], env={"COLUMNS": "400"}).stdout.split())
    for name, option in OPTIONS.items():
        assert f"--{name.replace('_', '-')} " in text
        assert f"Default: {option.default_words.replace('`', '')}." in text, name
    assert all(flag in text for flag in ("--no-kbit-upcast", "--no-double-quant", "--no-gradient-checkpointing"))


def test_the_peak_is_shown_with_its_parts_and_its_three_counts() -> None:
    text = run("estimate", "--model", "small.json", "--gpu", "L4", "--seq-len", 64).stdout
    for word in ("weights", "activations", "logits", "allocated", "reserved", "device", "fits", "Trained:", "Serving"):
        assert word in text
    assert "one change" not in text


def test_what_does_not_fit_is_answered_with_changes_that_do() -> None:
    result = run("estimate", "--model", "pythia-1.4b", "--gpu", "RTX 3080", "--seq-len", 256, "--method", "full")
    assert result.exit_code == 3 and "does not fit" in result.stdout
    changes = result.stdout.partition("one change")[2].splitlines()[1:]
    assert any("--method qlora" in line and line.rstrip().endswith("fits") for line in changes)
    assert any("--gpu " in line for line in changes)


def test_python_callers_get_the_same_estimate() -> None:
    found = api.estimate(model="small.json", rank=4, gpu="L4", seq_len=64)
    assert found.model_dump(mode="json") == answer("--model", "small.json", "--rank", 4, "--gpu", "L4", "--seq-len", 64)


# -- models and gpus -----------------------------------------------------------------------------


def test_models_lists_every_architecture_and_one_in_full() -> None:
    rows = document(run("models", "--json"))
    assert [r["name"] for r in rows] == [a.name for a in architectures()]
    one = document(run("models", "mistralai/Mistral-7B-v0.1", "--json"))
    assert one["name"] == "mistral-7b" and one["config"]["vocab_size"] == 32000
    assert "mistralai/Mistral-7B-v0.1" in one["hub_ids"] and one["license"] == "apache-2.0"
    table = run("models").stdout
    assert all(a.name in table for a in architectures())
    assert "7241732096" in run("models", "mistral-7b").stdout
    unknown = run("models", "mistrall-7b", "--json")
    assert unknown.exit_code == 2 and "mistral-7b" in document(unknown)["error"]["fix"]


def test_gpus_lists_what_devices_toml_knows() -> None:
    rows = {r["name"]: r for r in document(run("gpus", "--json"))}
    assert rows["A100-80GB"]["memory_bytes"] == 81039 << 20 and rows["A100-80GB"]["matmul_flops"]["bf16"] == 312e12
    assert rows["T4-16GB"]["bf16"] is False and rows["L4-24GB"]["compute_capability"] == 8.9
    table = run("gpus").stdout
    assert all(name in table for name in rows)
    assert rows["H100-80GB"]["link"] == "NVLink 4" and rows["H100-80GB"]["bandwidth"] == 3350e9
    offers = rows["H100-80GB"]["offers"]
    assert len(offers) > 9 and all(o["date"].startswith("2026") and o["source"] and o["provider"] for o in offers)
    assert rows["H800-80GB"]["price"]["usd_per_hour"] is None and rows["H800-80GB"]["offers"] == []


def test_gpus_takes_a_file_of_prices(here: Path) -> None:
    file = here / "ours.yaml"
    file.write_text("date: 2026-11-01\ngpus: {A100-80GB: {on_demand: 1.25}}\n")
    rows = {r["name"]: r for r in document(run("gpus", "--prices", file, "--json"))}
    assert rows["A100-80GB"]["own_price"] and rows["A100-80GB"]["price"]["usd_per_hour"] == 1.25
    assert not rows["L4-24GB"]["own_price"] and str(file) in rows["L4-24GB"]["price"]["source"]
    assert "yours" in run("gpus", "--prices", file).stdout
    file.write_text("gpus: {A100-80GB: {on_demand: €1.25}}\n")
    refused = run("gpus", "--prices", file, "--json")
    assert refused.exit_code == 2 and "EUR in a file of USD" in document(refused)["error"]["what"]


# -- plans without a file ------------------------------------------------------------------------


def test_a_plan_of_a_catalogue_model_needs_no_file(here: Path) -> None:
    options = "--model llama-2-13b --goal instruction --gpu A100-80GB --gpus 2 --examples 2000 --tokens-per-example 128"
    result = run("plan", *options.split(), "--variants", 5, "--budget-usd", 1000, "--json", "--out", here / "out")
    assert result.exit_code == 0, result.output
    plan = document(result)
    assert plan["verdict"]["method"] == "lora" and plan["facts"]["model"]["folder"] is None
    assert plan["facts"]["model"]["total_params"] == 13_015_864_320 and plan["base_hash"] is None
    trained = run("train", here / "out" / "plan.json", "--json")
    assert trained.exit_code == 1
