"""Tables of options, and the decorators that give them to a command: the keys of a job, and those of `estimate`.

What is imported inside a function is needed by the Tab key alone."""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, get_args, get_origin

import typer

from rankwise.errors import UsageError
from rankwise.estimate.options import OPTIONS, Option

# Every key of a job is also an option: flag -> (key, type, help). A test holds this table against the Job record.
JOB_OPTIONS: dict[str, tuple[str, type, str]] = {
    "--name": ("name", str, "Name of the run folder."),
    "--goal": ("goal", str, "instruction | knowledge | task | unsure."),
    "--model": ("model", str, "Hub id, local folder, or `embedded`."),
    "--chat-template": ("chat_template", str, "A jinja file in the place of the model's chat template."),
    "--train": ("data.train", str, "Training rows: file or folder (jsonl, json, csv, parquet, arrow), or hub dataset."),
    "--validation": ("data.validation", str, "Held-out rows: a share such as 0.1, or as --train."),
    "--general": ("data.general.path", str, "General rows for replay and the forgetting check."),
    "--general-self-generated": ("data.general.self_generated", int, "General rows that the base writes itself."),
    "--general-share": ("data.general.share", float, "Share of supervised tokens that are general."),
    "--facts": ("data.facts", str, "Closed-book probes."),
    "--examples": ("data.examples", int, "Number of training rows, when there is no file yet."),
    "--tokens-per-example": ("data.tokens_per_example", int, "Mean tokens per row, when there is no file yet."),
    "--domain": ("data.domain", str, "general | code | math | language (one that the base does not speak)."),
    "--base-loss": ("data.base_loss", float, "Nats per answer token that the base does not know, if measured."),
    "--new-tokens": ("data.new_tokens", str, "New tokens: a file with one a line, or their number to plan."),
    "--new-token-rows": (
        "train.new_token_rows",
        str,
        "How they train: trainable_token_indices | target_modules | modules_to_save.",
    ),
    "--gpu": ("hardware.gpu", str, "GPU name, or `cpu`; empty: this machine."),
    "--gpus": ("hardware.count", int, "Devices per node."),
    "--nodes": ("hardware.nodes", int, "Machines."),
    "--budget-usd": ("budget.usd", float, "US dollars."),
    "--budget-hours": ("budget.hours", float, "Wall-clock hours."),
    "--method": (
        "method.name",
        str,
        "Force a method: full, lora, qlora, lora-8bit, rslora, dora, pissa, ia3, prompt, prefix, p_tuning, bottleneck.",
    ),
    "--rank": ("method.r", int, "LoRA rank."),
    "--alpha": ("method.lora_alpha", float, "LoRA alpha; the scale is alpha / rank."),
    "--dropout": ("method.lora_dropout", float, "Dropout on the adapter's input."),
    "--targets": ("method.target_modules", str, "`all-linear`, or module names with commas."),
    "--adapter": ("method.adapter", str, "Go on from this adapter: a run, or a folder that PEFT wrote."),
    "--loraplus-lr-ratio": ("method.loraplus_lr_ratio", float, "LoRA+: learning rate of B over that of A."),
    "--init-lora-weights": ("method.init_lora_weights", str, "PiSSA: pissa (exact SVD) or pissa_niter_N (fast)."),
    "--prompt-length": ("method.num_virtual_tokens", int, "Learned positions of a prompt method."),
    "--bottleneck": ("method.bottleneck_size", int, "Inner width of bottleneck adapters."),
    "--variants": ("variants", int, "Tenants that each get their own model."),
    "--forgetting-nats": ("forgetting.budget_nats", float, "Allowed rise of general loss, nats per token."),
    "--forgetting-action": ("forgetting.action", str, "warn | lower_lr | stop | rollback."),
    "--forgetting-general": ("forgetting.general", str, "Texts that general ability is watched on; default: ours."),
    "--forgetting-questions": ("forgetting.questions", str, "Multiple-choice questions for the same; default: ours."),
    "--forgetting-tasks": ("forgetting.tasks", str, "Tasks of lm-evaluation-harness for the same, with commas."),
    "--forgetting-tasks-path": ("forgetting.tasks_path", str, "Folder with YAML files of more tasks."),
    "--forgetting-limit": ("forgetting.limit", int, "Items of each task that are looked at; default: 50."),
    "--watch-steps": ("forgetting.watch_steps", int, "Steps between two looks at general ability; 0: none."),
    "--replay-allowed": ("forgetting.replay_allowed", bool, "May general rows be mixed into training?"),
    "--retrieval": ("retrieval", str, "possible | no."),
    "--json-schema": ("format.json_schema", str, "JSON schema that an answer must satisfy."),
    "--regex": ("format.regex", str, "Regular expression that an answer must match."),
    "--metrics": ("eval.metrics", str, "Your own metrics for `rankwise eval`: FILE.py:FUNCTION, several with commas."),
    "--engine": ("serving.engine", str, "embedded | vllm."),
    "--serving-format": (
        "serving.serving_format",
        str,
        "Weights of the base in the server (bf16, fp8, awq, gptq, nf4).",
    ),
    "--context": ("serving.context", int, "Tokens of one served conversation."),
    "--concurrency": ("serving.concurrency", int, "Conversations open at one time, over all tenants."),
    "--slots": ("serving.slots", int, "Adapters that lie in the GPU's memory at one time."),
    "--zipf": ("serving.zipf", float, "Popularity of tenants: share of requests ~ rank^-zipf."),
    "--prices": ("costs.prices", str, "A file of your own prices (YAML, JSON, TOML); they go before ours."),
    "--pricing": ("costs.pricing", str, "on-demand | spot."),
    "--runs": ("costs.runs", int, "Training runs until the model is right; default 10 to 20."),
    "--sweep": ("costs.sweep", int, "Runs of a planned sweep, in the place of --runs."),
    "--failure-rate": ("costs.failure_rate", float, "Share of runs that die before their end, and resume."),
    "--energy": ("costs.energy", bool, "Also the electricity."),
    "--write-bandwidth": ("costs.write_bandwidth", float, "Bytes per second at which weights are read and written."),
    "--num-train-epochs": ("train.num_train_epochs", float, "Passes over the training rows."),
    "--max-steps": ("train.max_steps", int, "Optimizer steps."),
    "--learning-rate": ("train.learning_rate", float, "Peak learning rate."),
    "--lr-scheduler-type": ("train.lr_scheduler_type", str, "cosine | linear | constant | constant_with_warmup."),
    "--warmup-steps": ("train.warmup_steps", int, "Steps of linear warm-up."),
    "--weight-decay": ("train.weight_decay", float, "AdamW weight decay."),
    "--max-grad-norm": ("train.max_grad_norm", float, "Gradient norm is clipped to this."),
    "--optim": ("train.optim", str, "Hugging Face's name: adamw_torch_fused, adamw_8bit, adafactor, ...."),
    "--optimizer-in-backward": ("train.optimizer_in_backward", bool, "Update weights in the backward pass."),
    "--dtype": ("train.dtype", str, "bf16 | fp32, of the loaded weights."),
    "--bf16-stochastic-round": ("train.bf16_stochastic_round", bool, "Round updates of bf16 weights by chance."),
    "--per-device-train-batch-size": ("train.per_device_train_batch_size", int, "Rows in one forward pass."),
    "--gradient-accumulation-steps": ("train.gradient_accumulation_steps", int, "Forward passes in one step."),
    "--gradient-checkpointing": ("train.gradient_checkpointing", bool, "Recompute activations."),
    "--packing": ("train.packing", bool, "Several documents in one row, none of which sees another."),
    "--bf16": ("train.bf16", bool, "bfloat16 arithmetic."),
    "--max-length": ("train.max_length", int, "Longest row in tokens."),
    "--on-long": ("train.on_long", str, "drop | truncate | split | error."),
    "--eval-steps": ("train.eval_steps", int, "Optimizer steps between validations."),
    "--save-steps": ("train.save_steps", int, "Optimizer steps between checkpoints."),
    "--save-total-limit": ("train.save_total_limit", int, "Checkpoints to keep, and resume from: the last n."),
    "--save-top-k": ("train.save_top_k", int, "Checkpoints to keep for their held-out loss, weights alone."),
    "--save-url": ("train.save_url", str, "Where checkpoints are copied to: s3://bucket/run, file:///mnt/run."),
    "--logging-steps": ("train.logging_steps", int, "Optimizer steps between printed lines."),
    "--seed": ("train.seed", int, "Seed of data order, adapter initialisation and dropout."),
    "--parallel": ("train.parallel", str, "Force ddp, zero1, zero2, zero3 or fsdp."),
    "--deepspeed": ("train.deepspeed", str, "Your own DeepSpeed JSON."),
    "--report-to": ("train.report_to", str, "tensorboard, wandb, mlflow or trackio; several with commas."),
}

