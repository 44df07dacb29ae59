"""One function for each other estimator of training time: a published run in, tokens per second of all GPUs out.

A function imports its peer when it is called, uses the peer's own defaults (its share of the peak, its factors), raises
`RefusedError` for what the peer cannot say, and lets the peer's own exceptions through. Hours and seconds are turned
into tokens per second with the peer's own meaning of its inputs; each docstring says which.
"""

# The peers live in a virtualenv of their own, which the type checker does not see.
# mypy: disable-error-code="import-not-found"

import contextlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory.case import Case, RefusedError

HOUR = 3600.0
EXAMPLES = 10_000_000  # ftuneai rounds to 0.01 h, so the run must be long
FILE_EXAMPLES = 100


@dataclass(frozen=True)
class Run(Case):
    """A published run as the peers see it; `params`: parameters of the model, tied ones once."""

    params: int

    @property
    def nodes(self) -> int:
        return int(self.options.get("nodes", 1))

    @property
    def devices(self) -> int:
        """GPUs of all nodes."""
        return self.gpus * self.nodes

    @property
    def accumulation(self) -> int:
        return int(self.options.get("grad_accum", 1))

    @property
    def length(self) -> int:
        """Mean tokens of a row: the stated mean, else the fixed length."""
        return int(self.options.get("tokens_per_example", self.seq_len))

    def gpu_of(self, names: Mapping[str, str]) -> str:
        """The peer's name of the GPU: the entry of `names` whose pattern fits first."""
        for pattern, name in names.items():
            if re.search(pattern, self.gpu, re.IGNORECASE):
                return name
        raise RefusedError(f"no {self.gpu}")

    def no_offload(self) -> None:
        """Refuse offload."""
        if self.options.get("offload", "none") != "none":
            raise RefusedError("no offload")


FTUNEAI_GPUS = {
    r"h100": "H100-80GB",
    r"a100.*40": "A100-40GB",
    r"a100": "A100-80GB",
    r"rtx.*4090": "RTX-4090-24GB",
    r"rtx.*3090": "RTX-3090-24GB",
    r"\bt4\b": "T4-16GB",
}


def ftuneai(run: Run) -> float:
    """`ftune estimate`: total_tokens / total_hours, both of all GPUs; its README refuses several nodes."""
    import ftuneai.hub
    import ftuneai.loader
    from ftuneai.estimator import Estimator

    run.of_methods("full", "lora", "qlora", "gptq-lora")
    run.no_offload()
    if run.nodes > 1:
        raise RefusedError("no second node")
    ftuneai.hub._fetch_json = lambda url, timeout=10: dict(run.config)
    ftuneai.loader._models_cache = None  # it would keep the first config that it met under a name
    sharding = {"zero1": "zero_1", "zero2": "zero_2", "zero3": "zero_3", "fsdp": "fsdp"}
    # LoRA's targets and the optimizer stay at its defaults: its time does not depend on them.
    estimator = Estimator(
        model=run.model,
        method="lora" if run.method == "gptq-lora" else run.method,
        quantization="4bit" if run.method in ("qlora", "gptq-lora") else "none",
        batch_size=run.batch,
        seq_length=run.seq_len,
        gradient_checkpointing=run.checkpointing,
        lora_rank=run.rank,
        flash_attention=run.attn == "flash",
        sharding=sharding.get(run.parallel, "none"),
        num_gpus=run.devices,
    )
    found = estimator.estimate_time(
        gpu=run.gpu_of(FTUNEAI_GPUS),
        dataset_size=EXAMPLES,
        epochs=1,
        num_gpus=run.devices,
        avg_seq_length=run.length,
        gradient_accumulation_steps=run.accumulation,
    )
    return float(found.total_tokens) / (float(found.total_hours) * HOUR)


LLM_ANALYSIS_GPUS = {r"h100": "h100-sxm-80gb", r"a100.*40": "a100-sxm-40gb", r"a100": "a100-sxm-80gb"}


def llm_analysis(run: Run, efficiency: float | None = None) -> float:
    """`python -m llm_analysis.analysis train`: tokens of an iteration over latency_per_iter, every GPU at once."""
    from llm_analysis.analysis import train

    run.of_methods("full")
    run.no_offload()
    gpu = run.gpu_of(LLM_ANALYSIS_GPUS)
    summary = train(
        model_name=run.folder,
        gpu_name=gpu,
        log_level="ERROR",
        batch_size_per_gpu=run.batch,
        # With the global batch said as well, it does not refuse what its own memory formula finds too large.
        global_batch_size=run.batch * run.accumulation * run.devices,
        seq_len=run.length,
        activation_recomputation=2 if run.checkpointing else 0,
        ds_zero={"zero1": 1, "zero2": 2, "zero3": 3, "fsdp": 3}.get(run.parallel, 0),
        dp_size=run.devices,
        flash_attn=run.attn != "eager",
        mlp_gated_linear_units="silu" in str(run.config.get("hidden_act")),
        flops_efficiency=efficiency,
    )
    return float(summary["global_batch_size"]) * run.length / float(summary["latency_per_iter"])


