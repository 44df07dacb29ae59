"""The update of a weight matrix as LoRA writes it, s B A, and its singular values without ever forming it.

    B = Q1 R1,  A^T = Q2 R2          thin QR, r columns each
    s B A = Q1 (s R1 R2^T) Q2^T      so its singular values are those of an r x r matrix

Time and memory grow with r (in + out), not with in x out (Golub and Van Loan, Matrix Computations, 5.2 and 8.6).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Product:
    """The update scale * b @ a of one matrix.

    Attributes:
        module: full name of the module in the base model.
        a: (r, in); b: (out, r), on the device they were found on.
        transposed: is the base's weight stored as (in, out)? Embeddings and GPT-2's Conv1D are.
    """

    module: str
    a: Tensor
    b: Tensor
    scale: float
    transposed: bool = False

    @property
    def rank(self) -> int:
        """The largest that it can have."""
        return min(self.a.shape[0], self.a.shape[1], self.b.shape[0])


@dataclass(frozen=True)
class Singular:
    """Singular values, largest first: of the product (of its core's size), of a and of b."""

    product: Tensor
    a: Tensor
    b: Tensor


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, a CPU computes with one thread. Over hundreds of narrow matrices threads wait for each other for longer
    than they compute: on a busy machine of 2 cores two took thirty times as long as one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def singular_values(product: Product) -> Singular:
    """Of the product and its factors, fp32, on their device. Only the triangular halves of the QR are computed."""
    with one_thread():
        left = torch.linalg.qr(product.b.float(), mode="r").R
        right = torch.linalg.qr(product.a.float().T, mode="r").R
        core = product.scale * (left @ right.T)
        return Singular(*(torch.linalg.svdvals(matrix) for matrix in (core, right, left)))


def decompose(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, k), S (k), V (in, k) of left @ right.T, fp32, where k is the smaller number of columns or rows.

    Args:
        left: (out, r); right: (in, r).
    """
    with one_thread():
        q1, r1 = torch.linalg.qr(left.float())
        q2, r2 = torch.linalg.qr(right.float())
        u, s, vh = torch.linalg.svd(r1 @ r2.T, full_matrices=False)
        return q1 @ u, s, q2 @ vh.T


def truncated(product: Product, rank: int) -> Product:
    """The nearest product of at most `rank` (Eckart and Young 1936), with a scale of 1; singular values are shared
    evenly by its factors, so that training can go on from it.
    """
    u, s, v = decompose(product.scale * product.b.float(), product.a.float().T)
    kept = min(rank, len(s))
    root = s[:kept].sqrt()
    return Product(
        product.module,
        a=(v[:, :kept] * root).T.contiguous(),
        b=(u[:, :kept] * root).contiguous(),
        scale=1.0,
        transposed=product.transposed,
    )


def effective_rank(squares: Tensor) -> float | None:
    """exp of the entropy of the energies (Roy and Vetterli 2007); None where there is no energy.

    Args:
        squares: squared singular values; of any order.
    """
    total = float(squares.sum())
    if total <= 0:
        return None
    shares = squares[squares > 0].double() / total
    return math.exp(float(-(shares * shares.log()).sum()))


def condition(values: Tensor) -> float | None:
    """Largest over smallest singular value; None for a matrix that is singular in fp32."""
    largest, smallest = float(values[0]), float(values[-1])
    return largest / smallest if smallest > largest * len(values) * torch.finfo(torch.float32).eps else None