# Heading in --help, by the first part of a job's key.
PANELS = {
    "data": "Data",
    "hardware": "Devices and budget",
    "budget": "Devices and budget",
    "method": "Method",
    "forgetting": "Forgetting",
    "serving": "Serving",
    "costs": "Costs",
    "train": "Training",
}
Complete = Callable[[str], list[str]]


def _completer(key: str, choices: Callable[[], tuple[str, ...]]) -> Complete:
    """What the Tab key offers for an option: names that are known offline, or the values that exist."""

    def complete(incomplete: str) -> list[str]:
        known = {"model": model_names, "hardware.gpu": gpu_names, "gpu": gpu_names, "method": _tuners}.get(key)
        known = _planned if key == "method.name" else known
        return [value for value in (known or choices)() if value.startswith(incomplete)]

    return complete


def model_names() -> tuple[str, ...]:
    """Models that can be named without a hub: the embedded one, and the architectures that are known offline."""
    from rankwise.observe.catalogue import architectures

    return ("embedded", *(a.name for a in architectures()))


def gpu_names() -> tuple[str, ...]:
    from rankwise.observe.gpus import known_gpus

    return ("cpu", *(gpu["name"] for gpu in known_gpus()))


def _planned() -> tuple[str, ...]:
    from rankwise.decide.recipes import PLANNED_METHODS

    return PLANNED_METHODS


