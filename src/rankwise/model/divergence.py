"""How far a tuned model's beliefs have moved from those of its base on the same prompts: KL(base || tuned).

The base is asked once. Of each position its TOP likeliest tokens are kept, and what is left as one more outcome, so
that it need not be there again: full fine-tuning has changed it. Merging outcomes can only lower a divergence, so the
number is a lower bound, and a tight one: the tokens kept carry nearly all of the probability.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankwise.model.likelihood import Autocast, arithmetic, device_of, evaluating

TOP = 256  # tokens of a position that are kept
POSITIONS = 64  # of a prompt, from its end
LEAST = 1e-9  # of the probability, for what is left: fp32 does not know it better


@dataclass(frozen=True)
class Beliefs:
    """What the base expects after each position of some prompts.

    Attributes:
        tokens: (positions, TOP) ids, the likeliest first, int64.
        logs: (positions, TOP) their log-probabilities, fp32.
    """

    tokens: Tensor
    logs: Tensor


def beliefs(model: nn.Module, prompts: Sequence[Sequence[int]], autocast: Autocast = None) -> Beliefs:
    """Of the last POSITIONS positions of each prompt."""
    tokens, logs = [], []
    with evaluating(model):
        for prompt in prompts:
            every = _log_probabilities(model, prompt, autocast)
            top = every.topk(min(TOP, every.shape[-1]), dim=-1)
            tokens.append(top.indices.cpu())
            logs.append(top.values.cpu())
    return Beliefs(torch.cat(tokens), torch.cat(logs))


def divergence(model: nn.Module, prompts: Sequence[Sequence[int]], base: Beliefs, autocast: Autocast = None) -> float:
    """KL(base || model) in nats, mean over the positions of `prompts`, for which `base` was asked."""
    total, at = 0.0, 0
    with evaluating(model):
        for prompt in prompts:
            own = _log_probabilities(model, prompt, autocast)
            tokens, logs = (part[at : at + len(own)].to(own.device) for part in (base.tokens, base.logs))
            total += _kl(logs, own.gather(-1, tokens)).sum().item()
            at += len(own)
    return total / at


def _kl(base: Tensor, tuned: Tensor) -> Tensor:
    """(positions,): over the outcomes that are kept, and the rest as one."""
    rest = [(1 - logs.exp().sum(-1)).clamp_min(LEAST) for logs in (base, tuned)]
    return (base.exp() * (base - tuned)).sum(-1) + rest[0] * (rest[0].log() - rest[1].log())


def _log_probabilities(model: nn.Module, prompt: Sequence[int], autocast: Autocast) -> Tensor:
    """(positions, vocabulary), fp32."""
    device, count = device_of(model), min(len(prompt), POSITIONS)
    ids = torch.tensor([list(prompt)], device=device)
    with arithmetic(device, autocast):  # counted from the end: a prompt method has positions of its own before the row
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=torch.arange(-count, 0, device=device)).logits[0]
    logs: Tensor = logits.float().log_softmax(-1)
    return logs
