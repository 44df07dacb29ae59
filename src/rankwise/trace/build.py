"""Setup -> the real model class on `meta`, with the real method attached, ready for a step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import peft
import torch
from peft.tuners.lora.gptq import GPTQLoraLinear
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from rankwise.errors import ModelError, UsageError
from rankwise.methods import AdapterOptions, tuner
from rankwise.model.attach import Wrapped, cast_inputs, peft_types, wrap
from rankwise.records.setup import Setup
from rankwise.trace.kernels import adapters, attention, quantised
from rankwise.trace.kernels.experts import BalancedExperts, balance
from rankwise.trace.stack import SHARDED_WEIGHTS, traits, weights_dtype

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
USUAL_GROUP = 128  # GPTQ: weights that share a scale


def configuration(setup: Setup, layers: int | None = None) -> PreTrainedConfig:
    """The model's configuration, cut to `layers` decoder layers."""
    given = deepcopy(setup.config)
    given.pop("quantization_config", None)  # layers are quantised here, by stand-ins
    with _as_model_error(setup):
        config = AutoConfig.for_model(given.pop("model_type"), **given)
    if layers is not None:
        if vars(config).get("layer_types"):  # elsewhere it follows from the number of layers
            config.layer_types = shortened(config.layer_types, layers)
        config.num_hidden_layers = layers
    config.use_cache = False
    return config


def shortened(kinds: list[str], layers: int) -> list[str]:
    """The first and the last kind of layer, and between them every kind in turn: inner layers whose kinds differ in
    memory then differ in a short trace.
    """
    if layers >= len(kinds):
        return kinds
    inner = list(dict.fromkeys(kinds[1:-1]))
    return [kinds[0], *(inner[i % len(inner)] for i in range(layers - 2)), kinds[-1]][:layers]


@contextmanager
def _as_model_error(setup: Setup) -> Iterator[None]:
    """transformers says in many kinds of exception that it has no such class, or none for such a config."""
    try:
        yield
    except (ValueError, TypeError, ZeroDivisionError, ImportError) as error:
        raise ModelError(
            f"transformers cannot build a causal language model from this config ({setup.config.get('model_type')}): "
            f"{(str(error).strip().splitlines() or [type(error).__name__])[0]}",
            expected="the config.json of a causal language model that the installed transformers knows",
            fix="check model_type and the sizes beside it",
        ) from error


def build(setup: Setup, layers: int | None = None) -> nn.Module:
    """The model with its method attached, in training mode, every tensor on `meta`."""
    model = load(setup, layers)
    if setup.method in QUANTISED:
        QUANTISED[setup.method](model, setup)
        if setup.kbit_upcast and setup.parallel not in SHARDED_WEIGHTS:  # TRL skips it for sharded QLoRA
            _prepare_kbit(model, setup)
    return attached(model, setup)


def load(setup: Setup, layers: int | None = None) -> PreTrainedModel:
    """As `from_pretrained(..., dtype=...)` would leave it, without a byte of weights."""
    attention.register()
    config = configuration(setup, layers)
    name = _attention(setup, config)
    with _as_model_error(setup), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[weights_dtype(setup)], attn_implementation=name)
    balance(model)
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.warn_if_padding_and_no_attention_mask = lambda *args: None  # it would look at token ids
    return model


def _attention(setup: Setup, config: PreTrainedConfig) -> str:
    """As transformers decides where nobody insists: a class without scaled_dot_product_attention runs eagerly. A class
    that calls torch's function itself, not transformers' table of attention functions, gets it under its own name.
    """
    asked, kinds = setup.attn_implementation, AutoModelForCausalLM._model_mapping
    kind = kinds.get(type(config), None)
    if kind is None or kind._supports_attention_backend:
        unable = asked == "sdpa" and kind is not None and not kind._supports_sdpa
        return attention.implementation("eager" if unable else asked, setup.device, repeat_kv=traits(setup).repeat_kv)
    return "sdpa" if asked != "eager" and kind._supports_sdpa else "eager"


