"""The base as an adapter of zeros, for vLLM on a CPU.

There a request for the base that is batched with requests for adapters gets the weights of the last slot: its index is
-1, and torch takes that as the last one (seen in 0.32; vLLM's pull requests 48421 and 49656 mend it and are open). A
request for an adapter of zeros has a slot of its own. Triton's kernels, on GPUs, leave -1 out.
"""

import re
from pathlib import Path

import numpy
import safetensors
from safetensors.numpy import save_file

from rankwise.files import publish_folder, write_text

NULL = "base@0"  # versions of tenants are counted from 1
_MATRIX = re.compile(r"\.lora_(?P<side>[AB])\.weight$")
_CONFIG = """{{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 1, "lora_alpha": 1, "target_modules": ["{target}"]}}
"""


def write_null(like: Path, out: Path) -> Path:
    """An adapter of rank 1 whose numbers are all zero, on one of the layers that the adapter in `like` sits on.

    Returns:
        A folder below `out`, named by that layer; written where it is not there yet.
    """
    shapes = _shapes(like / "adapter_model.safetensors")
    first = min(name for name in shapes if name.endswith(".lora_A.weight"))
    module = _MATRIX.sub("", first)
    inner, outer = shapes[first][1], shapes[f"{module}.lora_B.weight"][0]
    layer = module.removeprefix("base_model.model.")
    folder = out / f"base-as-adapter-{layer}-{inner}-{outer}"
    if not folder.is_dir():
        out.mkdir(parents=True, exist_ok=True)
        with publish_folder(folder) as fresh:
            zeros = {first: numpy.zeros((1, inner)), f"{module}.lora_B.weight": numpy.zeros((outer, 1))}
            save_file({name: value.astype(numpy.float32) for name, value in zeros.items()}, _weights(fresh))
            write_text(fresh / "adapter_config.json", _CONFIG.format(target=layer))
    return folder


def _weights(folder: Path) -> Path:
    return folder / "adapter_model.safetensors"


def _shapes(path: Path) -> dict[str, list[int]]:
    with safetensors.safe_open(path, framework="numpy") as tensors:
        return {name: list(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
