"""A checkpoint of Mistral-7B's shapes with random numbers, written file by file, and a LoRA adapter for it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

SHARD = 4_900_000_000  # bytes, as save_pretrained cuts them
R = 16
CONFIG = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "sliding_window": None,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
LINEARS = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}


def shapes(layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every tensor."""
    yield "model.embed_tokens.weight", (32000, 4096)
    for layer in range(layers):
        for name, shape in LINEARS.items():
            yield f"model.layers.{layer}.{name}.weight", shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{name}.weight", (4096,)
    yield "model.norm.weight", (4096,)
    yield "lm_head.weight", (32000, 4096)


def write_base(folder: Path, layers: int) -> Path:
    """config.json, shards and index; one shard in memory. Numbers have the spread of trained weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}, indent=1))
    draw = np.random.default_rng(0)
    files: list[dict[str, tuple[int, ...]]] = [{}]
    held = 0
    for name, shape in shapes(layers):
        size = 2 * int(np.prod(shape))
        if held + size > SHARD:
            files.append({})
            held = 0
        files[-1][name] = shape
        held += size
    names = {}
    for number, content in enumerate(files, 1):
        file = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        save_file({n: numbers(draw, shape) for n, shape in content.items()}, folder / file, {"format": "pt"})
        names |= dict.fromkeys(content, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return folder


def numbers(draw: np.random.Generator, shape: tuple[int, ...]) -> torch.Tensor:
    """A million normal numbers, begun elsewhere in every tensor: time does not depend on them, and drawing 7 thousand
    million would take longer than the bench.
    """
    pool = torch.from_numpy(draw.standard_normal(1 << 20, dtype=np.float32)).mul_(0.02).to(torch.bfloat16)
    count = int(np.prod(shape))
    return pool.repeat(-(-count // len(pool)))[:count].view(shape)


def write_adapter(folder: Path, layers: int) -> Path:
    """LoRA of rank 16 on every linear layer, as PEFT writes it (fp32)."""
    folder.mkdir(parents=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": R,
        "lora_alpha": 2 * R,
        "target_modules": [name.rpartition(".")[2] for name in LINEARS],
        "base_model_name_or_path": None,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {}
    generator = torch.Generator().manual_seed(0)
    for layer in range(layers):
        for name, (out, into) in LINEARS.items():
            stem = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{stem}.lora_A.weight"] = 0.01 * torch.randn(R, into, generator=generator)
            tensors[f"{stem}.lora_B.weight"] = 0.01 * torch.randn(out, R, generator=generator)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    return folder
