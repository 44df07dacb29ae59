"""Adapter against merged model.

Logits are compared at every labelled position of a few held-out rows; greedy texts are compared until the two best
tokens lie closer together than the two models do, where either answer is right. Both models compute in fp32 for it,
whatever their weights are stored in: in bf16 the adapter's own sum is rounded at each layer, which put it 0.011 nats
from itself, hundreds of times what a right merge does (docs/log.md). How far apart they lie as they are run is told
beside it.
"""

from typing import Any

import torch

from rankwise.export.proof.behaviour import mean_kl, row_logits
from rankwise.export.proof.subject import Subject
from rankwise.model.generate import answer_ids
from rankwise.model.likelihood import final_logits
from rankwise.model.precision import HALF, in_fp32
from rankwise.records import Check

# Of what training changed, at most so much may be lost by merging, and never more nats than the second number. On
# SmolLM2-135M weights rounded by chance lost 0.01 to 0.1 %, weights rounded to the nearest 11 % after 16 steps. Below
# the third, in nats, lies what rounding does to any model (0.0005 to a random one, 0.00006 to SmolLM2-135M): an adapter
# that did so little cannot be told from it.
MAX_LOST = 0.05
MAX_MEAN_KL = 0.01
ROUNDING_KL = 2e-3
# Share of positions where the greedy token may change although it leads clearly.
MAX_FLIPS = 0.01


def merged_agrees(subject: Subject) -> list[Check]:
    """Adapter against merged. How far the two lie apart is measured once, over all positions; single positions and
    texts are then held against that, not against their own difference, which no flip could exceed.
    """
    as_run = mean_kl(*_both(subject))
    with in_fp32(subject.tuned), in_fp32(subject.merged):
        one, other = _both(subject)
        with subject.as_base() as base:
            untouched = torch.cat([row_logits(base, row) for row in subject.rows])
        difference = (one - other).abs().amax(dim=1)
        return [
            _same_logits(subject, one, other, mean_kl(one, untouched), as_run),
            _same_choices(one, other, difference),
            _same_text(subject, float(difference.max())),
        ]


def _both(subject: Subject) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (labelled positions of all rows, vocabulary) of adapter and merged model."""
    one, other = ([row_logits(model, row) for row in subject.rows] for model in (subject.tuned, subject.merged))
    return torch.cat(one), torch.cat(other)


def _same_logits(subject: Subject, one: torch.Tensor, other: torch.Tensor, trained: float, as_run: float) -> Check:
    """Args: trained, KL of the untouched base from the tuned model; as_run, KL in the precision of the weights."""
    kl, limit = mean_kl(one, other), min(MAX_MEAN_KL, max(ROUNDING_KL, MAX_LOST * trained))
    stored = "" if all(p.dtype not in HALF for p in subject.merged.parameters()) else f"; {as_run:.2g} as they are run"
    return Check(
        name="merged_logits",
        passed=kl <= limit,
        number=f"KL {kl:.2g} nats per token on average, {float((one - other).abs().max()):.2g} largest logit difference"
        + stored,
        limit=f"KL {limit:.2g}; training moved it by {trained:.2g}",
        text=f"Adapter against reloaded merged model, both computing in fp32, {len(one)} positions of "
        f"{len(subject.rows)} held-out rows.",
    )


def _same_choices(one: torch.Tensor, other: torch.Tensor, difference: torch.Tensor) -> Check:
    best = one.topk(2, dim=1).values
    decided = best[:, 0] - best[:, 1] > 2 * difference.mean()
    flips = int(((one.argmax(1) != other.argmax(1)) & decided).sum())
    return Check(
        name="merged_choices",
        passed=flips <= MAX_FLIPS * len(one),
        number=f"{flips} of {len(one)} most likely tokens changed although their lead is over twice the mean "
        "difference of the two models",
        limit=f"{MAX_FLIPS:.0%}",
        text="The token that greedy decoding takes, adapter against merged.",
    )


def _same_text(subject: Subject, apart: float) -> Check:
    """`apart`: the largest logit difference of the two models, as measured on the held-out rows."""
    said = [
        answer_ids(model, subject.chat, subject.conversations, 32, batch_size=1)
        for model in (subject.tuned, subject.merged)
    ]
    outcomes = [
        _texts_agree(subject, conversation, one, other, apart)
        for conversation, one, other in zip(subject.conversations, *said, strict=True)
    ]
    near_ties = outcomes.count("near tie")
    return Check(
        name="merged_text",
        passed="different" not in outcomes,
        number=f"{outcomes.count('same')} of {len(outcomes)} equal"
        + (f", {near_ties} up to a near tie" * bool(near_ties)),
        limit=f"equal until the two best tokens lie within {2 * apart:.2g}, twice the largest difference of a logit",
        text="Greedy answers of adapter and merged model to held-out prompts.",
    )


def _texts_agree(subject: Subject, conversation: Any, first: list[int], second: list[int], apart: float) -> str:
    """same | near tie | different."""
    if first == second:
        return "same"
    common = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    prefix = [[*subject.chat.encode_prompt(conversation), *first[:common]]]
    best = final_logits(subject.tuned, prefix)[0].topk(2).values
    return "near tie" if float(best[0] - best[1]) <= 2 * apart else "different"  # one falls as the other rises
