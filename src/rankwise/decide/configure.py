"""Job x Facts x Recipe x Rung -> TrainConfig: a configuration that can be executed as it stands.

What the job says about `train` and `method` wins over what we would choose."""

import math
from dataclasses import dataclass
from typing import Any

from rankwise.decide.capacity import power_of_two_below, rank_for
from rankwise.decide.comparisons import swept_rate
from rankwise.decide.forgetting import cut_of
from rankwise.decide.packing import packs
from rankwise.decide.recipes import Recipe
from rankwise.decide.rulebook import threshold
from rankwise.decide.sharding import deepspeed_config, fsdp_config
from rankwise.decide.vocabulary import new_token_rows
from rankwise.methods import METHODS
from rankwise.records import Facts, Job, TrainConfig
from rankwise.records.setup import Offload, Parallel

# Two cores trained 92-token rows at 276 tokens/s one by one, 377 in pairs and 451 in fours (docs/log.md): small
# matrices do not fill them. Rows of one forward pass have similar lengths, so that little is padded.
CPU_TOKENS = 512
GPU_ROWS = 8
# Keys of `train` that are no field of the configuration, or not as they stand.
READ_ELSEWHERE = {
    "bf16",
    "bf16_stochastic_round",
    "dtype",
    "gradient_checkpointing",
    "new_token_rows",
    "optimizer_in_backward",
    "report_to",
    "deepspeed",
    "parallel",
}
VIRTUAL_TOKENS = 20  # PEFT has no default; its own examples use 8 to 200


@dataclass(frozen=True)
class Rung:
    """One way to make a recipe fit: how it is spread, how many rows at a time, with or without recomputation.

    Attributes:
        micro_batch: rows in one forward pass; None: as many as the data and the device suggest.
        rank: of a low-rank adapter; None: the one that the need asks for.
        optim: in the place of the recipe's.
    """

    parallel: Parallel = "none"
    offload: Offload = "none"
    micro_batch: int | None = None
    gradient_checkpointing: bool = False
    rank: int | None = None
    optim: str | None = None


@dataclass(frozen=True)
class Sizes:
    """Rows and steps that follow from the data."""

    rows: int
    epochs: float
    micro_batch: int
    accumulation: int
    max_steps: int


def configure(job: Job, facts: Facts, recipe: Recipe, rung: Rung) -> TrainConfig:
    """The configuration of one recipe on one rung."""
    asked = bool(job.train.optimizer_in_backward) and recipe.offload == "none"
    in_backward = recipe.optimizer_in_backward or asked
    size = sizes(job, facts, micro_batch=rung.micro_batch, accumulates=not in_backward)
    adapter = _adapter_options(job, facts, recipe, rung)
    planned = {
        "num_train_epochs": size.epochs,
        "max_steps": size.max_steps,
        "learning_rate": learning_rate(job, facts, recipe, size.max_steps),
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, round(0.05 * size.max_steps)),
        "weight_decay": 0.0,
        "max_grad_norm": 0.0 if in_backward else 1.0,
        "optim": rung.optim or recipe.optim,
        "per_device_train_batch_size": size.micro_batch,
        "gradient_accumulation_steps": size.accumulation,
        "packing": packs(recipe.method, facts),
        "max_length": _max_length(facts, adapter.get("num_virtual_tokens", 0)),
        "on_long": "drop",
        "eval_steps": max(1, math.ceil(size.max_steps / 4)),
        "save_steps": max(1, math.ceil(size.max_steps / 4)),
        "save_total_limit": 2,
        "save_top_k": 1,
        "logging_steps": 1,
        "seed": 0,
    }
    said = job.train.model_dump(exclude=READ_ELSEWHERE, exclude_none=True)
    if "save_steps" in said:
        said.setdefault("eval_steps", said["save_steps"])
    if rung.optim is not None or recipe.optim != "adamw_torch_fused":
        said.pop("optim", None)  # the optimizer is what this recipe is
    for key in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        said.pop(key, None)  # `sizes` has read them
    return TrainConfig(
        method=recipe.method,
        gradient_checkpointing=rung.gradient_checkpointing,
        optimizer_in_backward=in_backward,
        replay_share=replay_share(job),
        new_token_ids=facts.new_tokens.ids if facts.new_tokens else None,
        new_token_rows=new_token_rows(job, facts, recipe.method),
        deepspeed=deepspeed_config(rung.parallel, rung.offload, facts.deepspeed),
        fsdp_config=fsdp_config(rung.parallel, rung.offload),
        **_precision(job, facts, recipe, rung.parallel),
        **adapter,
        **(planned | said),
    )


