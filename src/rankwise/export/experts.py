"""Adapters on single parameters (PEFT's LoRA `target_parameters`): the experts of a layer, which transformers 5 holds
as one parameter of three dimensions, and routers.

PEFT keeps one A and one B for all E experts (peft.tuners.lora.layer.ParamWrapper): the rows of A are those of the first
expert, then of the second; the columns of B are the first column of every expert, then the second of every expert.

    parameter (E, out, in)     W_e + s B[:, e::E] A[e r : (e + 1) r]
    parameter (E, in, out)     W_e + s (B[:, e::E] A[e r : (e + 1) r])^T

Files may hold the same weights expert by expert; a stored tensor gets the rows of the product that are its own.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig, get_peft_model
from peft.tuners.lora import ParamWrapper
from safetensors import safe_open
from torch import Tensor

from rankwise.errors import ModelError
from rankwise.export.changes import Product
from rankwise.export.layout import Piece
from rankwise.export.mergebase import BaseFiles, nearest
from rankwise.model.adapterproducts import PREFIX, WEIGHTS, AdapterFolder
from rankwise.model.load import quiet_transformers
from rankwise.model.skeleton import skeleton


@dataclass(frozen=True)
class ExpertsProduct(Product):
    """The part of an update that one stored tensor gets: of one expert, or of all, as (E, rows, r) and (E, r, width).

    Attributes:
        transposed: is the parameter (E, in, out)? experts: E. piece: where the tensor lies in it.
    """

    experts: int
    piece: Piece

    def factors(self) -> tuple[Tensor, Tensor]:
        one = self.piece.expert
        with safe_open(self.file, framework="pt") as opened:
            a, b = opened.get_slice(self.a), opened.get_slice(self.b)
            rank = a.get_shape()[0] // self.experts
            if one is None:
                stacked = a[:].view(self.experts, rank, -1), b[:].view(-1, rank, self.experts).permute(2, 0, 1)
            else:
                stacked = a[one * rank : (one + 1) * rank], b[:][:, one :: self.experts]
            right, left = (t.to(torch.float32, copy=True) for t in stacked)  # the file is closed behind them
        if self.transposed:
            left, right = right.mT, left.mT
        if one is not None:
            left = left[self.piece.first : self.piece.first + self.shape[0]]
        if self.piece.turned:
            left, right = right.mT, left.mT
        return left.contiguous(), right.contiguous()


@dataclass(frozen=True)
class Targeted:
    """A parameter that an adapter changes, as PEFT sees it in the base.

    Attributes:
        name: of the parameter. shape: its own. transposed: (E, in, out). scale: s.
    """

    name: str
    shape: tuple[int, ...]
    transposed: bool
    scale: float

    @property
    def experts(self) -> int:
        return self.shape[0] if len(self.shape) == 3 else 1

    def expected(self, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The shapes of A and B."""
        rows, width = self.shape[-2:]
        out, into = (width, rows) if self.transposed else (rows, width)
        return (rank * self.experts, into), (out, rank * self.experts)


def targeted_parameters(adapter: AdapterFolder, base: BaseFiles) -> dict[str, Targeted]:
    """By the name that A and B have before `.lora_A`. PEFT tells a parameter of a module from another by how deep its
    wrappers are nested, and so it is asked: it wraps the base on the meta device.

    Raises:
        ModelError: the parameters are not in this base.
    """
    if not adapter.config.get("target_parameters"):
        return {}
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = PeftConfig.from_pretrained(str(adapter.folder))
            config.inference_mode = True
            model = get_peft_model(skeleton(base.folder), config, low_cpu_mem_usage=True)
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ModelError(
            f"the adapter {adapter.folder} does not fit this base: {str(error).strip().splitlines()[0]}",
            expected="the base model that it was trained on",
            fix="adapter_config.json names that base",
        ) from error
    wrappers = {n.removeprefix(PREFIX): m for n, m in model.named_modules() if isinstance(m, ParamWrapper)}
    return {name: _targeted(name, wrapper) for name, wrapper in wrappers.items()}


def _targeted(name: str, wrapper: Any) -> Targeted:
    module = ".".join(part for part in name.split(".") if part != "base_layer")
    shape = tuple(wrapper.get_param().shape)
    turned = len(shape) == 3 and not wrapper._did_swap_in_out_features
    (scale,) = wrapper.scaling.values()
    return Targeted(f"{module}.{wrapper.parameter_name}", shape, turned, float(scale))


def products_on(
    target: Targeted,
    adapter: AdapterFolder,
    base: BaseFiles,
    pair: tuple[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Product]:
    """Name of a stored tensor -> its part of the update.

    Raises:
        ModelError: A and B are of another base, the files do not have the parameter, or hold it in a form that is not
            followed.
    """
    a, b = (shapes[name] for name in pair)
    if (a, b) != target.expected(a[0] // target.experts):
        raise ModelError(
            f"the adapter does not fit {target.name} of this base, which is {_by(target.shape)}: {pair[0]} is {_by(a)} "
            f"and B is {_by(b)}",
            expected="the base model that it was trained on",
            fix="adapter_config.json names that base",
        )
    if target.transposed and target.experts == 1:
        raise ModelError(
            f"{target.name} holds a single expert as (1, in, out), and PEFT applies B A to that without turning it",
            expected="several experts, or one as (1, out, in)",
        )
    pieces = base.pieces(target.name)
    if not pieces:
        near = nearest(target.name, list(base.tensors))
        raise ModelError(
            f"{pair[0]} belongs to {target.name}, which the files of {base.folder} do not have"
            + (f" (they have {near})" if near else ""),
            expected="weights in 16 or 32 bit; experts may be stored together or one by one",
            fix="quantised experts (MXFP4, FP8) are dequantised by loading and saving the base with transformers",
        )
    return {piece.tensor.name: _product(target, adapter, pair, piece) for piece in pieces}


def _product(target: Targeted, adapter: AdapterFolder, pair: tuple[str, str], piece: Piece) -> Product:
    file, rows = adapter.folder / WEIGHTS, target.shape
    if len(rows) == 2:
        return Product(file, *pair, target.scale, False, rows)
    if piece.expert is not None:
        rows = (piece.tensor.rows, rows[2])
    elif piece.turned:
        rows = (rows[0], rows[2], rows[1])
    return ExpertsProduct(file, *pair, target.scale, target.transposed, rows, target.experts, piece)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
