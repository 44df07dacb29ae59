"""Checks of what is kept and looked at: validation, checkpoints, serving."""

from collections.abc import Iterator

from rankwise.observe.recipes.about import About, risk
from rankwise.records.recipe import Recipe, Risk

GB, MB = 1e9, 1e6


def validates(recipe: Recipe) -> bool:
    """Is anything held out, and looked at?"""
    if recipe.tool == "axolotl":
        return bool(recipe.value("validation")) or recipe.setting("test_datasets") is not None
    strategy = str(recipe.value("eval_strategy") or "no").lower()
    if recipe.tool == "llama-factory":
        return bool(recipe.value("validation")) and strategy != "no"
    return strategy != "no"


def validation(recipe: Recipe, about: About) -> Iterator[Risk]:
    if validates(recipe):
        return
    name = "validation" if recipe.tool in ("axolotl", "llama-factory") else "eval_strategy"
    fix = {
        "axolotl": "val_set_size: 0.05",
        "llama-factory": "val_size: 0.05 with eval_strategy: steps",
    }.get(recipe.tool, "eval_strategy: steps with a held-out split")
    yield risk(
        recipe,
        "risk",
        "no_validation",
        name,
        "Nothing is held out: overfitting and forgetting would go unseen, and no checkpoint is known to be the best.",
        fix,
        evidence=("E16",),
    )
    if recipe.value("load_best_model_at_end"):
        yield risk(
            recipe,
            "fault",
            "best_without_validation",
            "load_best_model_at_end",
            "The best model is asked for, and nothing is evaluated: the Trainer stops, or takes the last.",
            fix,
        )
    if recipe.setting("early_stopping_patience") or recipe.setting("early_stopping_steps"):
        name = "early_stopping_patience" if recipe.setting("early_stopping_patience") else "early_stopping_steps"
        yield risk(
            recipe,
            "fault",
            "stopping_without_validation",
            name,
            "It would stop early on a loss that is never measured.",
            fix,
        )


def checkpoints(recipe: Recipe, about: About) -> Iterator[Risk]:
    limit = recipe.value("save_total_limit")
    if str(recipe.value("save_strategy") or "").lower() == "no":
        yield risk(
            recipe,
            "risk",
            "no_checkpoints",
            "save_strategy",
            "No checkpoint is written: a run that dies starts again from nothing.",
            "save_strategy: steps with save_total_limit: 2",
        )
        return
    size = _each(about.checkpoint_bytes) if about.checkpoint_bytes else None
    if limit is None:
        yield risk(
            recipe,
            "risk" if recipe.method == "full" else "note",
            "checkpoints_without_limit",
            "save_total_limit",
            "Every checkpoint is kept, weights and optimizer state.",
            "save_total_limit: 2, or save_only_model: true where no run is ever resumed",
            number=size,
        )
    elif limit == 1:
        yield risk(
            recipe,
            "note",
            "one_checkpoint",
            "save_total_limit",
            "One checkpoint is kept: after a bad last stretch there is none to go back to.",
            "save_total_limit: 2 or more",
            number=size,
        )


def _each(size: int) -> str:
    return f"{size / GB:,.1f} GB each" if size >= GB else f"{size / MB:,.0f} MB each"


def steps_over_epochs(recipe: Recipe, about: About) -> Iterator[Risk]:
    steps, epochs = recipe.setting("max_steps"), recipe.setting("num_train_epochs")
    if steps and epochs and isinstance(steps.value, int) and steps.value > 0 and epochs.origin != "default":
        yield risk(
            recipe,
            "note",
            "steps_over_epochs",
            "max_steps",
            "max_steps wins over the number of epochs.",
            "keep one of the two",
            number=f"{steps.value:,} steps",
        )


def factory_trains(recipe: Recipe, about: About) -> Iterator[Risk]:
    nested = recipe.setting("train_dataset") is not None or (
        recipe.setting("stage") is None and not recipe.value("do_train")
    )
    if recipe.tool == "llama-factory" and recipe.value("do_train") is not True and not nested:
        yield risk(
            recipe,
            "fault",
            "do_train_missing",
            "do_train",
            "do_train is not on: llamafactory-cli reads everything, and trains nothing.",
            "do_train: true",
        )


def serving(recipe: Recipe, about: About) -> Iterator[Risk]:
    if about.engine != "vllm":
        return
    saved = next(
        (n for n in ("lora_modules_to_save", "modules_to_save", "additional_target") if recipe.setting(n)), None
    )
    if saved:
        yield risk(
            recipe,
            "risk",
            "not_served_unmerged",
            saved,
            "vLLM loads no adapter with whole saved modules: it has to be merged, one server for each variant.",
            "train single tokens (trainable_token_indices), or plan to merge",
        )
    if recipe.value("use_dora"):
        yield risk(
            recipe,
            "risk",
            "not_served_unmerged",
            "use_dora",
            "vLLM loads no DoRA adapter: it has to be merged, one server for each variant.",
            "plain LoRA, or plan to merge",
        )


CHECKS = (validation, checkpoints, steps_over_epochs, factory_trains, serving)
