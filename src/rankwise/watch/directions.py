"""The weights of a base model, read one at a time, and their strongest directions, computed once and kept.

Intruder directions (Shuttleworth et al. 2024, arXiv 2410.21228, algorithm 1) are those of the LOOKED strongest left
singular vectors of the tuned weight that lie far from every one of the base's: largest |cos| below EPSILON. The paper
holds them against all directions of the base by a full SVD. Here the base's KEPT strongest are known, all of them where
the matrix is small; the tuned weight is the sum of these and the update, whose decomposition needs no full matrix. A
weaker direction of the base that training raised among the strongest therefore counts as an intruder, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rankwise.errors import ModelError
from rankwise.files import cache_folder, remove_oldest
from rankwise.model.locate import weight_files
from rankwise.model.products import Product, decompose
from rankwise.records import content_hash
from rankwise.text.hashes import cached_hash
from rankwise.text.locked import locked
from rankwise.watch.spectra import EPSILON, KEPT, LOOKED

SPARE = 8  # columns beyond KEPT of the randomised SVD (Halko et al. 2011, arXiv 0909.4061)
ITERATIONS = 4  # of its subspace iteration
SMALL = 2 * (KEPT + SPARE)  # matrices up to this side are decomposed whole
WAY = 1  # raised when directions are computed otherwise, so that old ones are made again
FILES = 80  # weight files whose directions are remembered; of more the oldest go
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Directions:
    """Of one weight W (out, in), fp32.

    Attributes:
        left, values, right: (out, k), (k), (in, k): its strongest singular vectors and values.
        norm: Frobenius norm of all of W.
    """

    left: Tensor
    values: Tensor
    right: Tensor
    norm: float


class Base:
    """The weights of a folder in safetensors."""

    def __init__(self, folder: Path):
        """Reads the names. Raises ModelError for a damaged file, or where there is none."""
        self.folder = folder
        self._files: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._hashes: dict[Path, str] = {}
        for file in weight_files(folder):
            self._list(file)
        if not self._files:
            raise ModelError(
                f"{folder} holds no weights in safetensors", expected="model.safetensors, or an index and its files"
            )

    def _list(self, file: Path) -> None:
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - safe_open is no mapping
                    part = opened.get_slice(name)
                    if part.get_dtype() in FLOATS:
                        self._files[name], self._shapes[name] = file, tuple(part.get_shape())
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} is damaged: {error}", fix="copy or download the model again") from None

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> shape of every floating-point weight."""
        return self._shapes

    def flat_shape(self, name: str) -> tuple[int, int]:
        """(rows, all else) of a weight, as a convolution is looked at."""
        rows, *rest = self._shapes[name]
        return rows, prod(rest)

    def find(self, module: str) -> str | None:
        """The name of a module's weight: as the model class has it, or without or with its prefix, as hubs keep it."""
        name = f"{module}.weight"
        short = name.partition(".")[2]
        for known in (name, short):
            if known in self._shapes:
                return known
        longer = [known for known in self._shapes if known.endswith(f".{name}")]
        return longer[0] if len(longer) == 1 else None

    def tensor(self, name: str) -> Tensor:
        """A weight as it is stored."""
        with safe_open(self._files[name], framework="pt") as opened:
            found: Tensor = opened.get_tensor(name)
        return found

    def directions(self, name: str, *, transposed: bool = False) -> Directions:
        """Of one weight, from the cache or computed now and kept there.

        Args:
            transposed: turn it first, so that its left directions are those of the module's output.
        """
        found = self._kept(name)
        with locked(found):
            if not found.is_file():
                self._make(name, found)
        with safe_open(found, framework="pt") as opened:
            left, values, right, norm = (opened.get_tensor(part) for part in ("left", "values", "right", "norm"))
        sides = (right, left) if transposed else (left, right)
        return Directions(sides[0].float(), values, sides[1].float(), float(norm))

    def has_directions(self, name: str) -> bool:
        """Are they computed already?"""
        return self._kept(name).is_file()

    def _kept(self, name: str) -> Path:
        file = self._files[name]
        if file not in self._hashes:
            self._hashes[file] = cached_hash(file)
        key = content_hash([self._hashes[file], KEPT, WAY])
        return cache_folder() / "directions" / key[:32] / f"{name}.safetensors"

    def _make(self, name: str, target: Path) -> None:
        weight = self.tensor(name).float().flatten(1)
        left, values, right = strongest(weight, KEPT)
        # Half precision moves a cosine by less than 0.001 and halves what is kept.
        parts = {"left": left.half(), "values": values, "right": right.half(), "norm": weight.norm()}
        temporary = target.with_name(f".{target.name}.new")
        save_file({part: tensor.contiguous() for part, tensor in parts.items()}, temporary)
        temporary.replace(target)
        remove_oldest({folder: folder for folder in target.parent.parent.iterdir() if folder.is_dir()}, FILES)


def strongest(weight: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """(out, k), (k), (in, k): singular vectors and values of a matrix, largest first; all of a small matrix's.

    Exact for sides up to SMALL, else randomised, with random numbers of its own.
    """
    if min(weight.shape) <= SMALL:
        u, s, vh = torch.linalg.svd(weight.float(), full_matrices=False)
        return u, s, vh.T
    devices = [weight.device] if weight.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(weight.float(), q=count + SPARE, niter=ITERATIONS)
    return u[:, :count], s[:count], v[:, :count]


def intruders(product: Product, base: Directions) -> int:
    """How many of the LOOKED strongest directions of base plus product are far from all known ones of the base."""
    device = product.a.device
    left = torch.cat([(base.left * base.values).to(device), product.scale * product.b.float()], 1)
    right = torch.cat([base.right.to(device), product.a.float().T], 1)
    tuned, _, _ = decompose(left, right)
    return far(tuned[:, :LOOKED], base.left.to(device))


def far(tuned: Tensor, base: Tensor) -> int:
    """Columns of `tuned` (out, j) whose largest |cos| to a column of `base` (out, k) is below EPSILON."""
    return int(((tuned.T @ base).abs().amax(dim=1) < EPSILON).sum())
