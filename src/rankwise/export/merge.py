"""The adapter folded into its base: fp32 arithmetic, then the precision of the base."""

import shutil
from pathlib import Path
from typing import Any

import torch

from rankwise.methods import TUNERS
from rankwise.model.attach import load_adapter
from rankwise.model.load import DTYPES, load_base, quiet_transformers
from rankwise.model.vocabulary import extend
from rankwise.records import NewTokens, Plan
from rankwise.store import publish_folder, require_space
from rankwise.text.files import copy_text_files


def merge(plan: Plan, adapter: Path, out: Path) -> Path:
    """Write the merged model of `adapter` to `out`, a folder that plain transformers loads; returns `out`.

    QLoRA and 8-bit LoRA are merged onto the dequantised base, because that is the base they were trained on: onto the
    16-bit weights the outputs would shift by the quantisation error.

    Raises:
        SpaceError: the disk of `out` has no room for the model.
    """
    facts = plan.facts.model
    require_space(out.parent, facts.weight_bytes, "the merged model")
    stored = TUNERS[plan.verdict.method].base
    return fold(
        facts.path,
        adapter,
        out,
        four_bit=stored == "nf4",
        eight_bit=stored == "int8",
        dtype=facts.dtype,
        new_tokens=plan.facts.new_tokens,
    )


def fold(
    base_folder: Path,
    adapter: Path,
    out: Path,
    *,
    four_bit: bool = False,
    eight_bit: bool = False,
    dtype: str,
    new_tokens: NewTokens | None = None,
) -> Path:
    """Fold `adapter` into the model of `base_folder`, saved in `dtype` (bf16, else fp32), with `new_tokens`."""
    with publish_folder(out) as folder, quiet_transformers():
        model: Any = load_base(base_folder, dtype="fp32", four_bit=four_bit, eight_bit=eight_bit)
        if four_bit or eight_bit:
            model = model.dequantize().to(torch.float32)
        merged = load_adapter(extend(model, new_tokens), adapter).merge_and_unload(safe_merge=True)
        merged.to(DTYPES.get(dtype, torch.float32))
        merged.save_pretrained(folder)
        copy_text_files(base_folder, folder)
        copy_text_files(adapter, folder)  # its template may be a given one, and its tokenizer know new tokens
        _carry_licence(base_folder, folder)
    return out


def _carry_licence(source: Path, target: Path) -> None:
    for name in ("LICENSE", "LICENSE.txt", "NOTICE"):
        if (source / name).is_file():
            shutil.copy2(source / name, target / name)
