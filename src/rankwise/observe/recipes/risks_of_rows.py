"""Checks of what the rows become: length, packing, masks, end of sequence, template, data."""

import re
from collections.abc import Iterator

from rankwise.observe.recipes.about import About, risk
from rankwise.records.recipe import Recipe, Risk

SHORT = 512  # tokens; conversations are mostly longer
LONG = 4096  # tokens; from here on activations, not weights, set the memory of an adapter's run
ENDS = ("</s>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "<eos>", "<|eot|>", "<|return|>")
INSTRUCT = re.compile(r"(?i)(instruct|chat|[-_/]it$|[-_]it[-_]|assistant|embedded|2507)")
# Families by the model's name, and the templates that are their own.
FAMILIES = {
    r"llama-?3": "llama3",
    r"qwen": "qwen",
    r"gemma": "gemma",
    r"mi[sx]tral": "mistral",
    r"phi-?[34]": "phi",
}
GENERIC = ("default", "alpaca", "vicuna", "empty", "tokenizer_default", "jinja", "chatml")


def length(recipe: Recipe, about: About) -> Iterator[Risk]:
    setting = recipe.setting("max_length")
    if setting is None or not isinstance(setting.value, int):
        return
    tokens = setting.value
    if about.positions and tokens > about.positions:
        yield risk(
            recipe,
            "fault",
            "longer_than_the_model",
            "max_length",
            "Rows may be longer than the model has positions.",
            f"{setting.key}: {about.positions}, or extend the positions (rope_scaling) on purpose",
            number=f"{tokens:,} tokens, {about.positions:,} positions",
        )
    if recipe.value("packing"):
        return
    fate = {"drop": "dropped", "raise": "refused"}.get(str(recipe.value("on_long")), "cut")
    if setting.origin == "default":
        yield risk(
            recipe,
            "risk",
            "length_by_default",
            "max_length",
            f"No length is given: {recipe.tool}'s default holds, and longer rows are {fate} without a count.",
            f"{setting.key}: the length of the longest row",
            number=f"{tokens:,} tokens",
        )
    elif tokens < SHORT:
        yield risk(
            recipe,
            "risk",
            "short_rows",
            "max_length",
            f"Rows of more than {tokens} tokens are {fate}; a cut row ends without its end-of-sequence token.",
            f"{setting.key}: at least the longest row",
            number=f"{tokens:,} tokens",
        )
    elif fate == "dropped":
        yield risk(
            recipe,
            "note",
            "long_rows_dropped",
            "max_length",
            f"Rows of more than {tokens:,} tokens are dropped; count them before the run.",
            "excess_length_strategy: raise, to be told",
        )


def packing(recipe: Recipe, about: About) -> Iterator[Risk]:
    if recipe.value("packing_isolated") is not False:
        return
    fix = {
        "axolotl": "attn_implementation: flash_attention_2",
        "llama-factory": "neat_packing: true",
        "trl": "packing_strategy: bfd with attn_implementation: flash_attention_2",
    }.get(recipe.tool, "attn_implementation: flash_attention_2")
    cut = recipe.value("packing_strategy") == "wrapped"
    yield risk(
        recipe,
        "risk",
        "packed_rows_see_each_other",
        "packing",
        "Packed rows are not isolated: a row attends to the rows before it"
        + (", and rows are cut where a block ends." if cut else "."),
        fix,
    )


def prompts(recipe: Recipe, about: About) -> Iterator[Risk]:
    if recipe.value("prompt_trained") is True:
        yield risk(
            recipe,
            "risk",
            "prompt_trained",
            "train_on_prompt",
            "The loss runs over prompts, too: the model also learns to write the user's side.",
            "train_on_inputs: false" if recipe.tool == "axolotl" else "train_on_prompt: false",
        )
    elif recipe.tool == "trl" and recipe.value("prompt_trained") is None:
        yield risk(
            recipe,
            "note",
            "prompt_trained_unless_told",
            "assistant_only_loss",
            "TRL masks the prompt of prompt/completion rows alone; over conversations the loss runs on every turn.",
            "assistant_only_loss: true for conversations",
        )


def end_of_sequence(recipe: Recipe, about: About) -> Iterator[Risk]:
    pad, end = recipe.value("pad_token"), recipe.value("eos_token")
    if not pad or (pad != end and pad not in ENDS):
        return
    by_position = recipe.tool in ("axolotl", "trl", "llama-factory")
    yield risk(
        recipe,
        "note" if by_position else "risk",
        "pad_is_eos",
        "pad_token",
        f"Padding is {pad}, which ends sequences. "
        + (
            "This tool masks padding by position, so the end keeps its label; a collator that masks by token would not."
            if by_position
            else "transformers' DataCollatorForLanguageModeling masks it by token: the model may never learn to stop."
        ),
        "a pad token of its own, such as <|finetune_right_pad_id|> or <unk>",
    )


def template(recipe: Recipe, about: About) -> Iterator[Risk]:
    said, model = str(recipe.value("chat_template") or ""), str(recipe.model or "")
    own = next((name for pattern, name in FAMILIES.items() if re.search(pattern, model, re.IGNORECASE)), None)
    instruct = bool(INSTRUCT.search(model))
    other = next((n for n in FAMILIES.values() if said.startswith(n) and n != own), None)
    if own and other and not said.startswith("mistral"):
        yield risk(
            recipe,
            "risk",
            "template_of_another_family",
            "chat_template",
            f"The template {said} belongs to another family than {model}: its markers are not that model's own tokens.",
            f"the template of {own}, or the tokenizer's own",
        )
    elif instruct and said in ("alpaca", "vicuna", "default", "empty"):
        yield risk(
            recipe,
            "risk",
            "template_overrides_chat",
            "chat_template",
            f"{model} was tuned on its own chat template; {said} is another form, which serving will not send.",
            "the tokenizer's own template",
        )
    chats = any((d.kind or "").startswith(("chat_template", "sharegpt")) for d in recipe.datasets)
    if not said and not instruct and (recipe.tool == "llama-factory" or (recipe.tool == "axolotl" and chats)):
        yield risk(
            recipe,
            "risk",
            "no_template",
            "chat_template",
            f"No chat template is named, and {model} looks like a base model, which mostly has none.",
            "name one, train its end-of-turn token, and serve with the same",
        )


def recomputation(recipe: Recipe, about: About) -> Iterator[Risk]:
    tokens = recipe.value("max_length")
    if recipe.value("gradient_checkpointing") is False and isinstance(tokens, int) and tokens >= LONG:
        yield risk(
            recipe,
            "risk",
            "long_rows_without_checkpointing",
            "gradient_checkpointing",
            "Long rows without gradient checkpointing: every layer's activations stay until the backward pass.",
            "gradient_checkpointing: true (in one measurement 42 % less memory for 21 % less speed)",
            number=f"{tokens:,} tokens a row",
            evidence=("E13",),
        )


def data(recipe: Recipe, about: About) -> Iterator[Risk]:
    away = [d for d in recipe.datasets if d.local is None]
    if not recipe.datasets:
        yield risk(
            recipe,
            "risk",
            "no_data",
            "datasets",
            "The configuration names no data set.",
            "name it, or describe it with --examples and --tokens-per-example",
        )
    elif away:
        lines = [d.line for d in away if d.line is not None]
        found = risk(
            recipe,
            "note",
            "data_not_here",
            "datasets",
            f"{', '.join(d.path for d in away[:4])}{', …' if len(away) > 4 else ''}: not here as a file, so rows were "
            "neither counted nor looked at.",
            "give a local file, or --examples and --tokens-per-example",
        )
        yield found.model_copy(update={"line": lines[0] if lines else None})


CHECKS = (length, packing, prompts, end_of_sequence, template, recomputation, data)
