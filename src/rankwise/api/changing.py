"""Their settings beside ours, for the same method."""

from typing import Any

from rankwise.decide.configure import Rung, configure
from rankwise.decide.recipes import RECIPES
from rankwise.errors import RankwiseError
from rankwise.observe.recipes.risks_of_saving import validates
from rankwise.records import Plan, TrainConfig
from rankwise.records.recipe import Change, Recipe

APART = 1.5  # times; closer numbers are no other choice
WHY = {
    "learning_rate": "our prior for this method and width; sweep a third and three times it (E6, E7)",
    "r": "sized by the bits that the data teach against what the adapter holds (E6, E14)",
    "lora_alpha": "alpha = 2 r, so that the scale stays when only the rank changes (E4, E6)",
    "target_modules": "all linear layers: attention alone learns less at equal parameters (E4, E6)",
    "num_train_epochs": "passes for this goal, stopped on held-out rows: many teach the rows by heart (E4, E16)",
    "effective_batch": "8 to 32 rows a step over all devices, so that 100 steps or more remain (E6)",
    "weights_dtype": "frozen weights in bf16; trained weights in fp32 under bf16 autocast (E30)",
    "max_length": "as long as the longest row, so that nothing is lost",
    "on_long": "what happens to long rows is counted and said",
    "gradient_checkpointing": "only where memory asks for it: it computes the forward pass twice (E13)",
    "save_total_limit": "the last two and the best one",
    "eval_steps": "validate four times in a run, so that the best checkpoint is known (E16)",
    "lr_scheduler_type": "cosine, to nearly nothing at the end",
    "lora_dropout": "no dropout: runs are short, and it keeps a mask and a copy of each input",
}
RATIOS = ("learning_rate", "num_train_epochs", "effective_batch")


def changes_of(recipe: Recipe, plan: Plan | None) -> tuple[Change, ...]:
    """What we would choose otherwise; nothing without a plan. The method itself comes first."""
    if plan is None:
        return ()
    found: list[Change] = []
    if plan.verdict.config is not None and plan.verdict.method != recipe.method:
        why = plan.reasons[0].text if plan.reasons else "see the plan"
        found.append(Change(key="method", theirs=recipe.method, ours=plan.verdict.method, why=why))
    config = our_config(recipe, plan)
    if config is None:
        return tuple(found)
    theirs, ours = _theirs(recipe, plan), _of_config(config, plan.facts.device.count)
    for key, why in WHY.items():
        if theirs.get(key) is None and (key != "eval_steps" or validates(recipe)):
            continue
        if ours.get(key) is not None and _apart(key, theirs.get(key), ours[key]):
            found.append(Change(key=key, theirs=theirs.get(key), ours=ours[key], why=why))
    return tuple(found)


def our_config(recipe: Recipe, plan: Plan) -> TrainConfig | None:
    """The verdict's configuration, or that of their method; None for a method that we do not configure."""
    if plan.verdict.method == recipe.method:
        return plan.verdict.config
    ours = next((r for r in RECIPES if r.method == recipe.method), None)
    if ours is None:
        return None
    try:
        rung = Rung(gradient_checkpointing=bool(recipe.value("gradient_checkpointing")))
        return configure(plan.job, plan.facts, ours, rung)
    except RankwiseError:
        return None


def _theirs(recipe: Recipe, plan: Plan) -> dict[str, Any]:
    options = recipe.options
    names = ("learning_rate", "num_train_epochs", "max_length", "lr_scheduler_type", "save_total_limit", "eval_steps")
    found = {name: recipe.value(name) for name in (*names, "gradient_checkpointing", "on_long")}
    found |= {
        "r": options.get("rank"),
        "lora_alpha": options.get("alpha"),
        "lora_dropout": options.get("dropout"),
        "target_modules": options.get("targets"),
        "effective_batch": options.get("batch", 1) * options.get("grad_accum", 1) * plan.facts.device.count,
        "weights_dtype": "fp32" if options.get("amp") else options.get("dtype"),
    }
    deepspeed = str(options.get("parallel") or "").startswith("zero")
    if deepspeed or recipe.method not in ("full", "lora"):
        found.pop("weights_dtype", None)  # DeepSpeed keeps an fp32 copy; a quantised base has no dtype of its own
    if validates(recipe):
        found["eval_steps"] = None  # they look, if at other steps
    if recipe.value("packing"):  # a packed block is many rows, as long as its length
        found |= {"effective_batch": None, "max_length": None}
    if plan.facts.data.format == "described":  # nobody has seen the longest row
        found["max_length"] = None
    return found


def _of_config(config: TrainConfig, devices: int) -> dict[str, Any]:
    targets = config.target_modules
    names = ("learning_rate", "num_train_epochs", "max_length", "lr_scheduler_type", "save_total_limit", "eval_steps")
    found = {name: getattr(config, name) for name in (*names, "gradient_checkpointing", "on_long")}
    return found | {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": list(targets) if isinstance(targets, tuple) else targets,
        "effective_batch": config.effective_batch * devices,
        "weights_dtype": config.dtype,
    }


def _apart(key: str, theirs: Any, ours: Any) -> bool:
    if key == "target_modules" and isinstance(theirs, list) and isinstance(ours, list):
        return set(theirs) != set(ours)
    if key in RATIOS and isinstance(theirs, int | float) and theirs > 0:
        return bool(max(theirs / ours, ours / theirs) > APART)
    return bool(theirs != ours)
