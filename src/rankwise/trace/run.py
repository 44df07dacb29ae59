"""Run the step on `meta` under a meter."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import transformers.masking_utils
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import _disable_current_modes

from rankwise.model.attach import total_params, trainable_params
from rankwise.records.setup import Setup
from rankwise.step import Batch, training_step
from rankwise.trace.build import DTYPES, build, configuration
from rankwise.trace.extend import TEMPLATE
from rankwise.trace.kernels.fast import fast_kernels
from rankwise.trace.kernels.litgpt import as_litgpt
from rankwise.trace.kernels.loss import FAST_KERNELS, IN_CLASS, LOSSES
from rankwise.trace.kernels.numeric import Autocast, CudaNumerics
from rankwise.trace.kernels.optimizers import optimizer
from rankwise.trace.layers import NO_LAYER, Layers, decoder_layers
from rankwise.trace.meter import FROZEN, TRAINED, Meter, Recording, named
from rankwise.trace.stack import SIXTEEN_BIT, traits
from rankwise.updates import OneByOne

STEPS = 2  # the second step finds the optimizer's state in place


@dataclass(frozen=True)
class Run:
    """A recording with what a count of parameters gives; `layer_...` are those that one inner layer has alone."""

    recording: Recording
    trainable_params: int
    total_params: int
    layer_trainable_params: int
    layer_total_params: int
    micro_batches: int
    parameter_bytes: int
    trained_bytes: int
    notes: tuple[str, ...]


def run_step(setup: Setup, layers: int | None = None) -> Run:
    """Two training steps and one evaluation of the model cut to `layers` (None: all), seen storage by storage."""
    with _tracing():
        model = build(setup, layers)
        counted = _counted(setup, layers, model)
        step = _Step(model, setup)
        with step.meter, fast_kernels(model) if setup.loss in FAST_KERNELS else nullcontext():
            step.train()
            step.meter.forget_work("optimizer")  # the first step makes the state, those after it do not
            passes = 1 if step.can_repeat else STEPS
            (step.update_again if step.can_repeat else step.train)()
            step.evaluate()
        recording = step.meter.close()
        return Run(
            recording=recording,
            **counted,
            micro_batches=passes * len(step.batches),
            parameter_bytes=_bytes_of(recording, (TRAINED, FROZEN)),
            trained_bytes=_bytes_of(recording, (TRAINED,)),
            notes=getattr(model, "notes", ()),
        )


def _bytes_of(recording: Recording, parameters: tuple[str, ...], layer: int | None = None) -> int:
    """Of parameters, in one layer or in all."""
    held = (b for b in recording.births if b.kind == "weights" and b.op in parameters)
    return sum(b.bytes for b in held if layer is None or b.layer == layer)


def layer_bytes(recording: Recording, layer: int) -> tuple[int, int]:
    """(all, trained) bytes of one layer's parameters."""
    return _bytes_of(recording, (TRAINED, FROZEN), layer), _bytes_of(recording, (TRAINED,), layer)


def _counted(setup: Setup, layers: int | None, built: nn.Module) -> dict[str, int]:
    """Parameters, adapters included, tied ones once; of the model of `setup`, or, where its weights are packed, of one
    that is like it.
    """
    plain = SIXTEEN_BIT.get(setup.method, setup.method)
    model = built if plain == setup.method else build(setup.model_copy(update={"method": plain}), layers)
    config: Any = model.config
    _, stack = decoder_layers(model, config.num_hidden_layers)
    shared = {p for number, layer in enumerate(stack) if number != TEMPLATE for p in layer.parameters()}
    inner = stack[TEMPLATE].parameters() if len(stack) > TEMPLATE else ()
    own = nn.ParameterList(p for p in inner if p not in shared)
    return {
        "trainable_params": trainable_params(model),
        "total_params": total_params(model),
        "layer_trainable_params": trainable_params(own),
        "layer_total_params": total_params(own),
    }


def decoder_layers_of(setup: Setup) -> int:
    """Decoder layers of the whole model."""
    return int(configuration(setup).num_hidden_layers)


@dataclass(frozen=True)
class _Gradient:
    """What a parameter's gradient looked like, and by which key the meter knew it."""

    parameter: nn.Parameter
    key: int | None
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, parameter: Any, meter: Meter) -> "_Gradient":
        grad: Tensor = parameter.grad
        if grad.is_sparse:
            return cls(parameter, None, grad.shape, (), grad.dtype)
        return cls(parameter, meter.key_of(grad), grad.shape, grad.stride(), grad.dtype)

    def remade(self) -> Tensor:
        """Unseen by the meter."""
        with _disable_current_modes():
            self.parameter.grad = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")
        return self.parameter.grad


