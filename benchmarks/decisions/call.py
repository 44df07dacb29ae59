"""Who calls what: our planner through the public API, "always LoRA r16", and the lesson's function."""

from collections.abc import Callable
from typing import Any

from benchmarks.decisions import lesson
from benchmarks.decisions.case import RUNGS, Case
from rankwise.api import load_job, plan_job
from rankwise.observe.catalogue import rows
from rankwise.observe.devices import observe_device
from rankwise.records.base import Record
from rankwise.records.job import Hardware
from rankwise.records.plan import Plan, TrainConfig

ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "c_attn", "query_key_value", "qkv_proj", "attn.c_proj"})
PLAIN_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused")
LORA_RANK = 16
A100_GB = 80
OBJECTIVES = {"knowledge": "domain_knowledge", "instruction": "instruction", "task": "task_specific"}
FAMILIES = {"lora": ("lora", "rslora", "dora", "qlora")}


class Call(Record):
    """What somebody would do about a case."""

    method: str
    r: int | None = None
    targets: str | None = None
    recipe: str | None = None
    rung: str | None = None
    said: str


def ours(case: Case) -> Call:
    """The verdict of `rankwise plan`. A case that it refuses raises a RankwiseError."""
    return of_plan(plan_job(load_job(None, options(case)), brief=True))


def options(case: Case) -> dict[str, Any]:
    """The case as dotted job keys. Nothing of the arms is in it."""
    said = {
        "model": case.model,
        "goal": case.goal,
        "data.domain": case.domain,
        "data.examples": case.examples,
        "data.tokens_per_example": case.tokens_per_example,
        "hardware.gpu": case.gpu,
        "hardware.count": case.count,
        "variants": case.variants,
        "retrieval": case.retrieval,
        "budget.usd": case.usd_budget,
        "budget.hours": case.hours_budget,
        "forgetting.budget_nats": case.forgetting_budget_nats,
        "forgetting.replay_allowed": case.replay_allowed,
        "method": case.force,
        "train.num_train_epochs": case.epochs,
    }
    return {key: value for key, value in said.items() if value is not None}


def of_plan(plan: Plan) -> Call:
    """Method, rank, targets and first rung of a plan."""
    verdict = plan.verdict
    config = verdict.config
    rung = next((name for text in verdict.first_try[:1] for name in RUNGS if text.startswith(name)), None)
    if config is None:
        return Call(method=verdict.method, rung=rung, said=_words(verdict.method, first(rung)))
    recipe = saving(config)
    target = target_class(config.target_modules)
    rank = f"r{config.r}" if config.r else None
    said = _words(verdict.method, recipe, rank, target, first(rung))
    return Call(method=verdict.method, r=config.r, targets=target, recipe=recipe, rung=rung, said=said)


def first(rung: str | None) -> str | None:
    return f"first {rung}" if rung else None


def saving(config: TrainConfig) -> str | None:
    """What makes the recipe smaller than AdamW with all its states; None for the plain one."""
    plain = config.optim in PLAIN_OPTIMIZERS
    return _words(None if plain else config.optim, "in backward" if config.optimizer_in_backward else None) or None


def _words(*words: str | None) -> str:
    return ", ".join(word for word in words if word)


def target_class(modules: str | tuple[str, ...] | None) -> str | None:
    """attention: nothing but the attention's projections; mlp: none of them; all-linear: both."""
    if modules is None or isinstance(modules, str):
        return modules
    inside = {module in ATTENTION for module in modules}
    return "all-linear" if len(inside) == 2 else "attention" if inside == {True} else "mlp"


def lora_r16(case: Case) -> Call:
    """LoRA of rank 16 on all linear layers, whatever the question."""
    del case
    return Call(method="lora", r=LORA_RANK, targets="all-linear", said=f"lora, r{LORA_RANK}, all-linear")


def of_lesson(case: Case) -> Call:
    """The lesson's function, with its advice on ranks. GPUs are counted as memory in units of 80 GB, at least one."""
    memory = observe_device(Hardware(gpu=case.gpu, count=case.count)).memory_bytes
    answer = lesson.recommend_fine_tuning_method(
        model_size_b=parameters(case.model) / 1e9,
        gpu_count=max(1, round(case.count * (memory or 0) / 1e9 / A100_GB)),
        dataset_size_k=case.examples // 1000,
        objective=OBJECTIVES[case.goal],
        need_variants=case.variants,
        budget_usd=case.usd_budget or float("inf"),
    )
    method = {"full_fine_tuning": "full"}.get(answer["recommendation"], answer["recommendation"])
    if case.force is not None and method not in FAMILIES[case.force]:
        method = case.force
    if method == "full":
        return Call(method="full", said="full")
    r = lesson.rank(case.examples)
    return Call(method=method, r=r, targets="all-linear", said=f"{method}, r{r}, all-linear")


def parameters(model: str) -> int:
    """Weights of a model of the catalogue."""
    return int(next(row["total_params"] for row in rows() if row["name"] == model))


CALLERS: dict[str, Callable[[Case], Call]] = {"ours": ours, "lora_r16": lora_r16, "lesson": of_lesson}
