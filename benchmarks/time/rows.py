"""Published throughput as rows: what was measured, and the options of `rankwise estimate` that describe the run.

    python -m benchmarks.time.rows [TABLE]      how many rows of a table are mapped, and why the others are not

The settings are read by the rules of `benchmarks.memory.settings`; no rule looks at the measured figure. What memory
asks for and time does not is taken as follows: an optimizer that is not named is AdamW, a loss that is not named the
stack's own, checkpointing that is not named off.

Throughput   `tokens_per_s`; where only `s_per_iter` is given and every row has a stated, fixed length: batch x length x
             accumulation / seconds. Figures of one GPU are multiplied by their number. Scopes that the source does not
             make clear are refused.
Length       PEFT's rows: dynamic padding to the longest of four, 4,198,051 tokens in 20,000 samples, so 210 a row.
             Their `tokens_per_s` counts the steps alone, without evaluation.
MPT          llm-foundry's models with learned positions are GPT-2's blocks: GPT2LMHeadModel with their sizes. Parallel
             over N GPUs: 8 a node, FSDP FULL_SHARD -> fsdp, SHARD_GRAD_OP -> zero2.
Refused      compiled runs (`torch.compile` fuses what a trace sees as kernels), 8-bit arithmetic, sequence and expert
             parallelism, rows without a length.
"""

import csv
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory.rows import FULL_TABLE, refuse_unfit
from benchmarks.memory.settings import NotMappedError, read_options
from rankwise.observe.described import describe_model

PEFT_MEAN_TOKENS = 210
# (hidden size, layers, heads) of llm-foundry's model files scripts/train/yamls/pretrain/mpt-*.yaml.
MPT = {
    "125m": (768, 12, 12),
    "350m": (1024, 24, 16),
    "760m": (1536, 24, 12),
    "1b": (2048, 24, 16),
    "3b": (2560, 32, 20),
    "7b": (4096, 32, 32),
    "13b": (5120, 40, 40),
    "30b": (7168, 48, 56),
    "70b": (8192, 80, 64),
}
MPT_VOCABULARY = 50368
GPUS_PER_NODE = 8


@dataclass(frozen=True)
class Row:
    """One measurement: tokens per second over all devices; exactly one of `options` and `reason` is set."""

    id: str
    source: str
    grade: str
    measured: float | None
    options: dict[str, Any] | None
    reason: str | None
    note: str


def read_rows(path: Path) -> list[Row]:
    """The rows of the table that have a throughput. Raises OSError when it cannot be read."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            read_row(cells)
            for cells in csv.DictReader(file)
            if (cells["tokens_per_s"] or cells["s_per_iter"]) and cells["status"] == "ok"
        ]


def read_row(cells: Mapping[str, str]) -> Row:
    note: list[str] = []
    options, measured, reason = None, None, None
    try:
        options = _options(cells, note)
        measured = _throughput(cells, options)
    except NotMappedError as error:
        options, reason = None, str(error)
    return Row(
        cells["id"], cells["source_repo"].split(" ")[0], cells["grade"], measured, options, reason, "; ".join(note)
    )


def _options(cells: Mapping[str, str], note: list[str]) -> dict[str, Any]:
    known = dict(cells)
    if cells["source_repo"].startswith("mosaicml"):
        known |= _of_foundry(cells)
    refuse_unfit(known)
    if re.search(r"\bon\b|compile|inductor|true", cells["compile"].lower()):
        raise NotMappedError("compiled")
    if not known["grad_ckpt"]:
        known["grad_ckpt"] = "off"
    if not known["optimizer"]:
        known["optimizer"] = "adamw"
        note.append("optimizer not stated")
    options = read_options(known, note)
    options.pop("optimizer_in_backward", None)
    if cells["source_repo"] == "InternLM/xtuner":
        _extend_positions(options, note)
    if cells["source_repo"] == "huggingface/peft":
        options["tokens_per_example"] = PEFT_MEAN_TOKENS
    if cells["source_repo"].startswith("mosaicml"):
        _fit_foundry(cells, options, note)
    return options


def _of_foundry(cells: Mapping[str, str]) -> dict[str, str]:
    sharding = cells["parallelism"]
    return {
        "optimizer": "adamw",
        "base_dtype": "bfloat16",
        "autocast": "",
        "attn_impl": "flash",
        "fused_or_chunked_ce": "fused CE loss kernel",
        "parallelism": "ZeRO-2" if "SHARD_GRAD_OP" in sharding else "FSDP",
    }


def _fit_foundry(cells: Mapping[str, str], options: dict[str, Any], note: list[str]) -> None:
    hidden, layers, heads = MPT[cells["model_id"].split(" ")[-1].lower()]
    options["config"] = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": hidden,
        "n_layer": layers,
        "n_head": heads,
        "n_positions": int(cells["seq_len"]),
        "vocab_size": MPT_VOCABULARY,
        "activation_function": "gelu",  # as MPT's FFN; GPT-2's own is five kernels
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "dtype": "bfloat16",
    }
    options["nodes"] = max(1, options["gpus"] // GPUS_PER_NODE)
    options["gpus"] = min(GPUS_PER_NODE, options["gpus"])
    note.append("MPT as GPT-2 of the same sizes")


def _extend_positions(options: dict[str, Any], note: list[str]) -> None:
    """xtuner trains models on rows longer than they were made for."""
    described = describe_model(options["model"])
    options["config"] = described.config | {"max_position_embeddings": options["seq_len"]}
    note.append("positions extended to the row length")


def _throughput(cells: Mapping[str, str], options: Mapping[str, Any]) -> float:
    gpus = options.get("gpus", 1) * options.get("nodes", 1)
    scope = cells["tokens_scope"]
    if "unclear" in scope or "printed" in scope:
        raise NotMappedError("tokens of one GPU or of all: not clear")
    if cells["tokens_per_s"]:
        figure = float(cells["tokens_per_s"])
        return figure if scope.startswith("total") else figure * gpus
    if "fixed" not in cells["seq_layout"]:
        raise NotMappedError("seconds per step without a fixed length")
    rows = options.get("batch", 1) * options.get("grad_accum", 1)
    return rows * options["seq_len"] * gpus / float(cells["s_per_iter"])


def summary(rows: list[Row]) -> str:
    """Counts of rows mapped and not, by source and grade, and the reasons."""
    total = Counter((row.source, row.grade) for row in rows)
    mapped = Counter((row.source, row.grade) for row in rows if row.options is not None)
    lines = [f"{len(rows)} rows with a throughput, {sum(mapped.values())} mapped", ""]
    lines += [
        f"   {source:44} {grade}  {mapped[source, grade]:4} of {n:4}" for (source, grade), n in sorted(total.items())
    ]
    reasons = Counter(f"{row.grade} {row.reason}" for row in rows if row.reason)
    return "\n".join([*lines, "", *(f"   {count:4} {reason}" for reason, count in reasons.most_common())])


def main() -> int:
    """Print the summary of the table given, or of the full table where it lies beside the repository."""
    sys.stdout.write(summary(read_rows(Path(sys.argv[1]) if len(sys.argv) > 1 else FULL_TABLE)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