def sizes(job: Job, facts: Facts, *, micro_batch: int | None = None, accumulates: bool = True) -> Sizes:
    """Rows, epochs and the batch of one device: 8 to 32 rows over all devices that leave about 100 steps or more.

    Args:
        micro_batch: rows in one forward pass, fewer than the data and the device suggest.
        accumulates: False: one forward pass is one step.
    """
    rows = max(1, round(facts.data.rows * (1 + _replay_rows_per_row(job, facts))))
    epochs = job.train.num_train_epochs or epochs_for(job, facts)
    least, most, steps = (int(threshold("batch", name)) for name in ("least", "most", "steps"))
    wished = min(most, max(least, power_of_two_below(rows * epochs / steps)))
    batch = max(1, min(wished, power_of_two_below(rows)) // facts.device.count)
    said_micro, said_accumulation = job.train.per_device_train_batch_size, job.train.gradient_accumulation_steps
    at_once = min(batch // (said_accumulation or 1), rows_at_once(facts)) or 1
    micro = said_micro or max(1, min(at_once, micro_batch or at_once))
    accumulation = said_accumulation or (max(1, batch // micro) if accumulates else 1)
    taken = job.train.max_steps or max(1, math.ceil(round(rows * epochs) / (micro * accumulation * facts.device.count)))
    return Sizes(rows, epochs, micro, accumulation, taken)


def epochs_for(job: Job, facts: Facts) -> float:
    """Passes over the rows when the job does not say."""
    if facts.data.supervised_tokens >= threshold("epochs", "corpus"):
        return 1.0
    if job.goal == "knowledge":
        return threshold("epochs", "facts")
    if job.data.domain in ("code", "math"):
        return threshold("epochs", "code_math")
    return threshold("epochs", "task" if job.goal == "task" else "instruction")


def rows_at_once(facts: Facts) -> int:
    """Rows that go through the model together: as many short ones as fill CPU_TOKENS on a CPU, 8 on a GPU."""
    if facts.device.kind == "gpu":
        return GPU_ROWS
    return power_of_two_below(CPU_TOKENS / facts.data.mean_length)


def _replay_rows_per_row(job: Job, facts: Facts) -> float:
    """General rows per training row, from the share of supervised tokens that should be general."""
    share, general = replay_share(job), facts.data.general_supervised_per_row
    if not share or not general or not facts.data.rows:
        return 0.0
    return share / (1 - share) * facts.data.supervised_tokens / facts.data.rows / general


def replay_share(job: Job) -> float:
    if job.data.general is None or not job.forgetting.replay_allowed:
        return 0.0
    return job.data.general.share


def learning_rate(job: Job, facts: Facts, recipe: Recipe, steps: int) -> float:
    """What the sweep of the owner's own comparison chose (rule `own_comparison`). Else a prior for one run, not a
    substitute for a sweep (rule `learning_rate`), cut where the forgetting budget is below what such a run is expected
    to forget (rule `forgetting_budget`).
    """
    swept = swept_rate(job, facts, recipe.method)
    if swept is not None and (chosen := swept[1].learning_rate) is not None:
        return chosen

    def number(name: str) -> float:
        return threshold("learning_rate", name)

    family = str(facts.model.config.get("model_type") or facts.model.architecture).lower()
    power = number("p_qwen" if family.startswith("qwen") else "p_llama")
    full = min(number("most_full"), number("base") * (2000 / facts.model.hidden_size) ** power)
    rate = full
    if not recipe.trains_weights:
        times = number("adapter_short" if steps < number("short") else "adapter")
        rate = min(number("most_adapter"), full * times)
    return _two_digits(rate / cut_of(job, facts, recipe.trains_weights, replay_share(job)))


def _two_digits(value: float) -> float:
    return float(f"{value:.1e}")


def _max_length(facts: Facts, learned: int) -> int:
    """The longest row, so that nothing is lost, unless the model cannot see that far after `learned` positions."""
    limit = facts.model.max_position_embeddings
    return max(8, min(facts.data.longest if limit is None else limit - learned, facts.data.longest))


def _precision(job: Job, facts: Facts, recipe: Recipe, parallel: Parallel) -> dict[str, Any]:
    """Frozen weights in bf16, trained weights in fp32 under bf16 autocast (E30); fp32 all through where bf16 is
    slow. DeepSpeed is given bf16 weights, and keeps the fp32 ones itself. Trained bf16 weights are rounded
    stochastically, on one device.
    """
    bf16 = job.train.bf16 if job.train.bf16 is not None else facts.device.bf16
    if recipe.pure_bf16:
        said = job.train.bf16_stochastic_round
        rounded = facts.device.count == 1 if said is None else said
        return {"dtype": "bf16", "autocast": None, "bf16_stochastic_round": rounded}
    asked = None if recipe.trains_weights else job.train.dtype
    if not bf16 and asked != "bf16":
        return {"dtype": "fp32", "autocast": None}
    if parallel.startswith("zero"):
        return {"dtype": "bf16", "autocast": None}
    return {"dtype": asked or ("fp32" if recipe.trains_weights else "bf16"), "autocast": "bf16"}


def _adapter_options(job: Job, facts: Facts, recipe: Recipe, rung: Rung) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if job.method and job.method.name == recipe.method:
        said = job.method.model_dump(exclude={"name"}, exclude_none=True)
        if facts.adapter is not None:
            said["adapter"] = facts.adapter.folder
    if recipe.low_rank:
        targets = said.get("target_modules", "all-linear")  # rule `targets`
        r = said.get("r") or rung.rank or rank_for(job, facts, targets)
        options = {"r": r, "lora_alpha": threshold("alpha", "ratio") * r, "lora_dropout": 0.0}
        return options | {"target_modules": targets} | said
    if "num_virtual_tokens" in METHODS[recipe.method].options:
        return {"num_virtual_tokens": VIRTUAL_TOKENS} | said
    return said