def llm_analysis_half(run: Run) -> float:
    """The same with flops_efficiency 0.5, which its source names for training; its default is the whole peak."""
    return llm_analysis(run, 0.5)


GPU_ESTIMATOR_GPUS = {
    r"h100": "H100",
    r"a100.*40": "",  # its A100 has 80 GB, and the number of GPUs follows from the memory
    r"a100": "A100",
    r"rtx.*4090": "RTX4090",
    r"rtx.*3090": "RTX3090",
    r"\bt4\b": "T4",
}


def gpu_estimator(run: Run) -> float:
    """`gpu-estimate estimate`: dataset tokens over its hours, on the number of GPUs that it finds itself.

    A step is `batch_size` examples, and steps per second are multiplied by the GPUs: the batch is that of one GPU. The
    number of GPUs is no input: where it finds another than the row's, it speaks of another run.
    """
    from gpu_estimator.estimator import GPUEstimator

    run.of_methods("full")
    run.no_offload()
    gpu = run.gpu_of(GPU_ESTIMATOR_GPUS)
    if not gpu:
        raise RefusedError(f"no {run.gpu}")
    examples = EXAMPLES // run.batch * run.batch
    result = GPUEstimator().estimate(
        model_params=run.params,
        batch_size=run.batch,
        sequence_length=run.length,
        precision="fp32" if run.amp else run.dtype,
        optimizer=run.of_optimizers({r"^(paged_)?adamw": "adamw", "^sgd$": "sgd"}),
        gpu_type=gpu,
        gradient_checkpointing=run.checkpointing,
        dataset_size=examples,
        epochs=1,
    )
    if result.num_gpus != run.devices:
        raise RefusedError("speaks of another number of GPUs")
    return examples * run.length / (float(result.estimated_training_hours) * HOUR)


SOUP_GPUS = {r"h100": "H100", r"a100.*40": "A100 40G", r"a100": "A100 80G", r"rtx.*4090": "RTX 4090"}
SOUP_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("none", {"r": 0}),
    "lora": ("none", {}),
    "qlora": ("4bit", {}),
    "gptq-lora": ("gptq", {}),
    "dora": ("none", {"use_dora": True}),
}


def soup_cli(run: Run) -> float:
    """`soup cost --json`: rows of the file x max_length over duration_hrs, on one GPU of its table."""
    from soup_cli.commands.cost import cost

    run.of_methods(*SOUP_METHODS)
    run.on_one_gpu()
    if run.devices > 1:
        raise RefusedError("one GPU only")
    gpu = run.gpu_of(SOUP_GPUS)
    quantization, lora = SOUP_METHODS[run.method]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as out:
        data = Path(folder) / "rows.jsonl"
        data.write_text('{"instruction": "a", "output": "b"}\n' * FILE_EXAMPLES, encoding="utf-8")
        config = Path(folder) / "soup.yaml"
        asked = {
            "base": run.model,
            "task": "sft",
            "data": {"train": str(data), "format": "alpaca", "max_length": run.length, "val_split": 0.0},
            "training": {
                "epochs": 1,
                "batch_size": run.batch,
                "gradient_accumulation_steps": run.accumulation,
                "gradient_checkpointing": run.checkpointing,
                "quantization": quantization,
                "lora": {"r": run.rank} | lora,
            },
        }
        config.write_text(json.dumps(asked), encoding="utf-8")  # JSON is YAML
        cost(config=str(config), gpu=gpu, json_output=True)
    hours = {float(entry["duration_hrs"]) for entry in json.loads(out.getvalue()) if entry["gpu"] == gpu}
    (duration,) = hours  # providers differ in price alone
    return FILE_EXAMPLES * run.length / (duration * HOUR)


@dataclass(frozen=True)
class Peer:
    """package: its name on PyPI; claims: what its time stands on, in its own words where it has them."""

    package: str
    claims: str
    adapter: Callable[[Run], float]


PEERS: dict[str, Peer] = {
    "ftuneai": Peer("ftuneai", "6 x parameters per token (LoRA 0.75 of it), 0.30 or 0.35 of the peak", ftuneai),
    "llm-analysis": Peer("llm-analysis", "FLOPs over the whole peak: a lower bound of the time", llm_analysis),
    "llm-analysis at 0.5": Peer("llm-analysis", "FLOPs over half of the peak", llm_analysis_half),
    "soup-cli": Peer("soup-cli", "a table of tokens/s on an A100 by model size", soup_cli),
    "gpu-estimator": Peer("gpu-estimator", "a table of steps/s by model size; finds the number of GPUs", gpu_estimator),
}
