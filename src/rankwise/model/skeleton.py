"""A model without weights: its modules and their names, on the meta device."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.quantizers.quantizers_utils import should_convert_module

from rankwise.errors import ModelError
from rankwise.model.load import quiet_transformers


def skeleton(folder: Path) -> Any:
    """The transformers model of a folder's config.json, on the meta device: no weight is read.

    Raises:
        ModelError: transformers does not know the architecture.
    """
    try:
        with quiet_transformers(), torch.device("meta"):
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            model.tie_weights()
            return model
    except (ValueError, KeyError, OSError) as error:
        raise ModelError(
            f"transformers cannot build the model of {folder}: {str(error).strip().splitlines()[0]}",
            expected="a causal language model of a class in this transformers",
        ) from error


def quantised_weights(model: Any) -> set[str]:
    """Names of the weights that bitsandbytes would hold in 4 or 8 bit (transformers, replace_with_bnb_linear): of the
    linear layers, without the head.
    """
    kept_out = get_keys_to_not_convert(model) + list(getattr(model, "_keep_in_fp32_modules", None) or [])
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if (isinstance(module, Conv1D) or type(module) is nn.Linear) and should_convert_module(name, kept_out)
    }


def transposed_weights(model: Any) -> set[str]:
    """Names of the weights that are stored as (in, out): embeddings, as PEFT sees them, and GPT-2's Conv1D."""
    return {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, (Conv1D, nn.Embedding))}


def tied_names(model: Any) -> dict[str, str]:
    """Name of a weight -> the one that it shares, where the files need hold only the second."""
    return dict(getattr(model, "all_tied_weights_keys", None) or {})
