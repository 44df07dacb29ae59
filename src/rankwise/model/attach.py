"""Attach a method to a loaded base: what trains, in which precision; and take the adapter away again."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from peft.tuners.tuners_utils import BaseTuner
from torch import nn
from transformers import PreTrainedModel

from rankwise.errors import ModelError, UsageError
from rankwise.methods import METHODS, TUNERS, AdapterOptions, Tuner, tuner
from rankwise.methods.base import config_fields
from rankwise.model.bottleneck import BottleneckModel, attach_bottleneck, is_bottleneck, load_bottleneck
from rankwise.model.dropout import quick_dropout
from rankwise.model.pissa import decompose, take_first_values
from rankwise.model.targets import check_rank, find_targets, fitted, none_kept_out
from rankwise.model.vocabulary import vocabulary_fields
from rankwise.records import TrainConfig


def attach(model: PreTrainedModel, config: TrainConfig, *, resumed: Path | None = None) -> PreTrainedModel | PeftModel:
    """The model ready to train by `config.method`, in training mode.

    Full: every parameter trains, in the precision it was loaded in. Adapters: the base is frozen as loaded (nothing of
    a 4-bit base is raised to fp32, unlike PEFT's k-bit preparation), the new weights are fp32 and drawn from
    `config.seed` without touching torch's global generator.

    Args:
        resumed: the checkpoint that is restored next; PiSSA takes its first values from there.

    Raises:
        ModelError: full fine-tuning of a 4-bit base.
        UsageError: targets that the model does not have, or a rank that they cannot have.
    """
    adapter = METHODS[config.method].trains == "adapter"
    if not adapter:
        if _is_four_bit(model):
            raise ModelError(
                "4-bit weights cannot be trained in full", fix="load the base in 16 or 32 bit, or use qlora"
            )
        model.requires_grad_(True)
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        if adapter:
            model.enable_input_require_grads()
    if not adapter:
        model.train()
        return model
    options = AdapterOptions(
        config.r,
        config.lora_alpha,
        config.lora_dropout or 0.0,
        config.target_modules,
        config.num_virtual_tokens,
        config.bottleneck_size,
        config.new_token_rows,
        config.new_token_ids or (),
    )
    attached = wrap(model, config.method, options, seed=config.seed).model
    if TUNERS[config.method].residual:
        with _drawn_from(config.seed, model):
            if resumed:
                take_first_values(attached, resumed)
            else:
                decompose(attached, config.init_lora_weights or "pissa")
    allow_packing(attached, False)
    quick_dropout(attached)
    attached.train()
    return attached


@dataclass(frozen=True)
class Wrapped:
    """A model with an adapter, and what the person who asked for it should know."""

    model: Any
    notes: tuple[str, ...] = ()


def peft_types() -> dict[str, Any]:
    """Every tuner of the installed PEFT: name -> config class."""
    return {str(getattr(k, "value", k)): v for k, v in peft.PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def wrap(
    model: PreTrainedModel,
    method: str,
    options: AdapterOptions,
    *,
    seed: int | None = None,
    autocast_adapter_dtype: bool = True,
    prepare: Callable[[Any], None] = lambda config: None,
    kept_out: Callable[[str], bool] = none_kept_out,
) -> Wrapped:
    """Put the adapter of any method on a model, through real PEFT where PEFT has it.

    Args:
        method: a `--method` name other than `full`.
        seed: draws the new weights without touching torch's global generator; None leaves them to that one.
        autocast_adapter_dtype: PEFT's: 16-bit adapters become fp32.
        prepare: changes the PEFT config before it is used.
        kept_out: modules that `all-linear` leaves out.

    Raises:
        UsageError: no such method, or one that this model cannot have with these options.
    """
    chosen = tuner(method, peft_types())
    if chosen.peft_type is None:
        if method == "full":
            raise UsageError("full fine-tuning puts no adapter on a model")
        with _drawn_from(seed, model):
            return Wrapped(attach_bottleneck(model, options.bottleneck_size, **options.more))
    config, notes = peft_config(model, chosen, options, kept_out)
    prepare(config)
    with _drawn_from(seed, model), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to (True|False)", UserWarning)  # PEFT sets it right
        warnings.filterwarnings("ignore", r"(?s).*CUDA extension|Setting boft_n_butterfly_factor", UserWarning)
        with _refusals_of(chosen, model):
            attached = peft.get_peft_model(model, config, autocast_adapter_dtype=autocast_adapter_dtype)
            if not trainable_params(attached):
                raise ValueError("nothing of it would train")
    if not options.more.get("target_parameters"):
        _refuse_experts(attached)
    if options.new_token_rows is not None and autocast_adapter_dtype:
        _raise_to_fp32(attached)  # PEFT raises LoRA's matrices, and leaves whole modules in the base's precision
    return Wrapped(attached, notes)


def _refuse_experts(model: nn.Module) -> None:
    """PEFT takes the names of shared experts and dense layers for those of the fused experts beside them, in families
    where an earlier transformers named both alike: DeepSeek's, Qwen2-MoE's.
    """
    taken = sorted({m.parameter_name for m in model.modules() if isinstance(m, ParamWrapper)})
    if taken:
        names = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, LoraLinear)})
        raise UsageError(
            f"PEFT would put the adapter on the experts of the model ({', '.join(taken)}) in place of layers that have "
            "the same names, which no plan counts",
            expected=f"targets that are layers of their own: {', '.join(names)}",
            fix=f"--targets {','.join(names)}",
        )


def _raise_to_fp32(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


@contextmanager
def _drawn_from(seed: int | None, model: PreTrainedModel) -> Iterator[None]:
    """Random numbers inside follow from the seed, and those after from what was before."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def peft_config(
    model: PreTrainedModel, chosen: Tuner, options: AdapterOptions, kept_out: Callable[[str], bool] = none_kept_out
) -> tuple[Any, tuple[str, ...]]:
    """(PEFT's config object of a tuner for this model, notes). Raises UsageError, as `wrap` does."""
    assert chosen.peft_type is not None
    kind = peft_types()[chosen.peft_type]
    fields = frozenset(f.name for f in dataclasses.fields(kind))
    values, notes = config_fields(chosen, options, fields)
    if "adapter_layers" in fields:
        values.setdefault("adapter_layers", model.config.get_text_config().num_hidden_layers)
    if "target_modules" not in fields:
        if options.target_modules is not None:
            notes.append(f"targets are ignored: {chosen.name} has none")
        with _refusals_of(chosen, model):
            return kind(**values), tuple(notes)
    asked = options.more.get("target_modules", options.target_modules)
    targets = find_targets(model, chosen, asked, _known_targets(chosen.peft_type), kept_out)
    check_rank(chosen, targets, options.r)
    if options.new_token_rows is not None:
        values |= vocabulary_fields(model, options.new_token_rows, options.new_token_ids, targets.modules)
    with _refusals_of(chosen, model):
        config = kind(**(targets.fields | values))
    smaller, why = fitted(chosen, targets, config, set(options.more))
    for name, value in smaller.items():
        setattr(config, name, value)
    return config, (*notes, *targets.notes, *why)