class _Step:
    """One model under one meter; tells the meter where in the step it is."""

    def __init__(self, model: nn.Module, setup: Setup) -> None:
        self.model, self.setup, self.traits = model, setup, traits(setup)
        if self.traits.litgpt:
            as_litgpt(model)
        config: Any = model.config
        self.layers = Layers(model, config.num_hidden_layers)
        self.layers.around_recomputation = self._arithmetic
        self.meter = Meter(config.get_text_config().vocab_size, self.layers)
        self.meter.see_weights(model)
        self.trained = {p: self.layers.of_name(n) for n, p in model.named_parameters() if p.requires_grad}
        for parameter, layer in self.trained.items():
            parameter.register_post_accumulate_grad_hook(self._renamer(layer))
        self.within: OneByOne | None = None
        self.optimizer = self._optimizer()
        self.batches = [self._batch()] * min(2, setup.gradient_accumulation_steps)
        self.held: list[object] = []
        self.workspaces: dict[str, Tensor] = {}
        self.begun = 0
        self.first_pass: slice | None = None
        self.gradients: list[_Gradient] = []

    def train(self) -> None:
        training_step(
            self.model,
            self.batches,
            self,
            backward=self._backward,
            clip=self._clip,
            autocast=self._forward,
            loss_of=self._loss,
            usable=lambda loss, norm: True,
        )
        self._rename_states()

    @property
    def can_repeat(self) -> bool:
        """Does a step do what the one before did, until it updates the weights? What that left may be replaced."""
        assert self.first_pass is not None
        known = all(g.key is not None for g in self.gradients)
        left = self.meter.left_of(self.first_pass) - {self.meter.key_of(w) for w in self.workspaces.values()}
        return known and not left and not self.setup.optimizer_in_backward

    def update_again(self) -> None:
        """A second step. Its forward and backward passes are those of the first, and are recorded as such; the
        optimizer finds its state and does something else.
        """
        total = torch.zeros((), device="meta")
        assert self.first_pass is not None
        keys = self.meter.repeat(self.first_pass)
        for gradient in self.gradients:
            assert gradient.key is not None
            self.meter.adopt(gradient.remade(), keys[gradient.key])
        norm = self._clip()
        self.step()
        self.zero_grad()
        del total, norm
        self._rename_states()

    def evaluate(self) -> None:
        self.model.eval()
        self.layers.begin_forward()
        with self.meter.during("eval"), torch.no_grad(), self._arithmetic():
            self._loss(self.model, self.batches[0])
            self.held.clear()

    # -- what training_step calls ------------------------------------------------------------------

    def _forward(self) -> AbstractContextManager[Any]:
        self.meter.phase = "forward"
        self.begun = self.begun or len(self.meter.recording.events)
        self.layers.begin_forward()
        self._cublas("forward")
        return self._arithmetic()

    def _loss(self, model: nn.Module, batch: Batch) -> Tensor:
        loss = self.setup.loss
        path = IN_CLASS[loss] if loss in IN_CLASS and self.traits.loss_in_class else LOSSES[loss]
        return path(model, batch, self.held)

    def _backward(self, loss: Tensor) -> None:
        self.meter.phase = "backward"
        self.layers.begin_backward()
        self._cublas("backward")
        loss.backward()
        self.held.clear()
        self.layers.in_backward = False

    def _clip(self) -> Tensor:
        self.meter.phase = "optimizer"
        if self.first_pass is None:
            self.first_pass = slice(self.begun, len(self.meter.recording.events))
            given = (p for p in self.trained if p.grad is not None)
            self.gradients = [_Gradient.of(p, self.meter) for p in given]
        if self.within is not None:  # there is nothing left to clip
            return self.within.norm()
        return torch.nn.utils.clip_grad_norm_(list(self.trained), 1.0)

    def step(self) -> None:
        """AdamW keeps its step counts on the CPU, whatever device the parameters are on."""
        self.meter.stepwise = True
        with torch.device("cpu"):
            self.optimizer.step()
        self.meter.stepwise, self.meter.stepping = False, None

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none=set_to_none)

    # -- parts -------------------------------------------------------------------------------------

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """How the device would compute a forward pass: its dropout (the CPU's is what `meta` runs), and autocast."""
        dtype, device = self.traits.autocast, "cpu" if self.setup.device == "cpu" else "cuda"
        dropout = nullcontext() if device == "cpu" else CudaNumerics(self.setup.device)
        with dropout, Autocast(DTYPES[dtype], device) if dtype else nullcontext():
            yield

    def _cublas(self, thread: str) -> None:
        """cuBLAS keeps a workspace for each thread that multiplies: the caller's and autograd's."""
        if self.setup.device != "cpu" and thread not in self.workspaces:
            size = cublas_workspace(self.setup.device)
            with named("cublas workspace"):
                self.workspaces[thread] = torch.empty(size, dtype=torch.uint8, device="meta")
            self.meter.rename(self.workspaces[thread], "workspace", NO_LAYER)

    def _renamer(self, layer: int) -> Any:
        def rename(parameter: Tensor) -> None:
            assert parameter.grad is not None
            self.meter.rename(parameter.grad, "gradients", layer)

        return rename

    def _optimizer(self) -> Optimizer:
        setup = self.setup
        trained: list[Tensor] = [*self.trained]
        if not (setup.optimizer_in_backward or setup.bf16_stochastic_round):
            return optimizer(setup.optim, trained, setup.device)
        one = OneByOne(
            [{"params": trained}],
            lambda tensors: optimizer(setup.optim, tensors, setup.device),
            in_backward=setup.optimizer_in_backward,
            stochastic=setup.bf16_stochastic_round,
            around=self._around,
            usable=lambda norm: True,
        )
        if setup.optimizer_in_backward:
            self.within = one
        return one

    @contextmanager
    def _around(self, parameter: Tensor) -> Iterator[None]:
        """One parameter is updated; in the backward pass nobody else says that it is the optimizer that works now."""
        with self.meter.update(self.trained[parameter]) if self.within else nullcontext(), torch.device("cpu"):  # type: ignore[index]
            yield
        self._rename(parameter)

    def _rename_states(self) -> None:
        for parameter in self.optimizer.state:
            self._rename(parameter)

    def _rename(self, parameter: Any) -> None:
        for value in self.optimizer.state[parameter].values():
            if isinstance(value, Tensor):
                self.meter.rename(value, "optimizer", self.trained[parameter])

    def _batch(self) -> Batch:
        rows, length = self.setup.per_device_train_batch_size, self.setup.max_length
        kept = max(1, round(length * self.setup.labelled_share))
        shapes = ((rows, length), (kept,), (rows, kept))
        ids, keep, targets = (torch.empty(shape, dtype=torch.int64, device="meta") for shape in shapes)
        for tensor in (ids, keep, targets):
            self.meter.see(tensor, "activations")
        return Batch(ids, None, keep, targets, rows * length, rows * kept)


