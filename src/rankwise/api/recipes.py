"""Bring another tool's configuration: does it fit, what will it cost, what is risky, what would we change?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise.api.changing import changes_of, our_config
from rankwise.api.estimating import configuration, price_asked
from rankwise.api.planning import load_job, plan_job
from rankwise.api.prices import own_prices, tariff_of
from rankwise.decide.recipes import PLANNED_METHODS
from rankwise.decide.rulebook import evidence
from rankwise.errors import ModelError, RankwiseError, UsageError
from rankwise.estimate.configure import positions_of
from rankwise.estimate.options import OPTIONS
from rankwise.estimate.price import price_configuration
from rankwise.model.locate import locate
from rankwise.observe import devices
from rankwise.observe.described import Described, describe_model
from rankwise.observe.recipes import read_recipe
from rankwise.observe.recipes.about import About
from rankwise.observe.recipes.risks import find_risks
from rankwise.records import Estimate, Plan
from rankwise.records.recipe import Brought, Recipe

WHICH_GPU = "Which GPU? Such files do not name one: --gpu H100-80GB (and --gpus 8), or --gpu cpu."
WHICH_ROWS = "How many rows, and how long? The data are not here: --examples 50000 --tokens-per-example 400."
WHICH_MODEL = "Which architecture? Give --model with a name from `rankwise models`, a folder, or a config.json."


@dataclass(frozen=True)
class _Asked:
    """What the person said beside the file, and what follows from both.

    Attributes:
        options: by dotted job key.
        gpu: None: none is named, and this machine has none.
        rows, tokens: of the training data; None: unknown.
    """

    options: Mapping[str, Any]
    gpu: str | None
    named: bool
    count: int
    nodes: int
    rows: int | None
    tokens: int | None


def bring(
    path: Path | None,
    options: Mapping[str, Any] | None = None,
    *,
    arguments: Sequence[str] = (),
    tool: str | None = None,
    out: Path | None = None,
) -> Brought:
    """Read another tool's configuration, price its run, find what is risky, and plan the same job ourselves.

    Args:
        path: YAML, JSON or a shell script; None: the arguments say everything.
        options: job keys (`hardware.gpu`, `data.examples`, …), which win over what the file says.
        arguments: a command line, or options of the tool that win over the file's.
        tool: axolotl, llama-factory, trl or args; None: found from the file.
        out: where the run will be, for its free disk.

    Raises:
        UsageError, JobError: an option that cannot be.
        RecipeError: a file that cannot be read, or trains something else than SFT on text.
    """
    said = {key: value for key, value in (options or {}).items() if value is not None}
    recipe = read_recipe(path, arguments, tool)
    if "model" in said:
        recipe = recipe.model_copy(update={"options": recipe.options | {"model": said["model"]}})
    model = str(recipe.options["model"])
    described = _described(model)
    asked = _asked(recipe, said)
    plan, not_planned = _plan(recipe, asked, described, out)
    if plan is not None and asked.rows is None:
        asked = _with_rows(asked, plan)
    given, not_priced = _given(recipe, asked, described)
    about = _about(recipe, described, given, plan, said)
    risks = find_risks(recipe, about)
    cited = sorted({name for risk in risks for name in risk.evidence})
    return Brought(
        recipe=recipe,
        risks=risks,
        evidence={name: evidence()[name].told() for name in cited},
        unknown_model=described is None,
        given=given,
        not_priced=not_priced,
        plan=plan,
        not_planned=not_planned,
        changes=changes_of(recipe, plan),
        questions=_questions(recipe, asked, described),
    )


def _described(model: str) -> Described | None:
    """The model's config; None where nobody here knows it."""
    try:
        return describe_model(model)
    except (UsageError, ModelError):
        return None


def _asked(recipe: Recipe, said: Mapping[str, Any]) -> _Asked:
    hardware = recipe.job.get("hardware", {})
    gpu = said.get("hardware.gpu") or hardware.get("gpu")
    count = said.get("hardware.count") or hardware.get("count") or 1
    nodes = said.get("hardware.nodes") or hardware.get("nodes") or 1
    named = gpu is not None or bool(devices.gpus_here())
    rows, tokens = said.get("data.examples"), said.get("data.tokens_per_example")
    return _Asked(said, gpu, named, count, nodes, rows, tokens)


def _with_rows(asked: _Asked, plan: Plan) -> _Asked:
    """Rows and their mean length as the plan has counted them."""
    data = plan.facts.data
    return _Asked(
        asked.options, asked.gpu, asked.named, asked.count, asked.nodes, data.rows, max(1, round(data.mean_length))
    )


