"""Kernels, optimizers and collectives of a device, tried one by one: each says what it found, none stops the rest."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rankwise.records.selfcheck import Condition
from rankwise.trace.run import cublas_workspace

BACKENDS = (
    SDPBackend.MATH,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
)
Outcome = tuple[str, bool | None, str]


def device_conditions(device: str, traced_as: str) -> tuple[Condition, ...]:
    """Try everything that a step may need on a torch device; `traced_as` is its name in a Setup."""
    where = torch.device(device)
    tried: list[tuple[str, Callable[[], Outcome]]] = [
        *((f"sdpa {b.name.lower()}", lambda b=b: _attention(b, where)) for b in BACKENDS),
        ("flash-attn", lambda: _flash_attn(where)),
        ("bitsandbytes 4-bit", lambda: _four_bit(where)),
        ("8-bit AdamW", lambda: _optimizer("AdamW8bit", where)),
        ("paged 8-bit AdamW", lambda: _paged(where)),
        ("fused AdamW", lambda: _fused(where)),
        ("all-reduce", lambda: _all_reduce(where)),
        ("cuBLAS workspace", lambda: _workspace(where, traced_as)),
    ]
    return tuple(_tried(name, attempt) for name, attempt in tried)


def _tried(name: str, attempt: Callable[[], Outcome]) -> Condition:
    try:
        value, ok, note = attempt()
    except Exception as error:  # whatever a library raises where its kernel is missing
        said = (str(error).strip().splitlines() or [""])[0][:200]
        return Condition(name=name, value=f"failed: {type(error).__name__}: {said}", ok=False)
    return Condition(name=name, value=value, ok=ok, note=note)


def _attention(backend: SDPBackend, device: torch.device) -> Outcome:
    """Only the plain form must run everywhere; the others depend on the device."""
    q, k, v = (torch.randn(1, 4, 64, 64, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    with sdpa_kernel(backend):
        try:
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            torch.autograd.backward(out.sum())
        except RuntimeError as error:
            if backend == SDPBackend.MATH:
                raise
            return f"does not run here: {str(error).strip().splitlines()[0][:120]}", None, ""
    return "forward and backward run", _finite(q.grad), ""


def _finite(tensor: Tensor | None) -> bool:
    return tensor is not None and bool(tensor.isfinite().all())


def _flash_attn(device: torch.device) -> Outcome:
    try:
        from flash_attn import flash_attn_func  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return "not installed", None, "--attn flash needs it; sdpa does not"
    if device.type != "cuda":
        return "installed; needs CUDA", None, ""
    q, k, v = (torch.randn(1, 64, 4, 64, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    flash_attn_func(q, k, v, causal=True).sum().backward()
    return "forward and backward run", _finite(q.grad), ""


def _four_bit(device: torch.device) -> Outcome:
    """The product with a packed weight must be that with the same weight unpacked."""
    import bitsandbytes as bnb

    layer = bnb.nn.Linear4bit(256, 128, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4").to(device)
    layer.support_avx512bf16_for_cpu = False
    layer.train()
    x = torch.randn(32, 256, device=device, dtype=torch.bfloat16, requires_grad=True)
    out = layer(x)
    out.float().pow(2).sum().backward()
    unpacked = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(torch.float32)
    reference = x.detach().float() @ unpacked.reshape(128, 256).t()
    worst = float((out.detach().float() - reference).abs().max() / reference.abs().max())
    return f"forward and backward run, {worst:.1e} from the unpacked product", worst < 0.02 and _finite(x.grad), ""


def _optimizer(kind: str, device: torch.device) -> Outcome:
    import bitsandbytes as bnb

    weight = torch.nn.Parameter(torch.randn(512, 512, device=device))
    before = weight.detach().clone()
    optimizer = getattr(bnb.optim, kind)([weight], lr=1e-2)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    moved = float((weight.detach() - before).abs().mean())
    return f"steps; weights moved by {moved:.1e}", 0 < moved < 0.1, ""


def _paged(device: torch.device) -> Outcome:
    if device.type != "cuda":
        return "needs CUDA's unified memory", None, ""
    return _optimizer("PagedAdamW8bit", device)


def _fused(device: torch.device) -> Outcome:
    """One kernel must do what the plain loop does."""
    weights = [torch.nn.Parameter(torch.ones(256, 256, device=device)) for _ in range(2)]
    for weight, fused in zip(weights, (True, False), strict=True):
        weight.grad = torch.full_like(weight, 0.5)
        torch.optim.AdamW([weight], lr=1e-2, fused=fused, foreach=False if not fused else None).step()
    return "steps as the plain one", bool(torch.allclose(weights[0], weights[1], atol=1e-6)), ""


def _all_reduce(device: torch.device) -> Outcome:
    """NCCL between the GPUs of this machine; on a CPU gloo between two processes."""
    cuda = device.type == "cuda"
    world = torch.cuda.device_count() if cuda else 2
    if world < 2:
        return "one GPU: nothing to connect", None, "NCCL is not tried"
    backend = "nccl" if cuda else "gloo"
    source = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(p for p in (source, os.environ.get("PYTHONPATH", "")) if p)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    done = subprocess.run(
        [*launcher, "-m", "rankwise.model.allreduce", backend],
        env={"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    if done.returncode:
        return f"{backend} failed: {(done.stderr.strip().splitlines() or ['?'])[-1][:160]}", False, ""
    said = json.loads(done.stdout.strip().splitlines()[-1])
    rate = said["bytes_per_second"] / 1e9
    return f"{backend}, {said['world_size']} processes, {rate:.2f} GB/s", said["world_size"] == world, ""


def _workspace(device: torch.device, traced_as: str) -> Outcome:
    if device.type != "cuda":
        return "a CPU has none", None, ""
    a = torch.randn(512, 512, device=device)
    torch._C._cuda_clearCublasWorkspaces()
    before = torch.cuda.memory_allocated(device)
    product = a @ a
    found = torch.cuda.memory_allocated(device) - before - product.untyped_storage().nbytes()
    expected = cublas_workspace(traced_as)
    return f"{found:,} bytes a thread; {expected:,} are predicted", found == expected, ""