def _known_targets(peft_type: str) -> dict[str, Any] | None:
    """PEFT's default targets of a tuner by model type; None for one that takes a single name (LLaMA-Adapter)."""
    tuner_class = peft.PEFT_TYPE_TO_TUNER_MAPPING[peft.PeftType(peft_type)]
    if not issubclass(tuner_class, BaseTuner):
        return None
    if peft_type == "IA3":  # the one tuner whose class does not say it
        return dict(peft.utils.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING)
    return dict(getattr(tuner_class, "target_module_mapping", None) or {})


@contextmanager
def _refusals_of(chosen: Tuner, model: nn.Module) -> Iterator[None]:
    """PEFT says in four kinds of exception that a config or a layer will not do."""
    try:
        yield
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise UsageError(
            f"{chosen.name} cannot be attached to {type(model).__name__}: {str(error).strip().splitlines()[0]}",
            expected="a method and targets that fit the layers of this model",
            fix="choose other --targets, or another method",
        ) from error


def allow_packing(model: nn.Module, allowed: bool) -> None:
    """May bitsandbytes repack 4-bit weights for its CPU kernel at the next forward pass in evaluation mode?

    That kernel is twice as fast and has no backward: once packed, and they stay so, training would go on with gradients
    that skip every frozen layer.
    """
    layers: list[Any] = list(model.modules())  # Any: the switch is bitsandbytes' own attribute
    for module in layers:
        if hasattr(module, "support_avx512bf16_for_cpu"):
            from bitsandbytes.functional import has_avx512bf16

            module.support_avx512bf16_for_cpu = allowed and has_avx512bf16()


