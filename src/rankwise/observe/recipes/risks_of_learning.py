"""Checks of what is trained and how fast: targets, alpha, learning rate, precision, batch."""

from collections.abc import Iterator

from rankwise.observe.recipes.about import About, risk
from rankwise.records.recipe import Recipe, Risk

LOW_RANK = ("lora", "qlora", "dora", "rslora", "lora-8bit", "gptq-lora")
PLAIN = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "query", "key", "value", "dense", "wo")
FUSED = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "wqkv", "W_pack")
LATENT = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")
ATTENTION = frozenset((*PLAIN, *FUSED, *LATENT))
PROMPT = ("prompt", "prompt_tuning", "p_tuning", "multitask_prompt_tuning", "prefix", "prefix_tuning")
PROMPT_FROM = 10_000_000_000  # parameters from which prompt tuning reaches full fine-tuning (E24)
# Share of Adam's updates that pure bf16 rounds away at weights of standard deviation 0.02 (E30).
ROUNDED = {1e-6: 98, 1e-5: 84, 2e-5: 70, 5e-5: 43, 1e-4: 12}
COMPENSATED = ("optimi_adamw", "ao_adamw_8bit", "ao_adamw_4bit", "ao_adamw_fp8", "flash_adamw", "flash_adam")
LORA_RATES = 5e-5, 1e-3  # between them lay the best rate of 32 of 35 models; 3e-3 diverged (E7)
FULL_RATE = 1e-4
FAR = 5.0
LOW_SCALE, HIGH_SCALE, HIGH_RANK = 0.25, 4.0, 64
LARGE_BATCH = 32
GIB = 1 << 30


def attention_only(recipe: Recipe, about: About) -> Iterator[Risk]:
    targets = recipe.options.get("targets")
    if recipe.method not in LOW_RANK or not isinstance(targets, list) or not targets:
        return
    ends = {str(t).rpartition(".")[2] for t in targets}
    if ends <= ATTENTION:
        setting = recipe.setting("target_modules")
        unsaid = " (PEFT's default, as the file names none)" if setting and setting.origin == "default" else ""
        yield risk(
            recipe,
            "risk",
            "attention_only",
            "target_modules",
            f"Only attention is adapted: {', '.join(sorted(ends))}{unsaid}. At equal parameters the MLP's "
            "matrices learn more.",
            {"axolotl": "lora_target_linear: true", "llama-factory": "lora_target: all"}.get(
                recipe.tool, "lora_target_modules: all-linear"
            ),
            evidence=("E4", "E6", "E12"),
        )


def no_targets(recipe: Recipe, about: About) -> Iterator[Risk]:
    if recipe.method in LOW_RANK and recipe.setting("target_modules") is None and recipe.tool == "axolotl":
        if recipe.setting("lora_target_parameters"):
            return
        yield risk(
            recipe,
            "fault",
            "no_targets",
            "adapter",
            "An adapter is asked for, and no module is named: PEFT adapts nothing and stops.",
            "lora_target_linear: true",
        )


def scale(recipe: Recipe, about: About) -> Iterator[Risk]:
    """alpha against r."""
    r, alpha = recipe.options.get("rank"), recipe.options.get("alpha")
    if recipe.method not in LOW_RANK or not r or not alpha:
        return
    roots = bool(recipe.value("use_rslora"))
    factor = alpha / (r**0.5 if roots else r)
    number = f"alpha {alpha:g} / {'sqrt ' if roots else ''}r {r} = {factor:.3g}"
    if factor < LOW_SCALE:
        yield risk(
            recipe,
            "risk",
            "alpha_far_below_rank",
            "lora_alpha",
            "The adapter's output is scaled down, which acts as a lower learning rate.",
            f"lora_alpha: {2 * r} (twice the rank), or keep it and raise the learning rate",
            number=number,
            evidence=("E6", "E4"),
        )
    elif factor > HIGH_SCALE and not (roots and r <= HIGH_RANK):
        yield risk(
            recipe,
            "risk",
            "alpha_far_above_rank",
            "lora_alpha",
            "The adapter's output is scaled up, which acts as a higher learning rate.",
            f"lora_alpha: {2 * r} (twice the rank), or divide the learning rate",
            number=number,
            evidence=("E6",),
        )
    elif r >= HIGH_RANK and factor <= 1 and not roots:
        yield risk(
            recipe,
            "note",
            "alpha_at_high_rank",
            "lora_alpha",
            "At a high rank alpha / r of at most 1 learned less than 2; rsLoRA's scale does not fall with the rank.",
            f"lora_alpha: {2 * r}, or use_rslora with its own sweep of the learning rate",
            number=number,
            evidence=("E4", "E8"),
        )


