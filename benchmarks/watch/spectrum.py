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
    """What was measured: `what`, `matrices`, `seconds` of the whole process, `watch_seconds` of its work, `cpu_seconds`
    of both cores together (which say most where other programs run), `peak_bytes`, and `seconds_all_layers`.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _in_process("write", folder, folder)
        alone = _in_process("adapter", folder / "adapter", folder)
        first = _in_process("base", folder / "layer", folder)
        again = _in_process("base", folder / "layer", folder)
        live = _in_process("live", folder, folder)
    matrices, layer = LAYERS * len(SHAPES), len(SHAPES)
    shapes = {"model": "shapes of Llama-3-8B, random", "rank": RANK, "threads": THREADS}
    embedded = {"model": "embedded", "rank": 16, "threads": THREADS}
    return [
        _row("adapter alone, all modules", matrices, 1, alone | shapes),
        _row("with the base, its directions computed", layer, LAYERS, first | shapes),
        _row("with the base, its directions remembered", layer, LAYERS, again | shapes),
        _row("once while a run trains, the base's directions remembered", live.pop("matrices"), 1, live | embedded),
    ]


def _row(what: str, matrices: int, times: int, measured: dict[str, Any]) -> dict[str, Any]:
    """The work of what was measured, so many times; the start of the process and the imports once."""
    start = measured["seconds"] - measured["watch_seconds"]
    whole = start + times * measured["watch_seconds"]
    return {"what": what, "matrices": matrices, "measured_times": times, **measured, "seconds_all_layers": whole}


def _in_process(what: str, folder: Path, place: Path) -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS)}
    if what != "live":  # the embedded model lies in the usual cache
        environment["RANKWISE_CACHE"] = str(place / "cache")
    command = [sys.executable, "-m", "benchmarks.watch.spectrum", what, str(folder)]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said | {"seconds": time.perf_counter() - began}


def _measured(what: str, folder: Path) -> dict[str, Any]:
    from rankwise import api
    from rankwise.watch import spectrum  # noqa: F401  torch, before the clock of the work runs

    base = None if what == "adapter" else str(folder.parent / "base")
    found = api.watch(folder, adapter_only=base is None, base=base)
    assert len(found.modules) == len(SHAPES) * (LAYERS if what == "adapter" else 1)
    return {"watch_seconds": found.seconds} | _used()


def _live() -> dict[str, Any]:
    """A spectrum as the worker takes it, of LoRA on all linear layers of the embedded model."""
    import torch

    from rankwise.methods import AdapterOptions
    from rankwise.model.adapterproducts import live_products
    from rankwise.model.attach import wrap
    from rankwise.model.load import load_base
    from rankwise.model.locate import locate
    from rankwise.watch.directions import Base
    from rankwise.watch.spectrum import directions_under, product_spectrum

    folder = locate("embedded")
    options = AdapterOptions(16, 32.0, target_modules="all-linear")
    model = wrap(load_base(folder, dtype="bf16"), "lora", options, seed=0).model
    with torch.no_grad():
        for product in live_products(model):
            product.b.normal_(std=0.01)
    base = Base(folder)
    for product in live_products(model):
        directions_under(product, base)
    began = time.perf_counter()
    seen = [product_spectrum(product, directions_under(product, base)) for product in live_products(model)]
    return {"watch_seconds": time.perf_counter() - began, "matrices": len(seen)} | _used()


def _used() -> dict[str, Any]:
    """Peak resident set of this process (VmHWM, which begins anew with a program) and its processor time."""
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"peak_bytes": peak * 1024, "cpu_seconds": used.ru_utime + used.ru_stime}


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
        orders = {"write": lambda: _write(folder), "live": _live}
        sys.stdout.write(json.dumps(orders.get(order, lambda: _measured(order, folder))()) + "\n")
        return
    for row in spectrum_rows():
        sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