def _given(recipe: Recipe, asked: _Asked, described: Described | None) -> tuple[Estimate | None, str | None]:
    """(their run priced, or why it is not)."""
    if described is None:
        return None, f"nobody here knows the architecture of {recipe.options['model']}"
    if recipe.not_priced:
        return None, recipe.not_priced
    costs = {key.partition(".")[2]: value for key, value in asked.options.items() if key.startswith("costs.")}
    options = recipe.options | {"gpu": asked.gpu, "gpus": asked.count, "nodes": asked.nodes, **_rows(recipe, asked)}
    if asked.gpu == "cpu":
        options.pop("parallel", None)
    limit = recipe.value("save_total_limit")
    if isinstance(limit, int) and limit > 0:
        options["keep_last"] = limit
    options |= {key: value for key, value in costs.items() if key in OPTIONS}
    if "variants" in asked.options:
        options["variants"] = asked.options["variants"]
    try:
        made = configuration(options)
        made = made.model_copy(update={"notes": (*recipe.assumptions, *made.notes)})
        if asked.named:
            return price_asked(made), None
        note = "no GPU is named, so fit, time and money are unknown"
        made = made.model_copy(update={"notes": (*made.notes, note)})
        return price_configuration(
            made, devices.unknown_gpu("a GPU", made.devices), tariff_of(own_prices(made.costs))
        ), None
    except RankwiseError as error:
        return None, " ".join(part for part in (error.what, error.fix and f"({error.fix})") if part)


def _rows(recipe: Recipe, asked: _Asked) -> dict[str, Any]:
    """Rows and their length as the estimate counts them: packed ones are full, and fewer."""
    steps = recipe.value("max_steps")
    length = recipe.options.get("seq_len")
    packed = bool(recipe.value("packing"))
    each = recipe.options.get("batch", 1) * recipe.options.get("grad_accum", 1) * asked.count * asked.nodes
    if isinstance(steps, int) and steps > 0 and (packed or asked.tokens):
        return {"examples": steps * each, "epochs": 1.0, "tokens_per_example": None if packed else asked.tokens}
    if asked.rows is None or asked.tokens is None:
        return {}
    if packed and length:
        return {"examples": max(1, math.ceil(asked.rows * min(asked.tokens, length) / length))}
    return {"examples": asked.rows, "tokens_per_example": asked.tokens}


def _plan(
    recipe: Recipe, asked: _Asked, described: Described | None, out: Path | None
) -> tuple[Plan | None, str | None]:
    """(our call for the same job, or what is missing for it). The method is ours to choose."""
    derived: dict[str, Any] = {"model": recipe.options["model"], "goal": recipe.job["goal"]}
    derived |= {"hardware.count": asked.count, "hardware.nodes": asked.nodes, "hardware.gpu": asked.gpu}
    here = _is_here(str(derived["model"]))
    if asked.rows is None and asked.tokens is None and here and "data.train" not in asked.options:
        derived |= {f"data.{key}": value for key, value in recipe.job.get("data", {}).items()}
    merged = derived | dict(asked.options)
    if described is None:
        return None, "the model's architecture is not known here"
    if not asked.named:
        return None, "no GPU is named, and this machine has none"
    if merged.get("data.train") is None and (asked.rows is None or asked.tokens is None):
        return None, _no_data(recipe, here)
    job = load_job(None, merged)
    try:
        return plan_job(job, out), None
    except UsageError:
        raise
    except RankwiseError as error:
        return None, " ".join(part for part in (error.what, error.fix and f"({error.fix})") if part)


def _no_data(recipe: Recipe, here: bool) -> str:
    if "data" in recipe.job and not here:
        return f"the rows are here, and the tokenizer of {recipe.options['model']} that would count them is not"
    return "the data are not here as one file, and not described"


def _is_here(model: str) -> bool:
    """Are the model's own files here, its tokenizer among them?"""
    try:
        locate(model)
    except RankwiseError:
        return False
    return True


def _about(
    recipe: Recipe, described: Described | None, given: Estimate | None, plan: Plan | None, said: Mapping[str, Any]
) -> About:
    config = described.config if described else {}
    known = described.architecture.total_params if described and described.architecture else None
    total = given.total_params - (given.trainable_params if recipe.method != "full" else 0) if given else known
    ours = our_config(recipe, plan) if plan else None
    return About(
        config=config,
        total_params=total,
        positions=positions_of(config) if config else None,
        rate=ours.learning_rate if ours else None,
        engine=said.get("serving.engine"),
        checkpoint_bytes=given.storage.checkpoint_bytes if given else None,
    )


def _questions(recipe: Recipe, asked: _Asked, described: Described | None) -> tuple[str, ...]:
    found = []
    if described is None:
        found.append(WHICH_MODEL)
    if not asked.named:
        found.append(WHICH_GPU)
    if asked.rows is None or asked.tokens is None:
        found.append(WHICH_ROWS)
    if recipe.method not in PLANNED_METHODS and described is not None:
        found.append(f"Does it have to be {recipe.method}? The plan chooses among {', '.join(PLANNED_METHODS)}.")
    return tuple(found)