def cast_inputs(model: nn.Module, cast: bool) -> None:
    """Does a LoRA layer cast its input to the dtype of its matrices, as PEFT does? To fp32, from which autocast casts
    it back to 16 bit for the product: the same numbers, two copies later.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = cast


@contextmanager
def narrow_inputs(model: nn.Module, autocast: str | None) -> Iterator[None]:
    """Inside, where everything runs under autocast, no LoRA layer casts its input."""
    cast_inputs(model, autocast is None)
    try:
        yield
    finally:
        cast_inputs(model, True)


def load_adapter(base: PreTrainedModel, folder: Path, *, trainable: bool = False) -> PeftModel | BottleneckModel:
    """The adapter of `folder` on `base`; in evaluation mode unless trainable.

    Raises:
        ModelError: the folder holds no adapter in safetensors, or one of another shape than the base.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise ModelError(
                f"{folder} holds no adapter: {name} is missing",
                expected="a folder written by PEFT's save_pretrained, in safetensors",
            )
    if is_bottleneck(folder):
        return load_bottleneck(base, folder, trainable=trainable)
    try:
        adapted = PeftModel.from_pretrained(base, folder, is_trainable=trainable)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"the adapter {folder} does not fit this base: {str(error).strip().splitlines()[0]}",
            expected="the base model that it was trained on",
            fix="adapter_config.json names that base",
        ) from error
    adapted.train(trainable)
    return adapted


@contextmanager
def untouched(model: nn.Module) -> Iterator[nn.Module]:
    """Inside, the model answers as its base does: the adapter is off. Raises ModelError for a model without adapter."""
    if not isinstance(model, (PeftModel, BottleneckModel)):
        raise ModelError(
            "this model has no adapter to switch off: full fine-tuning changed the base itself",
            fix="load the base again beside it",
        )
    with model.disable_adapter():
        yield model


def trainable_params(model: nn.Module) -> int:
    """Numbers that an optimizer would change; a tied parameter counts once."""
    return sum(_count(p) for p in model.parameters() if p.requires_grad)


def total_params(model: nn.Module) -> int:
    """All numbers of the model, adapters included; tied once, packed 4-bit weights at their real size."""
    return sum(_count(p) for p in model.parameters())


def adapter_scale(model: nn.Module) -> tuple[int | None, float | None]:
    """(r, s) of the update s B A as the layers hold them; None for each that no layer has, or not all the same."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    ranks = {rank for layer in layers for rank in layer.r.values()}
    scales = {float(scale) for layer in layers for scale in layer.scaling.values()}
    return ranks.pop() if len(ranks) == 1 else None, scales.pop() if len(scales) == 1 else None


def _count(parameter: nn.Parameter) -> int:
    """bitsandbytes packs two weights in a byte and keeps the real shape in `quant_state`."""
    state = getattr(parameter, "quant_state", None)
    if state is None:  # ZeRO-3 leaves an empty tensor in place of one that it has split
        return int(getattr(parameter, "ds_numel", None) or parameter.numel())
    return int(state.shape.numel())


def _is_four_bit(model: nn.Module) -> bool:
    return any(getattr(p, "quant_state", None) is not None for p in model.parameters())
