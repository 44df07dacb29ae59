"""`rankwise plan --from`: what is printed, the JSON document, exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from rankwise.cli import app
from rankwise.observe import devices
from rankwise.records import Plan
from tests import builders
from tests.tiny import tiny_llama

ROWS = [{"instruction": f"Question {n}?", "output": f"Answer {n}."} for n in range(40)]
RUN: dict[str, Any] = {
    "base_model": "small.json",
    "adapter": "lora",
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_target_linear": True,
    "datasets": [{"path": "rows.json", "type": "alpaca"}],
    "sequence_len": 128,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "learning_rate": 2e-4,
    "num_epochs": 2,
    "val_set_size": 0.1,
}
DESCRIBED = ["--examples", "2000", "--tokens-per-example", "50"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a cache of their own; a small model's config, no GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(devices, "gpus_here", list)
    (tmp_path / "small.json").write_text(json.dumps(builders.llama_config(2, 128, 256, 64, 320, True, 512)))
    return tmp_path


def write(keys: dict[str, Any], name: str = "run.yml") -> str:
    Path(name).write_text(yaml.safe_dump(keys, sort_keys=False))
    return name


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", *arguments])


def document(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = call("--json", *arguments)  # what follows after `--` is the training's own
    found: dict[str, Any] = json.loads(result.stdout)
    return result.exit_code, found


def test_their_run_is_priced_on_the_gpu_that_is_named() -> None:
    code, found = document("--from", write(RUN), "--gpu", "L4", *DESCRIBED)
    given = found["from"]["given"]
    assert code == 0 and given["method"] == "lora" and given["memory"]["fits"] is True
    assert given["time"]["train_seconds"] > 0 and given["money"]["train_usd"] > 0
    assert found["from"]["recipe"]["options"]["rank"] == 8
    # 2 x 128 x r each for the seven matrices of two layers, counted by hand
    widths = [(128, 128), (128, 64), (128, 64), (128, 128), (128, 256), (128, 256), (256, 128)]
    assert given["trainable_params"] == 2 * 8 * sum(a + b for a, b in widths)


def test_without_rows_memory_is_priced_and_time_is_unknown() -> None:
    code, found = document("--from", write(RUN), "--gpu", "L4")
    given = found["from"]["given"]
    assert code == 0 and given["memory"]["peak_device"] > 0
    assert given["time"]["train_seconds"] is None and given["money"]["train_usd"] is None
    assert any("How many rows" in q for q in found["from"]["questions"])
    assert found["verdict"] is None and set(found) == {*Plan.model_fields, "from"}


def test_without_a_gpu_fit_is_unknown_and_asked_for() -> None:
    code, found = document("--from", write(RUN), *DESCRIBED)
    assert code == 0 and found["from"]["given"]["memory"]["fits"] is None
    assert found["from"]["not_planned"] == "no GPU is named, and this machine has none"
    assert any("Which GPU" in q for q in found["from"]["questions"])


def test_steps_alone_tell_the_time_of_packed_rows() -> None:
    packed = RUN | {"sample_packing": True, "attn_implementation": "flash_attention_2", "max_steps": 100}
    _, found = document("--from", write(packed), "--gpu", "L4")
    _, twice = document("--from", write(packed | {"max_steps": 200}), "--gpu", "L4")
    first, second = (f["from"]["given"]["time"]["train_seconds"] for f in (found, twice))
    assert first > 0 and second > 1.5 * first


def test_what_does_not_fit_exits_with_3() -> None:
    large = {**RUN, "base_model": "llama-3-8b", "adapter": None, "sequence_len": 4096, "bf16": False}
    keys = {k: v for k, v in large.items() if not k.startswith("lora") and v is not None}
    result = call("--from", write(keys), "--gpu", "L4")
    assert result.exit_code == 3 and "does not fit" in result.stdout


def test_a_model_that_nobody_knows_exits_with_1_and_still_tells_the_risks() -> None:
    code, found = document("--from", write(RUN | {"base_model": "nobody/nothing-9b"}), "--gpu", "L4")
    assert code == 1 and found["from"]["given"] is None
    assert "nobody/nothing-9b" in found["from"]["not_priced"]
    assert any("Which architecture" in q for q in found["from"]["questions"]) and found["from"]["risks"]
    code, found = document("--from", "run.yml", "--gpu", "L4", "--model", "small.json")
    assert code == 0 and found["from"]["given"] is not None


def test_arguments_after_two_hyphens_win() -> None:
    _, found = document("--from", write(RUN), "--gpu", "L4", "--", "--lora_r", "4", "--sequence_len=64")
    assert (found["from"]["recipe"]["options"]["rank"], found["from"]["recipe"]["options"]["seq_len"]) == (4, 64)


def test_a_command_line_needs_no_file() -> None:
    line = "torchrun --nproc_per_node 2 my.py --model_name_or_path small.json --output_dir o --learning_rate 1e-5"
    _, found = document("--tool", "args", "--gpu", "L4", "--", *line.split(), "--max_length", "128", "--bf16")
    recipe = found["from"]["recipe"]
    assert (recipe["tool"], recipe["method"], recipe["options"]["gpus"]) == ("args", "full", 2)
    assert found["from"]["given"]["memory"]["peak_device"] > 0


@pytest.mark.parametrize(
    ("keys", "arguments", "code", "told"),
    [
        (RUN | {"rl": "dpo"}, (), 1, "dpo is not priced"),
        (RUN | {"micro_batch_size": "four"}, (), 1, "run.yml:10: micro_batch_size"),
        (RUN, ("--tool", "axolot"), 2, "no tool"),
        (RUN, ("--gpu", "L4", "--goal", "instructions", *DESCRIBED), 2, "goal"),
        (RUN, ("--gpu", "L4", "--gpus", "0", *DESCRIBED), 2, "hardware.count"),
    ],
)
def test_bad_input_is_one_clear_error(keys: dict[str, Any], arguments: tuple[str, ...], code: int, told: str) -> None:
    result = call("--from", write(keys), *arguments)
    assert result.exit_code == code and told in result.stderr and not result.stdout.startswith("Traceback")
    assert result.stderr.count("error:") == 1


def test_a_second_job_is_a_mistake_in_the_call() -> None:
    result = call("a.yaml", "b.yaml")
    assert result.exit_code == 2 and "one job at a time" in result.stderr


def test_our_own_call_stands_beside_theirs(tmp_path: Path) -> None:
    """A model and rows that are here: both are counted, planned, and compared setting by setting."""
    tiny_llama(tmp_path / "tiny", positions=512)
    Path("rows.json").write_text(json.dumps(ROWS))
    keys = RUN | {"base_model": "tiny", "learning_rate": 1e-6, "lora_target_linear": False}
    path = write(keys | {"lora_target_modules": ["q_proj", "v_proj"], "wandb_api_key": "notakeynotakey"})
    code, found = document("--from", path, "--gpu", "cpu", "--out", "out")
    theirs = found["from"]
    assert code == 0 and found["verdict"]["config"] is not None
    assert found["facts"]["data"]["rows"] == 36 and found["job"]["method"] is None
    changes = {c["key"]: c for c in theirs["changes"]}
    rate = changes["learning_rate"]
    assert rate["theirs"] == 1e-6 and rate["ours"] > 1e-5
    assert changes["target_modules"]["theirs"] == ["q_proj", "v_proj"]
    assert {"attention_only", "learning_rate_low", "secret_in_file"} <= {r["rule"] for r in theirs["risks"]}
    assert theirs["evidence"]["E4"].startswith("E4: ")
    assert Path("out/plan.json").is_file() and "notakeynotakey" not in json.dumps(found)
    told = call("--from", path, "--gpu", "cpu", "--out", "out").stdout
    for heading in ("As it is", "Risks", "What we would change", "Our own call"):
        assert heading in told
    assert "notakeynotakey" not in told
