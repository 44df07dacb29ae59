"""Updates that a library's optimizer does not make by itself: of one parameter at a time, in the backward pass, and of
bf16 weights with stochastic rounding. Training runs them on data, and `trace` on tensors without data.

bf16 keeps 8 bits of a number, so a weight of 0.02 moves in steps of 1.2e-4, and an update below half of that is lost
when it is rounded to the nearest (evidence E30). Rounded up or down by chance, each as likely as it is near, the mean
of many updates is right (Gupta et al. 2015, arXiv 1502.02551; Zamirai et al. 2020, arXiv 2010.06192).
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from bitsandbytes.optim.optimizer import Optimizer8bit
from torch import Tensor
from torch.optim import Optimizer

Group = dict[str, Any]
Make = Callable[[list[Tensor]], Optimizer]
CHUNK = 1 << 23  # elements of a parameter that are raised to fp32 at a time; whole blocks
BLOCK = 256  # elements for which bitsandbytes keeps one scale
LOW_BITS = 16  # of an fp32 number that bf16 does not have


def stochastic_round(values: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """fp32 -> bf16, up or down by chance: the expected value is the fp32 one. What is not finite stays so.

    Args:
        values: fp32, of any shape; overwritten.
        generator: on the same device; None: torch's own.
    """
    broken = values.isnan()  # the sum below could turn its bits into a number
    count = values.numel()
    drawn = torch.empty(math.ceil(count / 4), dtype=torch.int64, device=values.device)  # 64 bits for four numbers
    chance = drawn.random_(-(1 << 63), None, generator=generator).view(torch.int16)[:count].view_as(values)
    bits = values.view(torch.int32)
    bits.add_(chance).add_(1 << 15)  # 0 to 65,535 added below the last bit that is kept
    bits.bitwise_and_(-1 << LOW_BITS)
    return values.to(torch.bfloat16).masked_fill_(broken, math.nan)


def finite(number: Tensor) -> bool:
    return bool(torch.isfinite(number))


class OneByOne(Optimizer):
    """A library's optimizer that is given one parameter after the other.

    With `in_backward` a parameter is updated by the hook that torch calls when its gradient is whole, which is freed
    at once (LOMO, Lv et al. 2023, arXiv 2306.09782; torchtune's `optimizer_in_bwd`). Gradients can then neither
    be accumulated over several passes nor clipped by their global norm. A gradient that is not finite is not used, and
    none after it until `zero_grad`.

    With `stochastic` the weights are bf16: each is raised to fp32, updated there and rounded by chance, and so are the
    states that torch's optimizers keep in the weights' precision. What is drawn depends on the seed, on the parameter
    and on how many updates there were, so that a resumed run draws the same.

    Args:
        groups: parameter groups with their learning rate and weight decay.
        make: makes the library's optimizer over a list of tensors.
        in_backward, stochastic, seed: as above.
        around: entered around each update; a trace sees there whose it is.
        usable: is a gradient of this norm used?
    """

    def __init__(
        self,
        groups: list[Group],
        make: Make,
        *,
        in_backward: bool = False,
        stochastic: bool = False,
        seed: int = 0,
        around: Callable[[Tensor], AbstractContextManager[object]] = lambda parameter: nullcontext(),
        usable: Callable[[Tensor], bool] = finite,
    ) -> None:
        device = next(p for group in groups for p in group["params"]).device
        self.inner = make([torch.empty(0, device=device)])
        super().__init__(groups, {**self.inner.defaults, "updates": 0})
        self.stochastic, self.seed, self.around, self.usable = stochastic, seed, around, usable
        self.places = {p: (n, group) for n, (p, group) in enumerate(self._each())}
        self.norms: list[Tensor] = []
        self.updated, self.halted, self.resting = 0, False, False
        if in_backward:
            for parameter in self.places:
                parameter.register_post_accumulate_grad_hook(self._in_backward)
        self.in_backward = in_backward

    def _each(self) -> Iterator[tuple[Any, Group]]:
        return ((p, group) for group in self.param_groups for p in group["params"])

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; in the backward pass that has been done already."""
        if not self.in_backward:
            for parameter, _ in self._each():
                if parameter.grad is not None:
                    self._update(parameter)
        for group in self.param_groups:
            group["updates"] += 1

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none=set_to_none)
        self.norms, self.updated, self.halted = [], 0, False

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Backward passes inside free their gradients and update nothing."""
        self.resting = True
        try:
            yield
        finally:
            self.resting = False

    def norm(self) -> Tensor:
        """Of all gradients of the last backward pass, those that were not used included: one number."""
        return torch.linalg.vector_norm(torch.stack(self.norms)) if self.norms else torch.zeros(())

    def words(self) -> str:
        """What the last backward pass did to the weights."""
        if not self.updated:
            return "the weights were not touched by this step"
        return (
            f"{self.updated} of {len(self.places)} weight tensors were updated by this step, in the backward pass, "
            f"before that was seen"
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Every state in the precision that it was saved in: torch's own method gives them that of the weights.

        Raises ValueError: other groups than were saved.
        """
        saved = state_dict["param_groups"]
        if [len(g["params"]) for g in saved] != [len(g["params"]) for g in self.param_groups]:
            raise ValueError("the saved optimizer has other parameter groups")
        for group, other in zip(self.param_groups, saved, strict=True):
            group.update({name: value for name, value in other.items() if name != "params"})
        numbers = [number for group in saved for number in group["params"]]
        found = zip(numbers, self.places, strict=True)
        self.state = defaultdict(dict, {p: state_dict["state"][n] for n, p in found if n in state_dict["state"]})

    # -- parts -------------------------------------------------------------------------------------

    @torch.no_grad()
    def _in_backward(self, parameter: Tensor) -> None:
        if self.resting:
            parameter.grad = None
            return
        with self.around(parameter):
            assert parameter.grad is not None
            norm = torch.linalg.vector_norm(parameter.grad)
            self.norms.append(norm)
            if self.halted or not self.usable(norm):
                self.halted = True
            else:
                self._now(parameter)
                self.updated += 1
            parameter.grad = None

    def _update(self, parameter: Tensor) -> None:
        with self.around(parameter):
            self._now(parameter)

    def _now(self, parameter: Tensor) -> None:
        group = self.places[parameter][1]
        if self.stochastic:
            self._rounded(parameter, group)
        else:
            self.state[parameter] = self._step(parameter, self.state[parameter], group)

    def _step(self, parameter: Tensor, state: dict[str, Any], group: Group) -> dict[str, Any]:
        """The library's optimizer on one tensor; returns its state."""
        inner = self.inner
        inner.param_groups = [{**group, "params": [parameter]}]
        inner.state = defaultdict(dict, {parameter: state} if state else {})
        inner.step()
        found: dict[str, Any] = inner.state[parameter]
        inner.state, inner.param_groups = defaultdict(dict), []
        return found

    def _rounded(self, parameter: Tensor, group: Group) -> None:
        generator = self._generator(parameter, group)
        if isinstance(self.inner, torch.optim.AdamW | torch.optim.SGD):
            self._elementwise(parameter, group, generator)
        elif isinstance(self.inner, Optimizer8bit):
            self._blockwise(parameter, group, generator)
        else:
            whole = parameter.float()
            assert parameter.grad is not None
            whole.grad = parameter.grad.float()
            self.state[parameter] = self._step(whole, self.state[parameter], group)
            parameter.copy_(stochastic_round(whole, generator))

    def _elementwise(self, parameter: Tensor, group: Group, generator: torch.Generator | None) -> None:
        """States in bf16 as the weights are: raised and rounded with them."""
        kept = self.state[parameter]
        new = dict(kept)
        for part, last in _parts(parameter.numel()):
            whole, weights = _raised(parameter, part)
            given = {n: v.view(-1)[part].float() if v.dim() else v if last else v.clone() for n, v in kept.items()}
            for name, value in self._step(whole, given, group).items():
                if not value.dim():  # a step count
                    new[name] = value
                    continue
                if name not in new:
                    new[name] = torch.zeros_like(parameter)
                new[name].view(-1)[part].copy_(stochastic_round(value, generator))
            weights.copy_(stochastic_round(whole, generator))
        self.state[parameter] = new

    def _blockwise(self, parameter: Tensor, group: Group, generator: torch.Generator | None) -> None:
        """bitsandbytes' states, in their own precision, are changed where they lie."""
        kept = self.state[parameter]
        if not kept:
            inner: Any = self.inner
            inner.param_groups = [{**group, "params": [parameter]}]
            inner.state = defaultdict(dict)
            inner.init_state(group, parameter, 0, 0)
            kept = inner.state[parameter]
        steps = kept["step"]
        for part, _ in _parts(parameter.numel()):
            whole, weights = _raised(parameter, part)
            given = {name: _of_part(name, value, part, parameter.numel()) for name, value in kept.items()}
            kept["step"] = self._step(whole, {**given, "step": steps}, group)["step"]
            weights.copy_(stochastic_round(whole, generator))
        self.state[parameter] = kept

    def _generator(self, parameter: Tensor, group: Group) -> torch.Generator | None:
        if parameter.device.type == "meta":
            return None
        spot = f"{self.seed} {self.places[parameter][0]} {group['updates']}".encode()
        number = int.from_bytes(hashlib.blake2b(spot, digest_size=8).digest()) >> 1
        return torch.Generator(parameter.device).manual_seed(number)


def _raised(parameter: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """fp32 of a part of a parameter, with its gradient, and that part of the parameter itself."""
    assert parameter.grad is not None
    weights = parameter.view(-1)[part]
    whole = weights.float()
    whole.grad = parameter.grad.view(-1)[part].float()
    return whole, weights


def _of_part(name: str, value: Any, part: slice, elements: int) -> Any:
    """A state of bitsandbytes: one number for each element, or for each of its blocks; tables are for all."""
    if name.startswith("absmax"):
        return value[part.start // BLOCK : math.ceil(part.stop / BLOCK)]
    if isinstance(value, Tensor) and value.numel() == elements and not name.startswith("qmap"):
        return value.view(-1)[part]
    return value


def _parts(elements: int) -> Iterator[tuple[slice, bool]]:
    """Parts of a flat tensor, and whether each is the last."""
    starts = range(0, elements, CHUNK)
    return ((slice(n, min(elements, n + CHUNK)), n == starts[-1]) for n in starts)
