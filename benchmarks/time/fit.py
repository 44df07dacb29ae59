"""Efficiencies from published throughput: the maximum of a posterior in logarithms.

Each efficiency has a prior (a round figure from the field, with its spread), so that a device class with few rows, or
none in a fold, stays near it. Robust (soft L1), every source with the weight of the square root of its rows. A
generation's own products, attention and traffic are drawn towards those of all generations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from benchmarks.time.cases import Case
from rankwise.estimate.efficiency import Efficiency, generation
from rankwise.estimate.time import passes
from rankwise.records import DeviceFacts

# Figure and spread (standard deviation of its logarithm) before any row is seen. Products: 0.6 to 0.8 of the peak is
# what large cuBLAS products reach; attention: FlashAttention-2 0.35 (H100) to 0.7 (A100); traffic: copies 0.8 to 0.9,
# elementwise kernels less; launch: 5 to 10 us for an eager PyTorch operation with its Python around.
PRIOR = {
    "products": (0.70, 0.25),
    "wide_products": (0.80, 0.30),
    "attention": (0.45, 0.40),
    "traffic": (0.70, 0.30),
    "unpacking": (0.40, 0.50),
    "gptq_unpacking": (0.40, 0.50),
    "launch": (8e-6, 0.50),
    "step": (0.010, 1.00),
    "link": (0.60, 0.40),
    "overlap": (0.70, 0.30),
}
BY_GENERATION = {"products": 0.20, "attention": 0.30, "traffic": 0.15}
# Shares of a peak stay below it.
SHARES = ("products", "wide_products", "attention", "traffic", "unpacking", "gptq_unpacking", "link", "overlap")
LIMIT = 0.97
NOISE = 0.08  # of a measured throughput, beside what the model leaves out


@dataclass(frozen=True)
class Fit:
    """Efficiencies of all generations, and of each that was seen."""

    every: Efficiency
    by_generation: dict[str, dict[str, float]]

    def of(self, device: DeviceFacts) -> Efficiency:
        return replace(self.every, **self.by_generation.get(generation(device), {}))


@dataclass(frozen=True)
class Measured:
    """A case on its device."""

    case: Case
    device: DeviceFacts

    @property
    def tokens(self) -> float:
        setup = self.case.setup
        rows = setup.per_device_train_batch_size * setup.gradient_accumulation_steps * setup.world_size
        return float(self.case.mean_length * rows)


def throughput(measured: Measured, fit: Fit) -> float | None:
    """Predicted tokens per second over all devices, by the product's own function."""
    case = measured.case
    found = passes(
        case.trace,
        case.setup,
        measured.device,
        mean_length=case.mean_length,
        nodes=case.nodes,
        reached=fit.of(measured.device),
    )
    return None if found is None else measured.tokens / found.total


def fit(rows: Sequence[Measured]) -> Fit:
    """The most likely efficiencies for these rows."""
    generations = sorted({generation(row.device) for row in rows})
    weights = _weights(rows)

    def residuals(x: Any) -> Any:
        made = _made(x, generations)
        errors = [_error(row, made) * weight / NOISE for row, weight in zip(rows, weights, strict=True)]
        return np.concatenate([errors, x])

    start = np.zeros(len(PRIOR) + len(BY_GENERATION) * len(generations))
    found = least_squares(residuals, start, loss="soft_l1", max_nfev=60)
    return _made(found.x, generations)


def _weights(rows: Sequence[Measured]) -> list[float]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.case.row.source] = counts.get(row.case.row.source, 0) + 1
    return [counts[row.case.row.source] ** -0.25 for row in rows]


def _error(row: Measured, made: Fit) -> float:
    predicted = throughput(row, made)
    assert predicted is not None and row.case.row.measured is not None
    return math.log(predicted / row.case.row.measured)


def _made(x: Any, generations: Sequence[str]) -> Fit:
    """x: standard normal deviates from the priors."""
    names = list(PRIOR)
    every = {name: PRIOR[name][0] * math.exp(PRIOR[name][1] * x[i]) for i, name in enumerate(names)}
    every |= {name: min(LIMIT, every[name]) for name in SHARES}
    own: dict[str, dict[str, float]] = {}
    at = len(names)
    for gen in generations:
        own[gen] = {}
        for name, spread in BY_GENERATION.items():
            own[gen][name] = min(LIMIT, every[name] * math.exp(spread * x[at]))
            at += 1
    return Fit(Efficiency(**every), own)
