"""Load a base model from a checked folder (see `locate`), as transformers' own class and without running its code."""

import importlib.util
import logging as stdlib_logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.utils import logging

from rankwise.errors import ModelError

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def load_base(
    folder: Path,
    *,
    dtype: Literal["bf16", "fp32"],
    four_bit: bool = False,
    eight_bit: bool = False,
    device: str = "cpu",
) -> PreTrainedModel:
    """The model in evaluation mode, on `device`.

    Args:
        folder: as `locate` returned it.
        dtype: of the weights; with `four_bit` or `eight_bit`, of what is not quantised and of the arithmetic.
        four_bit: linear layers in NF4, doubly quantised (bitsandbytes), as QLoRA trains them.
        eight_bit: linear layers in LLM.int8 (bitsandbytes): a byte a weight and a scale for each row.
        device: a torch device such as `cpu` or `cuda:0`.

    Raises:
        ModelError: bitsandbytes is missing, transformers does not know the architecture, or files are damaged.
    """
    quantised = four_bit or eight_bit
    options: dict[str, Any] = {"device_map": {"": device}} if quantised and device != "cpu" else {}
    if quantised:
        options["quantization_config"] = _nf4(DTYPES[dtype]) if four_bit else _int8()
    try:
        with quiet_transformers():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=DTYPES[dtype],
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                **options,
            )
    except Exception as error:  # a broken folder surfaces as whatever transformers, safetensors or json raised
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            raise
        raise ModelError(
            f"transformers could not load {folder}: {type(error).__name__}: {_first_line(error)}",
            expected="a causal language model of a class in this transformers, with whole safetensors files",
            fix="download or copy the model again; upgrade transformers if the architecture is newer than it",
        ) from error
    return model.eval() if quantised else model.to(device).eval()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and nothing below an error from transformers inside; what was set before comes back after."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _require_bitsandbytes(bits: int) -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"{bits}-bit weights need bitsandbytes, which is not installed",
            fix="pip install bitsandbytes, or choose another method",
        )


def _int8() -> BitsAndBytesConfig:
    _require_bitsandbytes(8)
    # One warning for every product of a bf16 model: the cast to fp16 that it tells of is how LLM.int8 works.
    stdlib_logging.getLogger("bitsandbytes.autograd._functions").setLevel(stdlib_logging.ERROR)
    return BitsAndBytesConfig(load_in_8bit=True)


def _nf4(compute: torch.dtype) -> BitsAndBytesConfig:
    _require_bitsandbytes(4)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
