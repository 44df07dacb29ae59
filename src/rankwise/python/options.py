"""Names and types of keyword arguments, for editors and type checkers: the options of `plan` and of `estimate`.

Written from `options.JOB_OPTIONS` and `estimate.options.OPTIONS`; a test holds them together. At run time a key of the
job whose dots are double underscores will do, too (`hardware__count=2`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict


class Costs(TypedDict, total=False):
    """Of money, storage and serving: the options of both."""

    serving_format: str | None
    context: int | None
    concurrency: int | None
    slots: int | None
    zipf: float | None
    prices: str | Path | None
    pricing: str | None
    runs: int | None
    sweep: int | None
    failure_rate: float | None
    energy: bool | None
    write_bandwidth: float | None


class JobOptions(Costs, total=False):
    """Of every verb that takes a job."""

    name: str | None
    goal: str | None
    model: str | None
    chat_template: str | Path | None
    train: str | Path | None
    validation: float | str | Path | None
    general: str | Path | None
    general_self_generated: int | None
    general_share: float | None
    facts: str | Path | None
    examples: int | None
    tokens_per_example: int | None
    domain: str | None
    base_loss: float | None
    new_tokens: int | str | Path | Sequence[str] | None
    new_token_rows: str | None
    gpu: str | None
    gpus: int | None
    nodes: int | None
    budget_usd: float | None
    budget_hours: float | None
    method: str | None
    rank: int | None
    alpha: float | None
    dropout: float | None
    targets: str | Sequence[str] | None
    adapter: str | Path | None
    loraplus_lr_ratio: float | None
    init_lora_weights: str | None
    prompt_length: int | None
    bottleneck: int | None
    variants: int | None
    forgetting_nats: float | None
    forgetting_action: str | None
    forgetting_general: str | Path | None
    forgetting_questions: str | Path | None
    forgetting_tasks: str | Sequence[str] | None
    forgetting_tasks_path: str | Path | None
    forgetting_limit: int | None
    watch_steps: int | None
    replay_allowed: bool | None
    retrieval: str | None
    json_schema: str | Path | None
    regex: str | None
    metrics: str | Sequence[str] | None
    engine: str | None
    num_train_epochs: float | None
    max_steps: int | None
    learning_rate: float | None
    lr_scheduler_type: str | None
    warmup_steps: int | None
    weight_decay: float | None
    max_grad_norm: float | None
    optim: str | None
    optimizer_in_backward: bool | None
    dtype: str | None
    bf16_stochastic_round: bool | None
    per_device_train_batch_size: int | None
    gradient_accumulation_steps: int | None
    gradient_checkpointing: bool | None
    packing: bool | None
    bf16: bool | None
    max_length: int | None
    on_long: str | None
    eval_steps: int | None
    save_steps: int | None
    save_total_limit: int | None
    save_top_k: int | None
    save_url: str | None
    logging_steps: int | None
    seed: int | None
    parallel: str | None
    deepspeed: str | Path | None
    report_to: str | Sequence[str] | None


class EstimateOptions(Costs, total=False):
    """Of `estimate`."""

    model: str | Path | None
    method: str | None
    rank: int | None
    alpha: float | None
    dropout: float | None
    targets: str | Sequence[str] | None
    dtype: str | None
    amp: bool | None
    autocast: str | None
    adapter_dtype: str | None
    optimizer: str | None
    optimizer_in_backward: bool | None
    bf16_stochastic_round: bool | None
    batch: int | None
    seq_len: int | None
    grad_accum: int | None
    gradient_checkpointing: bool | None
    attn: str | None
    loss: str | None
    stack: str | None
    kbit_upcast: bool | None
    double_quant: bool | None
    prompt_length: int | None
    bottleneck: int | None
    parallel: str | None
    offload: str | None
    gpus: int | None
    nodes: int | None
    gpu: str | None
    examples: int | None
    epochs: float | None
    tokens_per_example: int | None
    variants: int | None
    keep_best: int | None
    keep_last: int | None
    save_steps: int | None
    eval_steps: int | None
    eval_examples: int | None