def cublas_workspace(device: str) -> int:
    """Bytes of one cuBLAS workspace (torch's CUDABlas.cpp): 2 x 4 MiB + 8 x 16 KiB, and 32 MiB from Hopper on."""
    capability = float(device.partition("-")[2] or 8.0)
    return 32 << 20 if capability >= 9.0 else 8_519_680


def largest_merged(setup: Setup, layers: int | None) -> int | None:
    """Numbers in the largest weight of a base that the adapter can be merged into; None where PEFT has no merge of it.

    Layers are alike and the embedding does not grow with their number, so a short model tells it.
    """
    plain = setup.model_copy(update={"method": SIXTEEN_BIT.get(setup.method, setup.method)})
    with _tracing():
        model: Any = build(plain, layers)
        if not hasattr(model, "merge_and_unload"):
            return None
        largest: int = max(p.numel() for p in model.parameters() if not p.requires_grad)
        try:
            model.merge_and_unload()
        except (AttributeError, NotImplementedError, ValueError):  # PEFT's ways to say that a tuner cannot merge
            return None
    return largest


@contextmanager
def _tracing() -> Iterator[None]:
    """Mask code would call `.item()` on tensors that hold nothing, if it did not believe that it is being traced. It
    would then expect several texts in a row, and make the mask that a plain row does without.
    """
    masks = transformers.masking_utils
    was = masks.is_tracing, masks.find_packed_sequence_indices
    masks.is_tracing, masks.find_packed_sequence_indices = lambda *a, **k: True, lambda position_ids: None
    try:
        yield
    finally:
        masks.is_tracing, masks.find_packed_sequence_indices = was
