"""What some of PEFT's tuners need of the values of tensors, which on `meta` are not there.

Everything here stands for something whose size is known without the values: index buffers, projections, checks that a
training run passes.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.fx.experimental._config
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import transformers_weight_conversion
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.overrides import TorchFunctionMode

# These draw permutations or count indices while they are attached. On the host that works; the result moves to meta.
ON_HOST = ("BOFT", "UNILORA")
# These look at a value in every forward pass: is a logit infinite, is a task id in range, is an index in the matrix.
READS_VALUES = ("VBLORA", "POLY", "WAVEFT")
# These choose among tasks by an index of one number a row.
BY_TASK = ("POLY", "MULTITASK_PROMPT_TUNING")


@contextmanager
def attaching(peft_type: str) -> Iterator[None]:
    """Around `get_peft_model` for a model on `meta`.

    PEFT turns the names of Mixtral's expert layers into those of transformers 5's fused parameters; here the experts
    stand as linear layers.
    """
    convert = transformers_weight_conversion.convert_peft_config_for_transformers
    transformers_weight_conversion.convert_peft_config_for_transformers = lambda *args, **kwargs: None
    try:
        with torch.device("cpu" if peft_type in ON_HOST else "meta"):
            yield
    finally:
        transformers_weight_conversion.convert_peft_config_for_transformers = convert


def prepare(config: Any) -> None:
    """SHiRA draws its mask over the whole matrix; any mask with as many entries makes the same tensors."""
    if config.peft_type == "SHIRA":
        config.mask_fn = _first_entries


def _first_entries(base_layer: Any, r: int, **_: Any) -> Tensor:
    """(out, in) with r x (in + out) ones, on the host."""
    rows, columns = int(base_layer.out_features), int(base_layer.in_features)
    mask = torch.zeros(rows * columns, dtype=torch.bool, device="cpu")
    mask[: r * (rows + columns)] = True
    return mask.view(rows, columns)


class _Passing(TorchFunctionMode):
    """A number read off a meta tensor is 0, a condition on one is false: nothing is infinite, nothing out of range."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.item, Tensor.__bool__):
            return 0 if func is Tensor.item else False
        return func(*args, **(kwargs or {}))


@contextmanager
def _passing() -> Iterator[None]:
    symbolic: Any = torch.fx.experimental._config
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        with _Passing(), symbolic.patch(meta_nonzero_assume_all_nonzero=True):
            yield
    finally:
        Distribution.set_default_validate_args(before)


def finish(model: nn.Module, peft_type: str) -> None:
    """After `get_peft_model`: everything on `meta`, and a forward pass that needs no values."""
    if peft_type in ON_HOST:
        model.to("meta")
    if peft_type == "SHIRA":
        _add_sparsely(model)
    if peft_type == "ADALORA":
        _train_rank_numbers(model)
    if peft_type in READS_VALUES:
        _pass_in(model)
    if peft_type in BY_TASK:
        model.forward = _with_task_ids(model.forward)


def _pass_in(model: Any) -> None:
    """In each adapted layer, not around the model: checkpointing computes layers again outside of its forward pass."""
    model.merge_and_unload = _around(model.merge_and_unload, _passing)
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.forward = _around(module.forward, _passing)


def _train_rank_numbers(model: nn.Module) -> None:
    """PEFT freezes AdaLoRA's count of ranks, then casts it to a 16-bit base's dtype, which makes a trained parameter of
    it; on `meta` it does not cast.
    """
    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and hasattr(module, "ranknum"):
            cast = module.get_base_layer().weight.dtype in (torch.bfloat16, torch.float16)
            for number in module.ranknum.values():
                number.requires_grad_(cast)


def _add_sparsely(model: nn.Module) -> None:
    """SHiRA's update is a sparse tensor, which `meta` cannot add to a weight."""
    for module in model.modules():
        if isinstance(indices := getattr(module, "shira_indices", None), dict):
            indices.update({name: tensor.to("meta") for name, tensor in indices.items()})
            module.get_delta_weight = functools.partial(_Entries, module)  # type: ignore[assignment]


class _Entries:
    """Numbers to add at given places of a dense matrix, as torch's add_out_dense_sparse_cuda does it."""

    def __init__(self, layer: Any, adapter: str) -> None:
        self.indices = layer.shira_indices[adapter]
        self.values = layer.shira_weight[adapter] * layer.scaling[adapter]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        dense, entries = args
        if func not in (Tensor.__iadd__, Tensor.add_):
            return NotImplemented
        return entries.added_to(dense)

    def added_to(self, dense: Tensor) -> Tensor:
        with torch.no_grad():
            common = torch.promote_types(dense.dtype, self.values.dtype)
            buffers = [dense.to(common), torch.empty_like(dense, dtype=common)] if common != dense.dtype else []
            rows, columns = self.indices.long()
            places = rows * dense.shape[1] + columns
        dense.view(-1).index_add_(0, places, self.values.to(dense.dtype))
        del buffers
        return dense


def _around(forward: Callable[..., Any], context: Callable[[], AbstractContextManager[None]]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with context():
            return forward(*args, **kwargs)

    return run


def _with_task_ids(forward: Callable[..., Any]) -> Callable[..., Any]:
    """One task for every row, as in a run with a single task."""

    def run(*args: Any, **kwargs: Any) -> Any:
        rows = kwargs["input_ids"].shape[0]
        task_ids = torch.empty(rows, dtype=torch.int64, device=kwargs["input_ids"].device)
        return forward(*args, task_ids=task_ids, **kwargs)

    return run
