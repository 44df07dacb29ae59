"""Every example of Axolotl, LLaMA-Factory and TRL parses or is refused with its reason, and none crashes.

RANKWISE_RECIPES names a folder with checkouts `axolotl/`, `LLaMA-Factory/` and `trl/` (with a file COMMIT where they
are no git checkouts); nothing of theirs is kept here.
"""

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankwise import api
from rankwise.errors import RankwiseError, RecipeError
from rankwise.estimate.options import OPTIONS, typed
from rankwise.observe.recipes import read_recipe
from rankwise.observe.recipes.about import About
from rankwise.observe.recipes.arguments import commands_of
from rankwise.observe.recipes.risks import find_risks
from tests import builders
from tests.observe.recipes import schemas_from_upstream

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(
        "RANKWISE_RECIPES" not in os.environ,
        reason="set RANKWISE_RECIPES to a folder with checkouts axolotl/, LLaMA-Factory/ and trl/",
    ),
]
ROOT = Path(os.environ.get("RANKWISE_RECIPES", "."))
PAGE = Path(__file__).parents[3] / "docs" / "bring-your-config.md"
FENCE = re.compile(r"^```(?:bash|shell|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
YAML_FENCE = re.compile(r"^```ya?ml\n(.*?)^```", re.DOTALL | re.MULTILINE)
PLAIN_FENCE = re.compile(r"^```\n(.*?)^```", re.DOTALL | re.MULTILINE)
STAGES = ("rl", "reward_model", "process_reward_model", "pretraining_dataset", "processor_type", "diffusion")
ALLOWED = ("launcher", "vision", "names no model")  # the last: a snippet of the paper index that leaves it out


def outcome(path: Path) -> tuple[str, str]:
    """(parsed | not priced | refused, why). Anything but our own error propagates."""
    try:
        recipe = read_recipe(path)
    except RankwiseError as error:
        assert isinstance(error, RecipeError) and error.what and (error.expected or error.fix)
        return "refused", error.what
    assert recipe.model and set(recipe.options) <= set(OPTIONS)
    assert recipe.not_priced or typed(recipe.options)
    assert all(r.text and r.fix for r in find_risks(recipe, About()))
    recipe.model_dump_json()
    return ("not priced", recipe.not_priced) if recipe.not_priced else ("parsed", "")


def count(name: str, found: dict[Path, tuple[str, str]]) -> Counter[str]:
    """The counts, which are those that the documentation publishes."""
    counts = Counter(kind for kind, _ in found.values())
    for path, (kind, why) in found.items():
        if kind != "parsed":
            print(f"{kind}: {path.name}: {why[:160]}")
    (row,) = (line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {name} "))
    told = [int(cell) for cell in row.split("|")[3:7]]
    assert told == [counts["parsed"], counts["not priced"], counts["refused"], 0], counts
    return counts


def test_axolotl() -> None:
    files = sorted((ROOT / "axolotl" / "examples").rglob("*.y*ml"))
    found = {path: outcome(path) for path in files}
    assert len(found) > 200 and count("Axolotl", found)["refused"] < len(found) / 3
    for path, (kind, why) in found.items():
        if kind == "refused":
            keys = yaml.safe_load(path.read_text()) or {}
            stage = any(keys.get(k) for k in STAGES) or "vision" in why or "base_model" not in keys
            assert stage, f"{path}: a text SFT configuration was refused: {why}"


def test_llama_factory() -> None:
    folder = ROOT / "LLaMA-Factory" / "examples"
    found = {path: outcome(path) for path in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.sh")])}
    assert len(found) > 80
    count("LLaMA-Factory", found)
    for path in sorted([*folder.glob("train_*/*sft*.yaml"), *folder.glob("extras/**/*sft*.yaml")]):
        kind, why = found[path]
        assert kind != "refused" or "vision" in why, f"{path}: {why}"


def test_trl(tmp_path: Path) -> None:
    """Its YAML files, and every command and YAML block of its documentation and scripts that runs `sft`."""
    trl = ROOT / "trl"
    found = {path: outcome(path) for path in sorted((trl / "examples").rglob("*.yaml"))}
    pages = [*(trl / "docs").rglob("*.md"), trl / "README.md", *(trl / "trl" / "scripts").glob("sft*.py")]
    pages += (trl / "examples" / "scripts").glob("sft*.py")
    for page in sorted(pages):
        text = page.read_text(encoding="utf-8")
        for block in (FENCE if page.suffix == ".md" else PLAIN_FENCE).findall(text):
            runs = [c for c in commands_of(block, page) if "sft" in f"{c.program} {c.action}"]
            if runs and "..." not in block and not runs[0].config:
                found[written(tmp_path, len(found), block, "sh", page)] = ("", "")
        for block in YAML_FENCE.findall(text):
            if "model_name_or_path" in block and "sft" in block:
                found[written(tmp_path, len(found), block, "yaml", page)] = ("", "")
    found = {path: outcome(path) for path in found}
    counts = count("TRL", found)
    assert counts["parsed"] > 20
    for path, (kind, why) in found.items():
        assert kind != "refused" or any(word in why for word in ALLOWED), f"{path}: {why}"


def written(folder: Path, number: int, text: str, ending: str, page: Path) -> Path:
    path = folder / f"{number:03d}-{page.stem}.{ending}"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_schemas_are_those_of_the_checkouts() -> None:
    for name, text in schemas_from_upstream.everything(ROOT).items():
        assert (schemas_from_upstream.HERE / name).read_text(encoding="utf-8") == text, f"{name} is out of date"


TINY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def test_what_is_read_is_priced_on_a_small_model(tmp_path: Path) -> None:
    """The options of each, sizes made small and equal ones taken once: an estimate, or a refusal with its reason."""
    small = tmp_path / "small.json"
    small.write_text(json.dumps(builders.llama_config(2, 128, 256, 64, 320, True, 512)))
    asked: dict[str, Path] = {}
    for path in sorted(
        [*(ROOT / "axolotl" / "examples").rglob("*.y*ml"), *ROOT.glob("LLaMA-Factory/examples/**/*.yaml")]
    ):
        if outcome(path)[0] == "parsed":
            options = read_recipe(path).options
            asked.setdefault(json.dumps(shrunk(options) | {"model": str(small)}, sort_keys=True), path)
    assert len(asked) > 60
    refused = {}
    for options, path in asked.items():
        try:
            assert api.estimate(**json.loads(options)).memory.peak_device > 0
        except RankwiseError as error:
            refused[path] = error.what
    print(refused)
    assert all("optimizer" in what for what in refused.values()) and len(refused) < len(asked) / 10


def shrunk(options: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in options.items() if k not in ("alpha", "epochs", "grad_accum", "targets")}
    targets = options.get("targets")
    if isinstance(targets, list):
        targets = [t for t in targets if t in TINY] or None
    kept |= {"seq_len": 64, "batch": 1, "gpu": "H100-80GB", "gpus": 2, "targets": targets}
    return kept | ({"rank": 4} if "rank" in kept else {})
