"""The spectra of what training changed: of s B A by the thin QR route, of whole weights by their difference."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rankwise.model.adapterproducts import AdapterFolder
from rankwise.model.products import Product, condition, effective_rank, one_thread, singular_values
from rankwise.records import Interval, ModuleSpectrum
from rankwise.watch.directions import Base, Directions, far, intruders, strongest
from rankwise.watch.spectra import KEPT, LOOKED

# Differences of whole weights up to this smaller side are decomposed whole, from D D^T in fp64.
EXACT = 1024
PARTIAL = 64  # directions of a larger one; the entropy of the rest is bounded

Progress = Callable[[str, int, int], None]


def product_spectrum(product: Product, base: Directions | None) -> ModuleSpectrum:
    """What one product is.

    Args:
        base: of the weight that it is added to; None: the base was not read.
    """
    with one_thread():
        return _product_spectrum(product, base)


def _product_spectrum(product: Product, base: Directions | None) -> ModuleSpectrum:
    found = singular_values(product)
    squares = found.product.double() ** 2
    total = float(squares.sum())
    norm = total**0.5
    return ModuleSpectrum(
        module=product.module,
        rank=product.rank,
        norm=norm,
        norm_ratio=None if base is None or base.norm == 0 else norm / base.norm,
        effective_rank=effective_rank(squares),
        first_energy=float(squares[0]) / total if total > 0 else None,
        intruders=None if base is None else intruders(product, base) if total > 0 else 0,
        condition_a=condition(found.a),
        condition_b=condition(found.b),
    )


def difference_spectrum(module: str, tuned: Tensor, base: Tensor, known: Directions) -> ModuleSpectrum:
    """What a whole weight's change is; (out, in) each, on the CPU.

    Norm and energies are exact up to a smaller side of EXACT. Beyond, the PARTIAL strongest directions are found by a
    randomised SVD and the norm is still exact, so the energy of the rest is known and its entropy lies between that of
    as few and of as many directions as can hold it.
    """
    change = tuned.float() - base.float()
    total = float(change.double().norm()) ** 2
    squares, bounds = _energies(change, total)
    rank = effective_rank(squares) if bounds is None else (bounds[0] * bounds[1]) ** 0.5
    return ModuleSpectrum(
        module=module,
        rank=min(change.shape),
        norm=total**0.5,
        norm_ratio=total**0.5 / known.norm if known.norm else None,
        effective_rank=rank,
        effective_rank_interval=bounds,
        first_energy=min(1.0, float(squares.max()) / total) if total > 0 else None,
        intruders=far(strongest(tuned.float(), KEPT)[0][:, :LOOKED], known.left) if total > 0 else 0,
        condition_a=None,
        condition_b=None,
    )


def _energies(change: Tensor, total: float) -> tuple[Tensor, Interval | None]:
    """Squared singular values, and bounds of the effective rank where only the largest are known."""
    if min(change.shape) <= EXACT:
        wide = change.double() if change.shape[0] <= change.shape[1] else change.double().T
        return torch.linalg.eigvalsh(wide @ wide.T).clamp(min=0), None
    squares = strongest(change, PARTIAL)[1].double() ** 2
    return squares, rank_bounds(squares, total, min(change.shape)) if total > 0 else None


def rank_bounds(squares: Tensor, total: float, side: int) -> Interval:
    """Bounds of the effective rank of a matrix whose largest squared singular values are known, and its squared norm.

    The rest of the energy is at its fewest in directions as strong as the weakest known one, at its most spread evenly
    over all that are left.
    """
    shares = squares[squares > 0] / total
    entropy = float(-(shares * shares.log()).sum())
    rest = 1 - float(shares.sum())
    if rest <= 1e-9:
        exact = float(torch.tensor(entropy).exp())
        return exact, exact
    most = rest / max(1, side - len(shares))
    ends = (min(float(shares.min()), rest), min(most, float(shares.min())))
    low, high = (entropy - rest * float(torch.tensor(share).log()) for share in ends)
    return float(torch.tensor(low).exp()), float(torch.tensor(high).exp())


def adapter_spectra(
    adapter: AdapterFolder, base: Base | None, progress: Progress
) -> Iterator[tuple[str, ModuleSpectrum | None]]:
    """(module, spectrum) of each product of an adapter's file, and of each weight that it holds whole.

    A spectrum has no figures of the base where the base has no such weight. None: a whole weight that cannot be
    compared.
    """
    total = len(adapter.pairs) + len(adapter.whole)
    for number, product in enumerate(adapter.products(), 1):
        yield product.module, product_spectrum(product, directions_under(product, base))
        progress("spectra", number, total)
    for number, (stored, name) in enumerate(adapter.whole.items(), len(adapter.pairs) + 1):
        (tuned,) = adapter.tensors([stored])
        module = name.removesuffix(".weight")
        yield module, whole_spectrum(module, tuned, base) if base else None
        progress("spectra", number, total)


def model_spectra(tuned: Base, base: Base, progress: Progress) -> Iterator[tuple[str, ModuleSpectrum | None]]:
    """(module, spectrum) of each matrix of a whole model; None for one that the base does not have."""
    names = [name for name, shape in tuned.shapes.items() if len(shape) > 1]
    for number, name in enumerate(names, 1):
        module = name.removesuffix(".weight")
        yield module, whole_spectrum(module, tuned.tensor(name), base)
        progress("spectra", number, len(names))


def directions_under(product: Product, base: Base | None) -> Directions | None:
    """Of the weight that a product is added to; None where the base was not read, or has no weight of that shape."""
    name = base.find(product.module) if base else None
    if base is None or name is None:
        return None
    shape = base.flat_shape(name)
    wanted = (len(product.b), product.a.shape[1])
    fits = shape == (wanted[::-1] if product.transposed else wanted)
    return base.directions(name, transposed=product.transposed) if fits else None


def whole_spectrum(module: str, tuned: Tensor, base: Base) -> ModuleSpectrum | None:
    """Of one weight's change, (out, in) or a convolution's. None where the base has no such weight, or one whose shape
    differs in more than rows that were added behind, as for new tokens.
    """
    name = base.find(module)
    if name is None or tuned.shape[1:] != base.shapes[name][1:]:
        return None
    rows = min(len(tuned), base.shapes[name][0])
    known = base.directions(name)
    if rows < base.shapes[name][0]:
        known = Directions(known.left[:rows], known.values, known.right, known.norm)
    return difference_spectrum(module, tuned[:rows].flatten(1), base.tensor(name)[:rows].flatten(1), known)
