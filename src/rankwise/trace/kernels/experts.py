"""Mixture-of-experts layers on `meta`, where routing has no data to depend on: every expert gets an equal share.

transformers 5 keeps the experts of a layer as two three-dimensional parameters; here they stand as linear layers, one
set an expert, as the models of 4.x had them, so that quantisers and adapters find them. The arithmetic and what is
saved are those of the reference loop (MixtralExperts.forward).
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rankwise.errors import ModelError


class BalancedExperts(nn.Module):
    """hidden (tokens, hidden_size) -> the same; `top_k` experts a token."""

    def __init__(self, fused: Any) -> None:
        super().__init__()
        count, wide, hidden = fused.gate_up_proj.shape
        linear = partial(nn.Linear, bias=False, device="meta", dtype=fused.gate_up_proj.dtype)
        self.act_fn = fused.act_fn
        self.experts = nn.ModuleList(
            nn.ModuleDict(
                {
                    "w1": linear(hidden, wide // 2),
                    "w2": linear(wide // 2, hidden),
                    "w3": linear(hidden, wide // 2),
                }
            )
            for _ in range(count)
        )

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        final = torch.zeros_like(hidden_states)
        share = -(-top_k_index.numel() // len(self.experts))
        for expert in self.experts.children():
            assert isinstance(expert, nn.ModuleDict)
            token_idx = torch.empty(share, dtype=torch.int64, device="meta")
            current = hidden_states[token_idx]
            current = expert["w2"](self.act_fn(expert["w1"](current)) * expert["w3"](current))
            current = current * top_k_weights[token_idx, 0, None]
            final.index_add_(0, token_idx, current.to(hidden_states.dtype))
        return final


def balance(model: nn.Module) -> int:
    """Replace the fused experts of a model; returns how many layers had them.

    Raises:
        ModelError: experts of a form that is not traced (gpt-oss: biases, and gate and up interleaved).
    """
    found = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if hasattr(child, "gate_up_proj") and getattr(child.gate_up_proj, "ndim", 0) == 3:
                if not hasattr(child, "act_fn"):
                    raise ModelError(
                        f"{type(child).__name__} are not traced: their experts are of another form than Mixtral's"
                    )
                setattr(module, name, BalancedExperts(child))
                found += 1
    return found
