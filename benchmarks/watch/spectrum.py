"""`python -m benchmarks.watch.spectrum`: seconds and peak memory of the spectra at the shapes of Llama-3-8B.

The weights are random: a decomposition takes as long whatever it decomposes. Each measurement is a process of its own,
imports included, on two threads; its peak is that of its resident set. The base's directions are computed for one layer
and taken 32 times, which is said in the row.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LAYERS, RANK, THREADS = 32, 64, 2
HIDDEN, INNER, KEYS = 4096, 14336, 1024
# (out, in) of the matrices of a decoder layer of Llama-3-8B.
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
MOST_SECONDS, MOST_BYTES = 20.0, 1e9  # musts, of the adapter alone


def spectrum_rows() -> list[dict[str, Any]]:
    """What was measured: `what`, `matrices`, `seconds`, `peak_bytes`, and how it was taken."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _in_process("write", folder, folder)
        alone = _in_process("adapter", folder / "adapter", folder)
        first = _in_process("base", folder / "layer", folder)
        again = _in_process("base", folder / "layer", folder)
    matrices = LAYERS * len(SHAPES)
    shared = {"model": "shapes of Llama-3-8B, random", "rank": RANK, "threads": THREADS}
    rows = [
        {"what": "adapter alone, all modules", "matrices": matrices, "layers_measured": LAYERS, **alone},
        {"what": "with the base, its directions computed", "matrices": len(SHAPES), "layers_measured": 1, **first},
        {"what": "with the base, its directions remembered", "matrices": len(SHAPES), "layers_measured": 1, **again},
    ]
    return [row | shared | _whole(row) for row in rows]


def _whole(row: dict[str, Any]) -> dict[str, Any]:
    """Seconds of all layers: measured, or one layer's work so often, imports counted once."""
    work = row["seconds"] - row["import_seconds"]
    return {"seconds_all_layers": row["import_seconds"] + work * LAYERS / row["layers_measured"]}


def _in_process(what: str, folder: Path, place: Path) -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "RANKWISE_CACHE": str(place / "cache")}
    command = [sys.executable, "-m", "benchmarks.watch.spectrum", what, str(folder)]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said | {"seconds": time.perf_counter() - began}


def _measured(what: str, folder: Path) -> dict[str, Any]:
    began = time.perf_counter()
    from rankwise import api
    from rankwise.watch import spectrum  # noqa: F401  torch, before the clock of the work runs

    imported = time.perf_counter() - began
    found = api.watch(
        folder, adapter_only=what == "adapter", base=None if what == "adapter" else str(folder.parent / "base")
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert len(found.modules) == len(SHAPES) * (LAYERS if what == "adapter" else 1)
    return {"peak_bytes": peak, "import_seconds": imported, "watch_seconds": found.seconds}


def _write(folder: Path) -> dict[str, Any]:
    """An adapter of all layers, one of a single layer, and the base of that layer."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "base_model_name_or_path": ""}
    for name, layers in (("adapter", LAYERS), ("layer", 1)):
        (folder / name).mkdir()
        tensors = {}
        for layer in range(layers):
            for module, (out, inside) in SHAPES.items():
                stem = f"base_model.model.model.layers.{layer}.{module}"
                tensors[f"{stem}.lora_A.weight"] = 0.02 * torch.randn(RANK, inside)
                tensors[f"{stem}.lora_B.weight"] = 0.002 * torch.randn(out, RANK)
        save_file(tensors, folder / name / "adapter_model.safetensors", {"format": "pt"})
        (folder / name / "adapter_config.json").write_text(json.dumps(config))
    (folder / "base").mkdir()
    weights = {f"model.layers.0.{module}.weight": 0.02 * torch.randn(*shape) for module, shape in SHAPES.items()}
    save_file({n: w.bfloat16() for n, w in weights.items()}, folder / "base" / "model.safetensors", {"format": "pt"})
    (folder / "base" / "config.json").write_text("{}")
    return {}


def main() -> None:
    """The table; called with an order and a folder, one measurement."""
    if len(sys.argv) == 3:
        order, folder = sys.argv[1], Path(sys.argv[2])
        print(json.dumps(_write(folder) if order == "write" else _measured(order, folder)))  # noqa: T201
        return
    for row in spectrum_rows():
        print(json.dumps(row))  # noqa: T201


if __name__ == "__main__":
    main()
