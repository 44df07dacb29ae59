"""Adapter folders -> Adapter. PEFT itself reads its files, onto a copy of the base without weights: so a rank pattern
or a new name of a layer means here what it means there, and the running model is not touched. What the engine would
not carry exactly is refused.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.ia3.layer import IA3Layer
from peft.tuners.lora.layer import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from rankwise.methods import SERVED
from rankwise.model.bottleneck import TYPE as BOTTLENECK_TYPE
from rankwise.model.load import quiet_transformers
from rankwise.serve.embedded.adapter import Adapter, Change, Inserted
from rankwise.serve.engine import AdapterRefused

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What an adapter_config.json may ask for beside its own matrices, and why the engine has no place for it.
BESIDE = {
    "modules_to_save": "whole modules that it trained stand in for the base's, which other rows need",
    "trainable_token_indices": "rows of the embedding that it trained stand in for the base's, which other rows need",
    "target_parameters": "it changes parameters that are no linear layer's",
    "layer_replication": "it repeats layers of the base, which other rows have once",
    "alora_invocation_tokens": "it is switched on in the middle of a row",
    "arrow_config": "it mixes other adapters by each token",
}
# Beginnings of `init_lora_weights` that change the base: such an adapter is right beside what they left of it alone.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
MERGE = "merge it (`rankwise merge`) and serve the merged model"


def read_adapter(name: str, folder: Path, base: PreTrainedModel) -> Adapter:
    """The adapter of `folder`, for rows of `base`, in its device and dtype.

    Raises:
        AdapterRefused: it is damaged, does not fit the base, or has parts that cannot be mixed with other rows'.
    """
    written = _config(name, folder)
    try:
        if written.get("type") == BOTTLENECK_TYPE:
            found = _bottleneck(name, folder, base)
        else:
            _check_kind(name, written)
            found = _by_peft(name, folder, base)
    except AdapterRefused:
        raise
    except Exception as error:  # PEFT, safetensors and torch tell of a file that does not fit by many exceptions
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            raise
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise AdapterRefused(
            f"{name}: the adapter does not fit this base: {said}",
            expected="an adapter that was trained on the base that is served",
        ) from error
    return _placed(found, base)


def _config(name: str, folder: Path) -> dict[str, Any]:
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise AdapterRefused(f"{name}: {file} is missing", expected="an adapter in safetensors, with its config")
    try:
        written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterRefused(f"{name}: {CONFIG} is damaged: {error}") from error
    if not isinstance(written, dict):
        raise AdapterRefused(f"{name}: {CONFIG} is damaged: no object")
    return written


def _check_kind(name: str, written: dict[str, Any]) -> None:
    kind = str(written.get("peft_type"))
    if kind not in SERVED:
        raise AdapterRefused(
            f"{name}: adapters of {kind} are not served beside others",
            expected=f"one of {', '.join(SERVED)}",
            fix=MERGE,
        )
    for key, why in BESIDE.items():
        if written.get(key):
            raise AdapterRefused(f"{name}: {key}: {why}", fix=MERGE)
    begun = written.get("init_lora_weights")
    if isinstance(begun, str) and begun.startswith(CHANGES_BASE):
        raise AdapterRefused(
            f"{name}: init_lora_weights {begun!r}: it was trained beside a changed base, not the one that is served",
            fix="save it with `path_initial_model_for_weight_conversion`, as plain LoRA over the untouched base",
        )
    if written.get("bias", "none") != "none":
        raise AdapterRefused(f"{name}: bias {written['bias']!r}: it changed biases of the base", fix=MERGE)


def _by_peft(name: str, folder: Path, base: PreTrainedModel) -> Adapter:
    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.device("meta"):
            bare = AutoModelForCausalLM.from_config(base.config, dtype=base.dtype)
        model = get_peft_model(bare, config, autocast_adapter_dtype=False, low_cpu_mem_usage=True)
    tensors = load_file(folder / WEIGHTS)
    if config.is_prompt_learning:
        return _learned_prompt(name, model, tensors, base)
    _fill(name, model, tensors)
    changes = {}
    for path, layer in model.get_base_model().named_modules():
        if isinstance(layer, LoraLayer):
            changes[path] = _lora(name, path, layer, base.get_submodule(path))
        elif isinstance(layer, IA3Layer):
            changes[path] = _ia3(layer)
    return Adapter(name, changes)


def _fill(name: str, model: Any, tensors: dict[str, Tensor]) -> None:
    """Put the file's tensors in their places. Each has one, and each place has its tensor: PEFT itself only warns."""
    places = dict(model.named_parameters())
    path_of = {id(place): path for path, place in places.items()}
    listed = get_peft_model_state_dict(model, state_dict=places, save_embedding_layers=False)
    wrong = list(listed.keys() ^ tensors.keys())
    wrong += [key for key in listed.keys() & tensors.keys() if listed[key].shape != tensors[key].shape]
    if wrong:
        raise AdapterRefused(
            f"{name}: {len(wrong)} of its tensors are missing, unknown or of another shape: {min(wrong)}",
            expected="the adapter as PEFT saved it, for the base that is served",
        )
    for key, place in listed.items():
        parent, _, leaf = path_of[id(place)].rpartition(".")
        setattr(model.get_submodule(parent), leaf, nn.Parameter(tensors[key], requires_grad=False))


