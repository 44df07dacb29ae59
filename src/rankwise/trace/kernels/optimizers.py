"""The optimizer of a name as Hugging Face's `optim` has it, able to step on `meta`.

torch's and bitsandbytes' own classes where they run there. Stand-ins: fused AdamW, whose kernel needs a real device
(states, and no temporaries); paged states, which live in unified memory and not in the allocator of the GPU.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import bitsandbytes as bnb
import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers.optimization import Adafactor

from rankwise.errors import UsageError
from rankwise.trace.meter import launched_on, on_host

PAGED_FROM = 100_000  # bitsandbytes pages states of parameters from this size on


class FusedAdamW(torch.optim.AdamW):
    """torch.optim.AdamW(fused=True): two states and a step count a parameter on the device; one kernel, no copies."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p not in self.state:
                    step = torch.zeros((), device=p.device)
                    self.state[p] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
                if p.grad is not None:
                    state = self.state[p]
                    launched_on(p, p, p.grad, *[state["exp_avg"], state["exp_avg_sq"]] * 2)  # read and written


def _bitsandbytes(kind: str, *, paged: bool = False) -> Callable[[list[Tensor]], Optimizer]:
    def make(params: list[Tensor]) -> Optimizer:
        optimizer: Any = getattr(bnb.optim, kind)(params, lr=1e-4)
        optimizer.is_paged = False  # unified memory needs CUDA
        plain = optimizer.get_state_buffer

        def buffer(p: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
            with on_host() if paged and p.numel() >= PAGED_FROM else nullcontext():
                state: Tensor = plain(p, dtype=dtype)
            return state

        optimizer.get_state_buffer = buffer
        made: Optimizer = optimizer
        return made

    return make


OPTIMIZERS: dict[str, Callable[[list[Tensor]], Optimizer]] = {
    "adamw_torch": lambda p: torch.optim.AdamW(p, lr=1e-4, foreach=True),
    "adamw_torch_fused": FusedAdamW,
    "adamw_8bit": _bitsandbytes("AdamW8bit"),
    "adamw_bnb_8bit": _bitsandbytes("AdamW8bit"),
    "paged_adamw": _bitsandbytes("AdamW", paged=True),
    "paged_adamw_32bit": _bitsandbytes("AdamW", paged=True),
    "paged_adamw_8bit": _bitsandbytes("AdamW8bit", paged=True),
    "lion_8bit": _bitsandbytes("Lion8bit"),
    "paged_lion_8bit": _bitsandbytes("Lion8bit", paged=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-4, foreach=True),
    "adafactor": lambda p: Adafactor(p, lr=1e-4, scale_parameter=False, relative_step=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-4, foreach=True),
}


# On the CPU torch's optimizers go parameter by parameter: foreach is their default on GPUs alone.
ON_CPU: dict[str, Callable[[list[Tensor]], Optimizer]] = OPTIMIZERS | {
    "adamw_torch": lambda p: torch.optim.AdamW(p, lr=1e-4, foreach=False),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-4, foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-4, foreach=False),
}


def optimizer(name: str, params: list[Tensor], device: str = "gpu") -> Optimizer:
    """`device` as in Setup. Raises UsageError for a name that is not traced."""
    if name not in OPTIMIZERS:
        raise UsageError(f"optimizer {name} is not priced", expected=f"one of {', '.join(OPTIMIZERS)}")
    return (ON_CPU if device == "cpu" else OPTIMIZERS)[name](params)