def rate(recipe: Recipe, about: About) -> Iterator[Risk]:
    """Far from the rate that we would start from; without one, outside of what published sweeps found."""
    said = recipe.value("learning_rate")
    if not isinstance(said, int | float) or recipe.method not in (*LOW_RANK, "full"):
        return
    kind = "full fine-tuning" if recipe.method == "full" else "an adapter"
    low, high = (0.0, FULL_RATE) if recipe.method == "full" else LORA_RATES
    prior = about.rate
    too_high = said > prior * FAR if prior else said > high
    too_low = said < prior / FAR if prior else said < low
    if not too_high and not too_low:
        return
    usual = 2e-5 if recipe.method == "full" else 2e-4
    beside = (
        f"{said:g} against {prior:g}, which we would start from" if prior else f"{said:g}; {low:g} to {high:g} is usual"
    )
    yield risk(
        recipe,
        "risk",
        "learning_rate_high" if too_high else "learning_rate_low",
        "learning_rate",
        f"The learning rate is {'high' if too_high else 'low'} for {kind}: adapters want about ten times the rate of "
        "full fine-tuning.",
        f"learning_rate: {prior or usual:g}, and a sweep of a third and three times it",
        number=beside,
        evidence=("E6", "E7"),
    )


def rounded_away(recipe: Recipe, about: About) -> Iterator[Risk]:
    """Full fine-tuning of bf16 weights without an fp32 copy."""
    said = recipe.value("learning_rate")
    split = str(recipe.options.get("parallel") or "")
    pure = recipe.method == "full" and recipe.value("dtype") in ("bf16", "bfloat16") and not recipe.options.get("amp")
    if not pure or split.startswith("zero") or not isinstance(said, int | float) or said >= max(ROUNDED):
        return
    if recipe.value("optim") in COMPENSATED:
        return
    near = min(ROUNDED, key=lambda known: abs(known / said - 1) if said else known)
    yield risk(
        recipe,
        "risk",
        "updates_rounded_away",
        "dtype",
        "The weights themselves are trained in bf16, without an fp32 copy: small updates round to nothing.",
        "keep fp32 weights under bf16 autocast, use DeepSpeed (which keeps an fp32 copy), or an optimizer with Kahan "
        "summation or stochastic rounding",
        number=f"{ROUNDED[near]} % of the updates at a learning rate of {near:g}",
        evidence=("E30",),
    )


def frozen_in_fp32(recipe: Recipe, about: About) -> Iterator[Risk]:
    if recipe.method not in ("lora", "dora", "rslora") or not recipe.options.get("amp"):
        return
    size = f"{2 * about.total_params / GIB:.1f} GiB more" if about.total_params else None
    yield risk(
        recipe,
        "risk" if about.total_params and about.total_params > 1e9 else "note",
        "frozen_base_in_fp32",
        "dtype",
        "The frozen base is loaded in fp32: twice the memory for weights that never change.",
        "dtype: bfloat16 (the adapter stays in fp32)",
        number=size,
    )


def prompt_tuning(recipe: Recipe, about: About) -> Iterator[Risk]:
    if recipe.method in PROMPT and about.total_params and about.total_params < PROMPT_FROM:
        yield risk(
            recipe,
            "risk",
            "prompt_tuning_on_small_model",
            "adapter",
            "Prompt tuning reaches full fine-tuning only at about 10 billion parameters.",
            "adapter: lora",
            number=f"{about.total_params / 1e9:.2f} billion parameters; at 3 billion 5.7 to 34.3 % against LoRA's 48 %",
            evidence=("E24",),
        )


def conflicts(recipe: Recipe, about: About) -> Iterator[Risk]:
    """Combinations that the tool refuses when it starts."""
    if recipe.tool != "axolotl" and recipe.value("fp16") is True and recipe.value("bf16") is True:
        yield risk(
            recipe,
            "fault",
            "two_precisions",
            "fp16",
            "fp16 and bf16 are both on: the Trainer stops.",
            "keep bf16: true",
        )
    if recipe.tool == "axolotl":
        adapter, four, eight = (recipe.value(n) for n in ("adapter", "load_in_4bit", "load_in_8bit"))
        if adapter == "qlora" and not four:
            yield risk(
                recipe,
                "fault",
                "qlora_without_4bit",
                "adapter",
                "adapter is qlora and load_in_4bit is not on: Axolotl stops.",
                "load_in_4bit: true",
            )
        if not adapter and (four or eight):
            yield risk(
                recipe,
                "fault",
                "quantised_without_adapter",
                "load_in_4bit" if four else "load_in_8bit",
                "A quantised base is asked for without an adapter: Axolotl stops.",
                "adapter: qlora, or turn the quantisation off",
            )
    if recipe.value("optim") == "adamw_hf":
        yield risk(
            recipe,
            "fault",
            "optimizer_gone",
            "optim",
            "transformers has no adamw_hf any more.",
            "optim: adamw_torch_fused",
        )


def large_batch(recipe: Recipe, about: About) -> Iterator[Risk]:
    micro, steps = recipe.options.get("batch"), recipe.options.get("grad_accum")
    if recipe.method not in LOW_RANK or not micro or not steps:
        return
    devices = (recipe.options.get("gpus") or 1) * (recipe.options.get("nodes") or 1)
    rows = micro * steps * devices
    if rows > LARGE_BATCH:
        yield risk(
            recipe,
            "note",
            "large_batch_for_adapter",
            "gradient_accumulation_steps",
            "LoRA loses more to large batches than full fine-tuning does.",
            f"an effective batch of {LARGE_BATCH} rows or fewer, until the loss says otherwise",
            number=f"{micro} x {steps} x {devices} = {rows} rows a step",
            evidence=("E6",),
        )


CHECKS = (
    attention_only,
    no_targets,
    scale,
    rate,
    rounded_away,
    frozen_in_fp32,
    prompt_tuning,
    conflicts,
    large_batch,
)
