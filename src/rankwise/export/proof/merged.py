"""Adapter against merged model.

Logits are compared at every labelled position of a few held-out rows; greedy texts are compared until the two best
tokens lie closer together than the two models do, where either answer is right.
"""

from typing import Any

import torch

from rankwise.export.proof.behaviour import mean_kl, row_logits
from rankwise.export.proof.subject import Subject
from rankwise.model.generate import answer_ids
from rankwise.model.likelihood import final_logits
from rankwise.records import Check

# bf16 rounding of merged weights moved logits by up to 0.46 and KL by 2.7e-4 nats in a pilot on SmolLM2-135M; a
# merge onto the wrong base or with the wrong scale is off by a hundred times that.
MAX_MEAN_KL = 0.01
# Share of positions where the greedy token may change although it leads clearly.
MAX_FLIPS = 0.01


def merged_agrees(subject: Subject) -> list[Check]:
    """Adapter against merged. How far the two lie apart is measured once, over all positions; single positions and
    texts are then held against that, not against their own difference, which no flip could exceed.
    """
    pairs = [(row_logits(subject.tuned, row), row_logits(subject.merged, row)) for row in subject.rows]
    one, other = (torch.cat(side) for side in zip(*pairs, strict=True))
    difference = (one - other).abs().amax(dim=1)
    kl = mean_kl(one, other)
    best = one.topk(2, dim=1).values
    decided = best[:, 0] - best[:, 1] > 2 * difference.mean()
    flips = int(((one.argmax(1) != other.argmax(1)) & decided).sum())
    return [
        Check(
            name="merged_logits",
            passed=kl <= MAX_MEAN_KL,
            number=f"KL {kl:.2g} nats per token on average, {float(difference.max()):.2g} largest logit difference",
            limit=f"KL {MAX_MEAN_KL:g}",
            text=f"Adapter against reloaded merged model, {len(one)} positions of {len(subject.rows)} held-out rows.",
        ),
        Check(
            name="merged_choices",
            passed=flips <= MAX_FLIPS * len(one),
            number=f"{flips} of {len(one)} most likely tokens changed although their lead is over twice the mean "
            "difference of the two models",
            limit=f"{MAX_FLIPS:.0%}",
            text="The token that greedy decoding takes, adapter against merged.",
        ),
        _same_text(subject, float(difference.max())),
    ]


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
