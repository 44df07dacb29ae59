"""Files into keys with their lines; what cannot be read is one error that names the place."""

from pathlib import Path

import pytest

from rankwise.errors import RecipeError, UsageError
from rankwise.observe.recipes import read_recipe
from rankwise.observe.recipes.reading import read_mapping

SAMPLES = Path(__file__).parent / "samples"
LEAST = "base_model: llama-3-8b\nlearning_rate: 2e-5\n"


def written(folder: Path, text: str, name: str = "run.yml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_every_setting_knows_its_line_and_where_it_came_from() -> None:
    recipe = read_recipe(SAMPLES / "axolotl_full.yml")
    rate, epochs, decay = (recipe.setting(n) for n in ("learning_rate", "num_train_epochs", "weight_decay"))
    assert rate is not None and (rate.key, rate.value, rate.line, rate.origin) == ("learning_rate", 1e-5, 10, "file")
    assert epochs is not None and (epochs.key, epochs.line) == ("num_epochs", 8)
    assert decay is not None and (decay.value, decay.line, decay.origin) == (0.0, None, "default")


def test_a_number_without_a_dot_is_a_number(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, LEAST))
    assert recipe.value("learning_rate") == 2e-5


def test_json_is_read_as_yaml_is(tmp_path: Path) -> None:
    text = '{\n "base_model": "llama-3-8b",\n "learning_rate": 2e-5,\n "adapter": "lora",\n "lora_r": 8\n}'
    recipe = read_recipe(written(tmp_path, text, "run.json"))
    r = recipe.setting("r")
    assert recipe.method == "lora" and r is not None and (r.value, r.line) == (8, 5)


def test_a_key_given_twice_is_told_with_both_lines_and_the_last_wins() -> None:
    recipe = read_recipe(SAMPLES / "axolotl_qlora.yml")
    fault = next(f for f in recipe.faults if f.rule == "key_twice")
    assert (fault.key, fault.line, fault.number) == ("num_epochs", 21, "lines 20 and 21")
    assert recipe.value("num_train_epochs") == 4


def test_merged_and_nested_keys_have_lines(tmp_path: Path) -> None:
    source = read_mapping(tmp_path / "x.yml", "a: &one\n  b: 1\nc:\n  - path: x\n    <<: *one\n")
    assert source.inner[("c", "0", "path")] == 4
    assert source.said["c"].value == [{"b": 1, "path": "x"}]


def test_an_anchor_that_holds_itself_ends(tmp_path: Path) -> None:
    source = read_mapping(tmp_path / "x.yml", "a: &loop\n  b: *loop\n")
    assert source.said["a"].line == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [1\nb: 2\n", "not valid YAML"),
        ("- a\n- b\n", "holds no mapping"),
        ("", "holds no mapping"),
        ("learning_rate: 1e-4\n", "no training configuration that we know"),
        ("zero_optimization: {stage: 2}\n", "a DeepSpeed configuration"),
        ("compute_environment: LOCAL_MACHINE\nnum_processes: 2\n", "configures a launcher"),
        ("base_model:\nlearning_rate: 1e-4\n", "names no model"),
        (f"{LEAST}micro_batch_size: four\n", "run.yml:3: micro_batch_size is 'four'"),
        (f"{LEAST}micro_batch_size: 0\n", "run.yml:3: micro_batch_size is 0"),
        (f"{LEAST}num_epochs: .inf\n", "run.yml:3: num_epochs is 'inf'"),
        ("base_model: llama-3-8b\nlearning_rate: -1\n", "run.yml:2: learning_rate is -1"),
        (f"{LEAST}bf16: maybe\n", "run.yml:3: bf16 is 'maybe'"),
        ("base_model: [a, b]\nlearning_rate: 1e-4\n", "run.yml:1: base_model is ['a', 'b']"),
    ],
)
def test_what_cannot_be_meant_is_one_error_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(written(tmp_path, text))
    assert told in caught.value.what and caught.value.exit_code == 1
    assert caught.value.expected or caught.value.fix or "YAML" in told


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "run.yml").write_bytes(b"\xff\xfe\x00base")
    for path, told in (
        (tmp_path / "run.yml", "not UTF-8"),
        (tmp_path / "no.yml", "no such file"),
        (tmp_path, "no such"),
    ):
        with pytest.raises(RecipeError, match=told):
            read_recipe(path)


def test_a_python_script_is_refused_with_the_way_to_bring_it(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(written(tmp_path, "from trl import SFTTrainer\n", "train.py"))
    assert "--tool args -- python train.py" in caught.value.fix


def test_a_tool_that_is_none_and_nothing_at_all_are_mistakes_in_the_call() -> None:
    with pytest.raises(UsageError, match="no tool 'axolot'"):
        read_recipe(SAMPLES / "axolotl_full.yml", tool="axolot")
    with pytest.raises(UsageError, match="nothing to read"):
        read_recipe(None)
