"""Several adapters of one base, by weights.

    linear        W + sum of w s B A                              exact: the factors side by side are one product
    ties          each update cut to its largest numbers; per number the sign that weighs more is elected, and those
                  that have it are averaged                       (Yadav et al. 2023, arXiv 2306.01708)
    dare_linear   numbers dropped at random, the rest divided by the share that stays, summed
    dare_ties     dropped so, then elected and averaged           (Yu et al. 2023, arXiv 2311.03099)

Elections, averages and drops are PEFT's own functions (peft.utils.merge_utils), on rows of the updates. PEFT's
`add_weighted_adapter` makes one adapter of several, and so either mixes their factors (`ties`, with products of one
adapter's B and another's A) or cuts the result to a rank (`ties_svd`); a merge into the weights has room for all of it.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from peft.utils import merge_utils
from torch import Tensor

from rankwise.errors import ModelError, UsageError
from rankwise.export.adapterparts import Parts
from rankwise.export.changes import Apply, Product, Shape, Tally, rows_of
from rankwise.export.shards import Stored, step_rows

How = Literal["linear", "ties", "dare_linear", "dare_ties"]


@dataclass(frozen=True)
class Blend:
    """Weights in the order of the adapters.

    Attributes:
        density: share of each update that is kept; None for `linear`.

    Raises:
        UsageError: a weight that is no number, a density outside (0, 1], one where none is used, or none where one is.
    """

    how: How
    weights: tuple[float, ...]
    density: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise UsageError(f"--how {self.how}: no such way", expected=f"one of {', '.join(get_args(How))}")
        if not all(np.isfinite(self.weights)):
            raise UsageError(f"--weights {self.weights}", expected="numbers")
        if self.how == "linear":
            if self.density is not None:
                raise UsageError("--density has no place in a linear merge", fix="leave it out, or choose --how ties")
        elif self.density is None or not 0 < self.density <= 1:
            raise UsageError(
                f"--how {self.how} with density {self.density}",
                expected="the share of each update that is kept, above 0 and at most 1",
                fix="--density 0.5",
            )


@dataclass(frozen=True)
class Blended:
    """The updates of several adapters on one weight.

    Attributes:
        products: and weights, of the adapters that change this weight.
    """

    blend: Blend
    products: tuple[Product, ...]
    weights: tuple[float, ...]

    @property
    def name(self) -> str:
        return self.blend.how

    def fits(self, shape: Shape) -> str:
        wrong = [p.shape for p in self.products if p.shape != shape]
        return f"an update is {' x '.join(str(n) for n in wrong[0])}" if wrong else ""

    def begin(self, rows: Callable[[int, int], Tensor], weight: Stored, tally: Tally) -> Apply:
        factors = [(left * p.scale, right) for p in self.products for left, right in [p.factors()]]
        if self.blend.how == "linear":
            left = torch.cat([w * f[0] for w, f in zip(self.weights, factors, strict=True)], dim=-1)
            right = torch.cat([f[1] for f in factors], dim=-2)
            combine: Callable[[int, int], Tensor] = lambda start, stop: rows_of(left, right, start, stop)  # noqa: E731
        else:
            combine = self._elected(factors, weight)

        def apply(chunk: Tensor, start: int) -> None:
            delta = combine(start, start + len(chunk))
            tally.delta += float(torch.linalg.norm(delta).square())
            chunk += delta.view(chunk.shape)

        return apply

    def _elected(self, factors: Sequence[tuple[Tensor, Tensor]], weight: Stored) -> Callable[[int, int], Tensor]:
        weights, density = torch.tensor(self.weights), float(self.blend.density or 1.0)
        if self.blend.how == "ties":
            least = [_least_kept(f, weight, density) for f in factors]

            def ties(start: int, stop: int) -> Tensor:
                deltas = [rows_of(left, right, start, stop) for left, right in factors]
                kept = [d * (d.abs() >= bound) for d, bound in zip(deltas, least, strict=True)]
                found: Tensor = merge_utils.ties(kept, weights, 1.0)
                return found

            return _quiet(ties)
        drop = merge_utils.dare_linear if self.blend.how == "dare_linear" else merge_utils.dare_ties
        seed = int.from_bytes(hashlib.sha256(f"{self.blend.seed} {weight.name}".encode()).digest()[:4], "big")

        def dare(start: int, stop: int) -> Tensor:
            with torch.random.fork_rng([]):
                torch.manual_seed(seed + start)
                deltas = [rows_of(left, right, start, stop) for left, right in factors]
                found: Tensor = drop(deltas, weights, density)
                return found

        return _quiet(dare)


def _quiet(combine: Callable[[int, int], Tensor]) -> Callable[[int, int], Tensor]:
    """PEFT warns that a density of 1 prunes nothing, which is what is wanted of it here."""
    import warnings

    def quiet(start: int, stop: int) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The density", UserWarning)
            return combine(start, stop)

    return quiet


def _least_kept(factors: tuple[Tensor, Tensor], weight: Stored, density: float) -> float:
    """The smallest size of a number among the `density` largest of an update. PEFT's `magnitude_based_pruning` needs
    their positions too, four times the memory.
    """
    left, right = factors
    sizes = torch.empty(*left.shape[:-1], right.shape[-1])
    for start in range(0, weight.rows, step := step_rows(weight)):
        stop = min(start + step, weight.rows)
        torch.abs(rows_of(left, right, start, stop), out=sizes[start:stop])
    flat = sizes.view(-1).numpy()
    dropped = flat.size - int(density * flat.size)
    if dropped >= flat.size:
        return float("inf")
    flat.partition(dropped)
    return float(flat[dropped])


def blended(parts: Sequence[Parts], blend: Blend) -> Parts:
    """The parts of several adapters as one adapter's.

    Raises:
        UsageError: another number of weights than of adapters. ModelError: an adapter that is more than B and A.
    """
    if len(parts) != len(blend.weights):
        raise UsageError(
            f"{len(blend.weights)} weights for {len(parts)} adapters", expected="one for each, in their order"
        )
    for one in parts:
        more = [name for name, changes in one.changes.items() if len(changes) != 1 or name not in one.products]
        if more or one.whole:
            name = next(iter([*more, *one.whole]))
            raise ModelError(
                f"adapters are blended by weights where their updates are B times A, and one changes {name} otherwise",
                expected="LoRA adapters (plain, rank-stabilised, PiSSA, QLoRA) without whole modules or token rows",
            )
    made = Parts()
    for name in sorted({name for one in parts for name in one.products}):
        pairs = [(one.products[name], w) for one, w in zip(parts, blend.weights, strict=True) if name in one.products]
        made.changes[name] = [Blended(blend, tuple(p for p, _ in pairs), tuple(w for _, w in pairs))]
    return made
