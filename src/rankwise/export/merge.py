"""The adapter folded into its base, tensor by tensor: plan, validate, apply. The result is laid out in files as the
base is, in its precision, and takes no more memory than a few rows of one weight.
"""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankwise.export.adapterparts import Parts, read_parts
from rankwise.export.blend import Blend, blended
from rankwise.export.execute import Progress, silent, write
from rankwise.export.layerwise import parts_of_layers
from rankwise.export.mergebase import BaseFiles
from rankwise.export.mergeplan import MergePlan, Wanted, plan
from rankwise.export.rounding import rounded_as
from rankwise.files import hash_file, publish_folder, require_space, write_record
from rankwise.methods import TUNERS
from rankwise.model.adapterproducts import WEIGHTS, AdapterFolder
from rankwise.records import Merge, MergedAdapter, NewTokens, Plan
from rankwise.records.merging import Rounding
from rankwise.text.files import copy_licence, copy_text_files

MERGE = "merge.json"  # beside the merged weights
SHARDED = frozenset({"LORA", "IA3", "LN_TUNING"})  # merged by operations of their own; others by PEFT's layers


def merge(
    decided: Plan, adapter: Path, out: Path, *, rounding: Rounding = "stochastic", progress: Progress = silent
) -> Merge:
    """Write the merged model of `adapter` to `out`, a folder that plain transformers loads.

    QLoRA and 8-bit LoRA are merged onto the dequantised base, because that is the base they were trained on: onto the
    16-bit weights the outputs would shift by the quantisation error.

    Raises:
        ModelError: the adapter does not fit the base. SpaceError: the disk of `out` has no room for the model.
    """
    facts = decided.facts.model
    wanted = wanted_by(decided, rounding)
    return write_merge(facts.path, [adapter], out, wanted, base_hash=facts.weights_hash, progress=progress)


def merge_weighted(
    decided: Plan,
    adapters: Sequence[Path],
    out: Path,
    blend: Blend,
    *,
    rounding: Rounding = "stochastic",
    progress: Progress = silent,
) -> Merge:
    """Write the model of several adapters, trained over the base of `decided`, to `out`.

    Raises:
        UsageError, ModelError: as `merge`, and where adapters cannot be blended.
    """
    facts = decided.facts.model
    return write_merge(
        facts.path,
        adapters,
        out,
        wanted_by(decided, rounding),
        blend=blend,
        base_hash=facts.weights_hash,
        progress=progress,
    )


def wanted_by(decided: Plan, rounding: Rounding = "stochastic") -> Wanted:
    """How the weights were held in training, and the tokens that a plan adds."""
    config, stored = decided.verdict.config, TUNERS[decided.verdict.method].base
    assert config is not None
    return Wanted(
        quantised=stored if stored in ("nf4", "int8") else None,
        trained=config.dtype,
        rounding=rounding,
        new_tokens=decided.facts.new_tokens,
    )


def fold(
    base_folder: Path,
    adapter: Path,
    out: Path,
    *,
    four_bit: bool = False,
    eight_bit: bool = False,
    dtype: str,
    rounding: Rounding = "stochastic",
    new_tokens: NewTokens | None = None,
) -> Path:
    """Fold `adapter` into the model of `base_folder`, saved in `dtype` (bf16, fp16 or fp32), with `new_tokens`. A
    quantised base was quantised from bf16, or from fp32 where it is saved so.
    """
    wanted = Wanted(
        quantised="nf4" if four_bit else "int8" if eight_bit else None,
        trained="fp32" if dtype == "fp32" else "bf16",
        stored=dtype,
        rounding=rounding,
        new_tokens=new_tokens,
    )
    write_merge(base_folder, [adapter], out, wanted)
    return out


def write_merge(
    base_folder: Path,
    adapters: Sequence[Path],
    out: Path,
    wanted: Wanted,
    *,
    blend: Blend | None = None,
    base_hash: str | None = None,
    progress: Progress = silent,
) -> Merge:
    """Plan a merge, publish its folder, and say what it did."""
    began = time.monotonic()
    base = BaseFiles.open(base_folder)
    opened = [AdapterFolder.open(folder) for folder in adapters]
    parts = [parts_of(adapter, base) for adapter in opened]
    made = plan(base, parts[0] if blend is None else blended(parts, blend), wanted)
    require_space(out.parent, made.bytes, "the merged model")
    with publish_folder(out) as folder:
        changed = write(made, folder, progress, rounded_as(wanted.rounding))
        carry_files(made, folder, wanted, opened[0].folder)
        done = Merge(
            how="sum" if blend is None else blend.how,
            density=blend.density if blend else None,
            seed=blend.seed if blend else None,
            base=str(base_folder),
            base_hash=base_hash,
            stored_as=wanted.quantised or "as-loaded",
            rounding=wanted.rounding,
            adapters=tuple(
                MergedAdapter(path=str(a.folder), sha256=hash_file(a.folder / WEIGHTS), weight=weight)
                for a, weight in zip(opened, blend.weights if blend else (1.0,), strict=True)
            ),
            copied=sum(t.copied for t in made.tensors),
            changed=changed,
            largest_tensor_bytes=base.largest(),
            bytes=made.bytes,
            seconds=time.monotonic() - began,
        )
        write_record(folder / MERGE, done)
    return done


def parts_of(adapter: AdapterFolder, base: BaseFiles) -> Parts:
    """What an adapter does to which weight. Raises ModelError where that is not known, or does not fit."""
    return read_parts(adapter, base) if adapter.kind in SHARDED else parts_of_layers(adapter, base)


def carry_files(made: MergePlan, folder: Path, wanted: Wanted, adapter: Path) -> None:
    """What transformers and people read beside the weights: configuration, tokenizer, template, licence."""
    source = made.base.folder
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    embeddings = {tensor.name for tensor in made.base.embeddings()}
    _fit_config(config, wanted, {p.out.shape[0] for p in made.tensors if p.out.name in embeddings})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if (source / "generation_config.json").is_file():
        shutil.copy2(source / "generation_config.json", folder / "generation_config.json")
    copy_text_files(source, folder)
    copy_text_files(adapter, folder)  # its template may be a given one, and its tokenizer know new tokens
    copy_licence(source, folder)


def _fit_config(config: dict[str, Any], wanted: Wanted, rows: set[int]) -> None:
    """Number of rows and precision as they are now; everything else as it was."""
    for part in (config, config.get("text_config")):
        if isinstance(part, dict):
            if "vocab_size" in part and wanted.new_tokens is not None and len(rows) == 1:
                part["vocab_size"] = next(iter(rows))
            for key in ("dtype", "torch_dtype"):
                if part.get(key) and wanted.stored:
                    part[key] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[wanted.stored]