def _tuners() -> tuple[str, ...]:
    from rankwise.methods import TUNERS

    return tuple(TUNERS)


def _choices_of(key: str) -> tuple[str, ...]:
    """The values that the Job record lists for a key; empty where any will do."""
    from rankwise.records import Job

    kinds: tuple[Any, ...] = (Job,)
    for part in key.split("."):
        record = next(kind for kind in kinds if hasattr(kind, "model_fields"))
        annotation = record.model_fields[part].annotation
        kinds = (annotation, *get_args(annotation))
    return tuple(str(value) for kind in kinds if get_origin(kind) is Literal for value in get_args(kind))


def sign(function: Any, parameters: list[inspect.Parameter]) -> None:
    """Give a function the parameters that typer shall see."""
    function.__signature__ = inspect.Signature(parameters)
    function.__annotations__ = {p.name: p.annotation for p in parameters}


def job_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command every option of JOB_OPTIONS; the function gets those that were used as `options`, by job key."""
    names = {_name(flag): key for flag, (key, *_) in JOB_OPTIONS.items()}
    parameters = [
        _parameter(flag, kind, text, _panel(key), _completer(key, functools.partial(_choices_of, key)))
        for flag, (key, kind, text) in JOB_OPTIONS.items()
    ]

    @functools.wraps(function)
    def with_options(**arguments: Any) -> Any:
        options = {key: _typed(key, arguments.pop(name)) for name, key in names.items()}
        return function(**arguments, options={k: v for k, v in options.items() if v is not None})

    kept = [p for p in inspect.signature(function).parameters.values() if p.name != "options"]
    sign(with_options, [*kept, *parameters])
    return with_options


def by_key(said: Mapping[str, Any]) -> dict[str, Any]:
    """Options as keyword arguments -> keys of the job: `gpus=2` is hardware.count. None counts as not said.

    Args:
        said: names of options with underscores, or keys of the job whose dots are double underscores.

    Raises:
        UsageError: no option and no key is called so; the nearest one is offered.
    """
    names = {flag.removeprefix("--").replace("-", "_"): key for flag, (key, *_) in JOB_OPTIONS.items()}
    keys = {key.replace(".", "__"): key for key in names.values()}
    if unknown := [name for name in said if name not in names and name not in keys]:
        near = difflib.get_close_matches(unknown[0], [*names, *keys], 1)
        raise UsageError(
            f"there is no option {unknown[0]}",
            expected="an option of `rankwise plan`, with underscores",
            fix=f"did you mean {near[0]}?" if near else "`rankwise plan --help` lists them",
        )
    wanted = {names.get(name) or keys[name]: value for name, value in said.items() if value is not None}
    return {key: _typed(key, _plain(value)) for key, value in wanted.items()}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def estimate_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command every option of `estimate`'s table; the function gets those that were used as `options`."""
    flags = {"--" + name.replace("_", "-"): (name, option) for name, option in OPTIONS.items()}
    parameters = [
        _parameter(
            flag,
            option.kind,
            _help(option),
            option.panel,
            _completer(name, functools.partial(_values, option)),
        )
        for flag, (name, option) in flags.items()
    ]

    @functools.wraps(function)
    def with_options(**arguments: Any) -> Any:
        options = {name: arguments.pop(_name(flag)) for flag, (name, _) in flags.items()}
        return function(**arguments, options={k: v for k, v in options.items() if v is not None})

    kept = [p for p in inspect.signature(function).parameters.values() if p.name != "options"]
    sign(with_options, [*kept, *parameters])
    return with_options


def _values(option: Option) -> tuple[str, ...]:
    return option.choices


def _help(option: Option) -> str:
    """What it is, the choices that the sentence leaves out, and the default."""
    told = all(choice in option.help for choice in option.choices)
    said = option.help if told else f"{option.help} One of {', '.join(option.choices)}."
    return f"{said} Default: {option.default_words}."


def _name(flag: str) -> str:
    """The parameter's name, which must not be one of the command's own."""
    return "said_" + flag.removeprefix("--").replace("-", "_")


def _panel(key: str) -> str:
    """Heading of a job's option in --help."""
    return PANELS.get(key.partition(".")[0], "The job")


def _parameter(flag: str, kind: type, text: str, panel: str, complete: Complete) -> inspect.Parameter:
    spelled = f"{flag}/--no-{flag.removeprefix('--')}" if kind is bool else flag
    option = typer.Option(spelled, help=text, rich_help_panel=panel, show_default=False, autocompletion=complete)
    annotation = Annotated[Optional[kind], option]  # type: ignore[valid-type]  # noqa: UP045  made at run time
    return inspect.Parameter(_name(flag), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _typed(key: str, value: Any) -> Any:
    """Options whose job key takes more than one type."""
    if key == "data.validation" and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if key in ("method.target_modules", "train.report_to") and isinstance(value, str) and "," in value:
        return value.split(",")
    return value
