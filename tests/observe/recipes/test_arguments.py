"""Command lines and scripts: words, variables, launchers."""

from pathlib import Path

import pytest

from rankwise.errors import RecipeError
from rankwise.observe.recipes import read_recipe
from rankwise.observe.recipes.arguments import command_of, commands_of

SAMPLES = Path(__file__).parent / "samples"
SFT = "--model_name_or_path Qwen/Qwen2.5-0.5B --dataset_name a/b --output_dir o"


def test_words_become_settings_of_their_kind() -> None:
    found = command_of(["train.py", "--a", "1", "--b=2e-5", "--flag", "--names", "q_proj", "v_proj", "--no", "None"])
    assert found.program == "train.py"
    assert {k: s.value for k, s in found.said.items()} == {
        "a": 1,
        "b": 2e-5,
        "flag": True,
        "names": ["q_proj", "v_proj"],
        "no": "None",
    }


def test_a_negative_number_is_a_value_and_no_option() -> None:
    assert command_of(["train.py", "--max_steps", "-1"]).said["max_steps"].value == -1


def test_a_script_is_read_over_continued_lines_with_its_variables() -> None:
    recipe = read_recipe(SAMPLES / "trl_run.sh")
    assert recipe.tool == "trl" and recipe.model == "Qwen/Qwen2.5-0.5B"
    rate, targets = recipe.setting("learning_rate"), recipe.setting("target_modules")
    assert rate is not None and (rate.value, rate.line) == (2e-5, 13)
    assert targets is not None and (targets.value, targets.line) == (["q_proj", "v_proj"], 17)
    assert next(s.value for s in recipe.settings if s.key == "output_dir") == "runs/a run"
    assert recipe.options["parallel"] == "fsdp" and recipe.options["gpus"] == 4
    assert next(f.text for f in recipe.faults if f.rule == "variable_unset").startswith("The variable RUN_NAME")


def test_other_lines_of_a_script_are_no_training() -> None:
    text = "pip install -r r.txt\ncd src && ls *.py\necho train.py\nexport X=1\npython -c 'print(1)'\n"
    assert commands_of(text, None) == []


def test_two_trainings_are_counted_and_the_first_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.sh"
    path.write_text(f"trl sft {SFT} --learning_rate 1e-4\ntrl sft {SFT} --learning_rate 2e-4\n")
    recipe = read_recipe(path)
    assert recipe.value("learning_rate") == 1e-4
    assert "the script starts 2 trainings; the first is read" in recipe.assumptions


def test_a_quote_that_never_closes_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "run.sh"
    path.write_text(f'set -e\ntrl sft {SFT} --run_name "a\n')
    with pytest.raises(RecipeError, match=r"run\.sh:2: a quote"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("line", "tool", "devices", "nodes"),
    [
        (f"trl sft {SFT}", "trl", None, None),
        (f"python trl/scripts/sft.py {SFT}", "trl", None, None),
        (f"uv run sft.py {SFT}", "trl", None, None),
        (f"accelerate launch --num_processes 8 --num_machines 2 sft.py {SFT}", "trl", 4, 2),
        (f"torchrun --nproc_per_node=4 --nnodes 2 my.py {SFT}", "args", 4, 2),
        (f"python -m torch.distributed.run --nproc_per_node 2 my.py {SFT}", "args", 2, None),
        (f"deepspeed --num_gpus 3 my.py {SFT}", "args", 3, None),
        (f"CUDA_VISIBLE_DEVICES=0,1 python my.py {SFT}", "args", 2, None),
        (f"accelerate launch --multi_gpu my.py {SFT}", "args", None, None),
    ],
)
def test_launchers_say_how_many_devices(line: str, tool: str, devices: int | None, nodes: int | None) -> None:
    recipe = read_recipe(None, line.split())
    assert (recipe.tool, recipe.options.get("gpus"), recipe.options.get("nodes")) == (tool, devices, nodes)


def test_a_command_that_names_a_file_reads_it_and_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SAMPLES)
    by_cli = read_recipe(
        None, ["llamafactory-cli", "train", "llamafactory_lora.yaml", "learning_rate=3e-4", "lora_rank=64"]
    )
    assert by_cli.tool == "llama-factory" and by_cli.options["rank"] == 64
    rate = by_cli.setting("learning_rate")
    assert rate is not None and (rate.value, rate.line, rate.origin) == (3e-4, None, "argument")
    by_trl = read_recipe(None, ["trl", "sft", "--config", "trl_sft.yaml", "--lora_r", "4"])
    assert by_trl.tool == "trl" and by_trl.options["rank"] == 4
    by_axolotl = read_recipe(None, ["axolotl", "train", "axolotl_full.yml", "--micro-batch-size", "1"])
    assert by_axolotl.tool == "axolotl" and by_axolotl.options["batch"] == 1


def test_arguments_lie_over_a_file() -> None:
    recipe = read_recipe(SAMPLES / "axolotl_full.yml", ["--learning_rate", "3e-5", "--sequence_len=512"])
    assert recipe.value("learning_rate") == 3e-5 and recipe.options["seq_len"] == 512


def test_a_file_that_a_command_names_and_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"no\.yaml, which is not here"):
        read_recipe(None, ["llamafactory-cli", "train", "no.yaml"])


@pytest.mark.parametrize(
    "line",
    [
        "trl dpo --model_name_or_path a --dataset_name b",
        "trl grpo --model_name_or_path a",
        "accelerate launch examples/scripts/dpo.py --model_name_or_path a --dataset_name b --output_dir c",
        "python examples/scripts/sft_vlm.py --model_name_or_path a --dataset_name b --output_dir c",
        "llamafactory-cli export merge.yaml",
        "python expand.py --num_expand 8",
    ],
)
def test_other_trainings_are_refused(line: str) -> None:
    with pytest.raises(RecipeError):
        read_recipe(None, line.split())
