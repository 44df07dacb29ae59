"""One forward pass in which every row has its own adapter.

The factors of the adapters that are in the batch are stacked along the rank: h = x [A1; A2; ...]^T is one product for
all of them, entries of h that belong to another row's adapter are set to zero, and h [B1, B2, ...]^T is a second one.
So an adapter's numbers are read once a step, however many rows have it, and a layer costs two products however many
adapters there are. Punica (Chen et al. 2023, arXiv 2310.18547) and S-LoRA (Sheng et al. 2023, arXiv 2311.03285) gather
the factors for each row instead (BGMV), which reads them once a row. The base's own modules run as they are; everything
here is added by hooks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from rankwise.serve.embedded.adapter import Adapter, Change

Rows = Sequence[Adapter | None]
INSERTED = ":inserted"  # after the name of a sublayer: a linear layer may be one, and change itself, too


@dataclass(frozen=True)
class Stack:
    """Low-rank parts of several adapters at one layer.

    Attributes:
        a: (ranks together, in).
        b: (ranks together, out).
        bias: (ranks together,) added to a x, or None.
        owners: the adapter of each rank, by its number.
    """

    a: Tensor
    b: Tensor
    owners: tuple[tuple[int, int], ...]
    bias: Tensor | None = None


@dataclass
class Term:
    """What the rows of the current batch add at one module. Those by row are (rows, 1, width)."""

    stack: Stack | None = None
    foreign: Tensor | None = None
    gain: Tensor | None = None
    shift: Tensor | None = None
    gain_in: Tensor | None = None


class Mix:
    """The terms of one batch, kept while its rows stay the same, and the stacks, kept while they have all that is used
    and not much more."""

    def __init__(self) -> None:
        self.rows: tuple[Adapter | None, ...] = ()
        self.terms: dict[str, Term] = {}
        self._stacked: tuple[Adapter, ...] = ()
        self._stacks: dict[str, Stack] = {}

    def forget(self, adapter: Adapter) -> None:
        if adapter in self._stacked or adapter in self.rows:
            self.__init__()  # type: ignore[misc]

    def make(self, rows: tuple[Adapter | None, ...], used: tuple[Adapter, ...]) -> None:
        """Terms of other rows than before; `used` are the adapters in them that change modules."""
        if not set(used) <= set(self._stacked) or len(self._stacked) > 2 * len(used):
            self._stacked, self._stacks = used, _stack(used)
        number = {adapter: place for place, adapter in enumerate(self._stacked)}
        mine = torch.tensor([-1 if row is None else number.get(row, -1) for row in rows])
        alone = len(self._stacked) == 1 and all(row is used[0] for row in rows)
        masks: dict[tuple[tuple[int, int], ...], Tensor] = {}
        self.rows, self.terms = rows, {}
        changed = {path for adapter in used for path in adapter.changes}
        followed = {path for adapter in used for path in adapter.inserted}
        for path in changed | {path + INSERTED for path in followed}:
            if (stack := self._stacks.get(path)) is None:
                continue
            if stack.owners not in masks:
                masks[stack.owners] = _foreign(stack, mine)
            self.terms[path] = Term(stack, None if alone else masks[stack.owners])
        for path in changed:
            self._scale(path, rows)
        for path in followed:
            biases = [None if row is None or path not in row.inserted else row.inserted[path].up_bias for row in rows]
            self.terms[path + INSERTED].shift = _by_row(biases, 0.0)

    def _scale(self, path: str, rows: Rows) -> None:
        term, none = self.terms.setdefault(path, Term()), Change()
        changes = [none if row is None else row.changes.get(path, none) for row in rows]
        term.gain = _by_row([change.gain for change in changes], 1.0)
        term.shift = _by_row([change.shift for change in changes], 0.0)
        term.gain_in = _by_row([change.gain_in for change in changes], 1.0)


class Mixer:
    """Holds the hooks of one model. `rows` says whose batch the next forward passes are."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._hooked: set[str] = set()
        self._terms: dict[str, Term] = {}
        self._mixes = {"prefill": Mix(), "decode": Mix()}

    @contextmanager
    def rows(self, rows: Rows, of: Literal["prefill", "decode"]) -> Iterator[None]:
        """Inside, row i of every batch has adapter rows[i] (None: the base)."""
        used = tuple(dict.fromkeys(row for row in rows if row is not None and (row.changes or row.inserted)))
        mix = self._mixes[of]
        if used and mix.rows != tuple(rows):
            self._hook(used)
            mix.make(tuple(rows), used)
        self._terms = mix.terms if used else {}
        try:
            yield
        finally:
            self._terms = {}

    def forget(self, adapter: Adapter) -> None:
        """It is unloaded: nothing of it is kept."""
        for mix in self._mixes.values():
            mix.forget(adapter)

    def _hook(self, adapters: Iterable[Adapter]) -> None:
        for adapter in adapters:
            for path in adapter.changes.keys() - self._hooked:
                module = self._model.get_submodule(path)
                module.register_forward_pre_hook(self._before(path))
                module.register_forward_hook(self._after(path))
                self._hooked.add(path)
            for path in {path + INSERTED for path in adapter.inserted} - self._hooked:
                self._model.get_submodule(path.removesuffix(INSERTED)).register_forward_hook(self._behind(path))
                self._hooked.add(path)

    def _before(self, path: str) -> Callable[[nn.Module, Any], Any]:
        def scale(module: nn.Module, given: Any) -> Any:
            term = self._terms.get(path)
            return None if term is None or term.gain_in is None else (given[0] * term.gain_in, *given[1:])

        return scale

    def _after(self, path: str) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
        def add(module: nn.Module, given: Any, out: Tensor) -> Tensor | None:
            term = self._terms.get(path)
            return None if term is None else _changed(term, given[0], out)

        return add

    def _behind(self, path: str) -> Callable[[nn.Module, Any, Any], Any]:
        def add(module: nn.Module, given: Any, out: Any) -> Any:
            term = self._terms.get(path)
            if term is None:
                return None
            return (_squeezed(term, out[0]), *out[1:]) if isinstance(out, tuple) else _squeezed(term, out)

        return add