def attached(model: PreTrainedModel, setup: Setup) -> nn.Module:
    """Freeze, wrap, cast, checkpoint: what `get_peft_model` and a trainer do before the first step.

    The model carries what a person should know of it as `model.notes`, a tuple of sentences.
    """
    if setup.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": traits(setup).reentrant})
    if setup.method == "full":
        whole: nn.Module = model.requires_grad_(True).train()
        return whole
    model.requires_grad_(False)
    if setup.gradient_checkpointing:
        model.enable_input_require_grads()
    chosen = tuner(setup.method, peft_types())
    if chosen.untraceable:
        raise UsageError(f"{setup.method} cannot be priced: {chosen.untraceable}")
    if setup.gradient_checkpointing and not chosen.checkpointing:
        raise UsageError(f"{setup.method} does not train with gradient checkpointing", fix="leave checkpointing off")
    wrapped = _wrap(model, setup, chosen.peft_type or "")
    if setup.adapter_dtype != "fp32":  # fp32 is what PEFT makes of a 16-bit adapter, where it makes it at all
        for parameter in wrapped.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(DTYPES[setup.adapter_dtype])
    wrapped.model.notes = wrapped.notes
    ready: nn.Module = wrapped.model.train()
    return ready


def spans_layers(setup: Setup) -> bool:
    """Does the method keep something for all layers in one place, so that a short trace cannot be extended?"""
    return tuner(setup.method, peft_types()).spans_layers


def _wrap(model: PreTrainedModel, setup: Setup, peft_type: str) -> Wrapped:
    vocabulary = model.config.get_text_config().vocab_size
    options = AdapterOptions(
        r=setup.r,
        lora_alpha=setup.lora_alpha,
        lora_dropout=setup.lora_dropout,
        target_modules=setup.target_modules,
        num_virtual_tokens=setup.num_virtual_tokens,
        bottleneck_size=setup.bottleneck_size,
        new_token_rows=setup.new_token_rows,
        new_token_ids=tuple(range(vocabulary - setup.new_tokens, vocabulary)),
    )
    with adapters.attaching(peft_type):
        wrapped = wrap(
            model,
            setup.method,
            options,
            autocast_adapter_dtype=setup.adapter_dtype == "fp32",
            prepare=_prepare_config,
            kept_out=_stand_ins(model),
        )
    adapters.finish(wrapped.model, peft_type)
    cast_inputs(wrapped.model, setup.cast_inputs)
    return wrapped


def _prepare_config(config: Any) -> None:
    if hasattr(config, "_register_custom_module"):
        config._register_custom_module({quantised.GptqLinear: GPTQLoraLinear})  # PEFT knows gptqmodel's class alone
    adapters.prepare(config)


def _stand_ins(model: PreTrainedModel) -> Callable[[str], bool]:
    """Experts stand as linear layers here; in transformers 5 they are 3-D parameters, which `all-linear` leaves out."""
    paths = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, BalancedExperts))
    return lambda name: name.startswith(paths)


def _prepare_kbit(model: PreTrainedModel, setup: Setup) -> None:
    """PEFT raises everything that is not quantised to fp32. With bf16 arithmetic TRL's SFTTrainer then puts the
    embeddings and the head back to bf16 (`peft_module_casting_to_bf16`); with fp16 they stay fp32.
    """
    peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if setup.dtype == "bf16":
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            module.to(torch.bfloat16)


def _replace_linears(model: PreTrainedModel, make: Any) -> None:
    """Every linear layer but the head, as transformers' quantizers choose them."""
    kept = {id(model.get_output_embeddings())}
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and id(child) not in kept:
                setattr(module, name, make(child))


def _four_bit(model: PreTrainedModel, setup: Setup) -> None:
    compute = DTYPES[traits(setup).autocast or setup.dtype]
    _replace_linears(model, lambda linear: quantised.Linear4bit(linear, compute, setup.double_quant))
    model.is_loaded_in_4bit = True
    model.config._is_quantized = True


def _eight_bit(model: PreTrainedModel, setup: Setup) -> None:
    _replace_linears(model, lambda linear: quantised.Linear8bitLt(linear, on_cpu=setup.device == "cpu"))
    model.is_loaded_in_8bit = True


def _gptq(model: PreTrainedModel, setup: Setup) -> None:
    group_size = (setup.config.get("quantization_config") or {}).get("group_size", USUAL_GROUP)
    _replace_linears(model, lambda linear: quantised.GptqLinear(linear, group_size))
    model.quantization_method = "gptq"


QUANTISED = {"qlora": _four_bit, "lora-8bit": _eight_bit, "gptq-lora": _gptq}
