"""The next token of each row, by that row's own settings: no row sees another's logits, generator or penalties."""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

NUCLEUS = 1024  # likeliest tokens that are looked at first for top_p; all of them where these do not reach it


@dataclass
class Draw:
    """How one row chooses, and what it chose so far.

    Attributes:
        temperature: 0 is greedy.
        top_p: share of the probability that is drawn from.
        frequency_penalty, presence_penalty: subtracted from logits, over the answer so far.
        logprobs: how many likely tokens are told; None: no probability is.
        seed: of the draw; None: any.
    """

    temperature: float
    top_p: float
    frequency_penalty: float
    presence_penalty: float
    logprobs: int | None
    seed: int | None
    counts: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(secrets.randbits(63) if self.seed is None else self.seed)

    @property
    def plain(self) -> bool:
        """Is the likeliest token taken, and nothing told of it?"""
        return self.temperature == 0 and self.logprobs is None and not self.penalised

    @property
    def penalised(self) -> bool:
        return bool(self.frequency_penalty or self.presence_penalty)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token; its log-probability and the likeliest (id, log-probability) pairs where they were asked for.

    Both are of the model's own distribution, before penalties, temperature and top_p.
    """

    token: int
    logprob: float | None = None
    likely: tuple[tuple[int, float], ...] = ()


def choose(logits: Tensor, draws: Sequence[Draw]) -> list[Chosen]:
    """The next token of each row of logits (rows, vocabulary)."""
    greedy = logits.argmax(dim=-1).tolist()
    found = []
    for row, (draw, likeliest) in enumerate(zip(draws, greedy, strict=True)):
        chosen = Chosen(likeliest) if draw.plain else _chosen(logits[row].float(), draw, likeliest)
        if draw.penalised:
            draw.counts[chosen.token] += 1
        found.append(chosen)
    return found


def _chosen(logits: Tensor, draw: Draw, likeliest: int) -> Chosen:
    bent = _penalised(logits, draw) if draw.penalised and draw.counts else logits
    if draw.temperature > 0:
        token = _drawn(bent / draw.temperature, draw)
    else:
        token = likeliest if bent is logits else int(bent.argmax())
    if draw.logprobs is None:
        return Chosen(token)
    known = logits - logits.logsumexp(dim=-1)
    values, ids = known.topk(min(draw.logprobs, known.numel()))
    return Chosen(token, float(known[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


def _penalised(logits: Tensor, draw: Draw) -> Tensor:
    ids = torch.tensor(list(draw.counts), device=logits.device)
    times = torch.tensor(list(draw.counts.values()), dtype=logits.dtype, device=logits.device)
    return logits.index_add(0, ids, -(draw.frequency_penalty * times + draw.presence_penalty))


def _drawn(logits: Tensor, draw: Draw) -> int:
    """By the inverse of the distribution function, in fp64: one random number a token, whatever the neighbours do."""
    at = float(torch.rand((), generator=draw.generator, dtype=torch.float64))
    shares = torch.softmax(logits.double(), dim=-1)
    if draw.top_p >= 1:
        return _inverse(shares, at)
    values, ids = shares.topk(min(NUCLEUS, shares.numel()))
    if float(values.sum()) < draw.top_p:
        values, ids = shares.sort(descending=True)
    before = values.cumsum(0) - values
    kept = values[before < draw.top_p]  # the least set that reaches top_p: at least the likeliest token
    return int(ids[_inverse(kept / kept.sum(), at)])


def _inverse(shares: Tensor, at: float) -> int:
    reached = torch.searchsorted(
        shares.cumsum(0), torch.tensor(at, dtype=shares.dtype, device=shares.device), right=True
    )
    return min(int(reached), shares.numel() - 1)
