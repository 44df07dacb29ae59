"""Whatever a file holds: a recipe, or one error of ours; never another exception."""

import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rankwise.errors import RankwiseError
from rankwise.observe.recipes import read_recipe
from rankwise.observe.recipes.about import About
from rankwise.observe.recipes.risks import find_risks
from rankwise.observe.recipes.schema import schema
from rankwise.report.recipe_words import recipe_title, risk_line

LEAST = {
    "axolotl": {"base_model": "llama-3-8b", "learning_rate": 1e-4},
    "llamafactory": {"model_name_or_path": "llama-3-8b", "stage": "sft", "do_train": True, "dataset": "x"},
    "trl": {"model_name_or_path": "llama-3-8b", "dataset_name": "a/b"},
    "trainer": {"model_name_or_path": "llama-3-8b", "output_dir": "o", "train_file": "rows.json"},
}
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(
        ["auto", "lora", "qlora", "full", "4", "1e-4", "q_proj,v_proj", "flash_attention_2", "no", "", "/"]
    ),
    st.dates(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["path", "type", "data_files", "stage", "name", "r", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def configurations(name: str) -> st.SearchStrategy[dict[str, Any]]:
    keys = st.one_of(st.sampled_from(sorted(schema(name).keys)), st.text(st.characters(codec="ascii"), max_size=8))
    return st.dictionaries(keys, VALUES, max_size=8).map(lambda more: LEAST[name] | more)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(LEAST)).flatmap(configurations))
@example(LEAST["trl"] | {"dataset_name": []})
def test_any_values_of_known_keys(keys: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(yaml.safe_dump(keys), encoding="utf-8")
        try:
            recipe = read_recipe(path)
        except RankwiseError as error:
            assert error.what
            return
        recipe.model_dump_json()
        assert recipe_title(recipe)
        for risk in find_risks(recipe, About(total_params=10**9, positions=2048, rate=1e-4)):
            assert risk_line(risk)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(["--learning_rate", "=", "train.py"]))
)
def test_any_command_line(words: list[str]) -> None:
    try:
        read_recipe(None, words)
    except RankwiseError as error:
        assert error.what


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("ab$\"'\\\n #;&|={}-./") | st.characters(codec="utf-8"), max_size=60))
def test_any_script(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.sh"
        path.write_text(text, encoding="utf-8")
        try:
            read_recipe(path)
        except RankwiseError as error:
            assert error.what