def _lora(name: str, path: str, layer: Any, base: nn.Module) -> Change:
    """Of one layer; DoRA's lengths become a gain, which scales the base's product and ours alike."""
    if "default" not in layer.lora_A:
        raise AdapterRefused(f"{name}: {path} is no linear layer", fix=MERGE)
    if "default" in layer.lora_variant and not layer.use_dora["default"]:
        kind = type(layer.lora_variant["default"]).__name__
        raise AdapterRefused(f"{name}: {kind} is not served beside others", fix=MERGE)
    down, up = layer.lora_A["default"], layer.lora_B["default"]
    a, b = down.weight.detach().float(), up.weight.detach().float() * layer.scaling["default"]
    if not layer.use_dora["default"]:
        shift = None if up.bias is None else up.bias.detach().float() * layer.scaling["default"]
        return Change(a, b, shift=shift)
    lengths = layer.lora_magnitude_vector["default"].weight.detach().float()
    weight = dequantize_module_weight(base).detach().float().to(a.device)
    if layer.fan_in_fan_out:
        weight = weight.T
    gain = lengths / torch.linalg.vector_norm(weight + b @ a, dim=1)
    bias = getattr(base, "bias", None)
    shift = None if bias is None else (1 - gain) * bias.detach().float().to(a.device)
    return Change(a, b * gain[:, None], gain, shift)


def _ia3(layer: Any) -> Change:
    scale = layer.ia3_l["default"].detach().flatten()
    return Change(gain_in=scale) if layer.is_feedforward else Change(gain=scale)


def _learned_prompt(name: str, model: Any, tensors: dict[str, Tensor], base: PreTrainedModel) -> Adapter:
    encoder = model.prompt_encoder["default"]
    learned = tensors.get("prompt_embeddings")
    if learned is None or len(tensors) != 1 or learned.shape != encoder.embedding.weight.shape:
        raise AdapterRefused(f"{name}: it holds no prompt of the size that its config tells")
    encoder.embedding.weight = nn.Parameter(learned, requires_grad=False)
    made = model.get_prompt(batch_size=1)
    if isinstance(made, Tensor):
        return Adapter(name, prompt=made[0].detach())
    pairs = tuple((layer.keys[0].detach(), layer.values[0].detach()) for layer in made.layers)
    if len(pairs) != base.config.get_text_config().num_hidden_layers:
        raise AdapterRefused(f"{name}: its prefix has {len(pairs)} layers, not those of the base")
    return Adapter(name, prefix=pairs)


def _bottleneck(name: str, folder: Path, base: PreTrainedModel) -> Adapter:
    state = load_file(folder / WEIGHTS)
    ends = {"down.weight", "down.bias", "up.weight", "up.bias"}
    places: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        path, _, end = key.partition(".bottleneck.")
        if end not in ends:
            raise AdapterRefused(f"{name}: {key} is no part of a bottleneck")
        places.setdefault(path, {})[end] = tensor
    hidden = base.config.get_text_config().hidden_size
    inserted = {}
    for path, part in places.items():
        base.get_submodule(path)
        if set(part) != ends or part["up.weight"].shape[0] != hidden or part["down.weight"].shape[1] != hidden:
            raise AdapterRefused(f"{name}: the bottleneck at {path} is of another shape than the base")
        inserted[path] = Inserted(part["down.weight"], part["down.bias"], part["up.weight"], part["up.bias"])
    return Adapter(name, inserted=inserted)


def _placed(adapter: Adapter, base: PreTrainedModel) -> Adapter:
    """In the base's precision. A number that is not finite would spoil rows of others (0 times it is not 0)."""
    placed = adapter.to(base.device, base.dtype)
    if not all(bool(t.isfinite().all()) for t in placed.tensors()):
        raise AdapterRefused(f"{adapter.name}: it holds numbers that are not finite")
    return placed