def _changed(term: Term, x: Tensor, out: Tensor) -> Tensor:
    if term.gain is not None:
        out = out * term.gain
    if term.shift is not None:
        out = out + term.shift
    if term.stack is None:
        return out
    inner = linear(x, term.stack.a)
    if term.foreign is not None:
        inner.masked_fill_(term.foreign, 0)
    out.view(-1, out.shape[-1]).addmm_(inner.view(-1, inner.shape[-1]), term.stack.b)
    return out


def _squeezed(term: Term, hidden: Tensor) -> Tensor:
    """The bottlenecks of all rows; `shift` is the bias of each row's own, and zero where it has none."""
    assert term.stack is not None and term.shift is not None
    inner = relu(linear(hidden, term.stack.a, term.stack.bias))
    if term.foreign is not None:
        inner.masked_fill_(term.foreign, 0)
    return hidden + term.shift + inner @ term.stack.b


def _stack(adapters: Sequence[Adapter]) -> dict[str, Stack]:
    parts: dict[str, list[tuple[int, Tensor, Tensor, Tensor | None]]] = {}
    for number, adapter in enumerate(adapters):
        for path, change in adapter.changes.items():
            if change.a is not None and change.b is not None:
                parts.setdefault(path, []).append((number, change.a, change.b, None))
        for path, part in adapter.inserted.items():
            parts.setdefault(path + INSERTED, []).append((number, part.down, part.up, part.down_bias))
    return {path: _joined(found) for path, found in parts.items()}


def _joined(parts: Sequence[tuple[int, Tensor, Tensor, Tensor | None]]) -> Stack:
    owners = tuple((number, a.shape[0]) for number, a, _, _ in parts)
    if len(parts) == 1:
        _, a, b, bias = parts[0]
        return Stack(across(a), b.t().contiguous(), owners, bias)
    biases = [bias for _, _, _, bias in parts if bias is not None]
    a, b = torch.cat([a for _, a, _, _ in parts]), torch.cat([b.t() for _, _, b, _ in parts])
    return Stack(across(a), b, owners, torch.cat(biases) if biases else None)


def lay_across(model: nn.Module) -> None:
    """Every linear layer of a base on a CPU; one that is tied to an embedding stays, which is read by rows."""
    tied = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        if type(module) is nn.Linear and id(module.weight) not in tied:
            module.weight.data = across(module.weight.data)


def across(weight: Tensor) -> Tensor:
    """The same matrix, laid out by columns: on a CPU a product with the few rows of a step is up to twice as fast."""
    return weight if weight.device.type != "cpu" else weight.t().contiguous().t()


def _foreign(stack: Stack, mine: Tensor) -> Tensor:
    """(rows, 1, ranks): does the rank belong to another adapter than the row's?"""
    owners = torch.tensor([number for number, rank in stack.owners for _ in range(rank)])
    return (mine[:, None] != owners)[:, None].to(stack.a.device)


def _by_row(found: Sequence[Tensor | None], neutral: float) -> Tensor | None:
    """(rows, 1, width): a row without one has the neutral value; None where no row has one."""
    like = next((tensor for tensor in found if tensor is not None), None)
    if like is None:
        return None
    blank = torch.full_like(like, neutral)
    return torch.stack([blank if tensor is None else tensor for tensor in found])[:, None]
