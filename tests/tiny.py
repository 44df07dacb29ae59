"""Tiny models of real transformers classes with a real byte-level tokenizer: same code paths, seconds."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    Gemma2Config,
    Gemma2ForCausalLM,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from rankwise.records import TrainConfig

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
EXPERTS = 4
PLAIN_MOE = {
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts": EXPERTS,
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": 2,
}
# What a family of experts is told that others do not know.
MOE: dict[str, dict[str, Any]] = {
    "llama4_text": {
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_local_experts": EXPERTS,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1,
    },
    "deepseek_v3": {
        "num_key_value_heads": 4,
        "n_routed_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 8,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
}
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = [
    "The clinic answers questions about appointments, opening hours and prices.",
    "user assistant system question answer yes no please thank you 0123456789",
]


def tiny_llama(
    folder: Path,
    *,
    vocab: int = 320,
    layers: int = 2,
    hidden: int = 32,
    intermediate: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    positions: int = 256,
    tied: bool = True,
    dtype: Literal["bf16", "fp32"] = "bf16",
    seed: int = 0,
    license: str | None = "apache-2.0",
) -> Path:
    """A Llama in `folder` (safetensors, tokenizer, ChatML template, model card); returns the folder."""
    config = LlamaConfig(
        vocab_size=vocab,
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
        initializer_range=0.3,  # wide, so that logits differ clearly from each other
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return _save(folder, LlamaForCausalLM, config, vocab, dtype, seed, license)


def tiny_llama_untied(folder: Path, **options: Any) -> Path:
    """As `tiny_llama`, with a head of its own."""
    return tiny_llama(folder, tied=False, **options)


def tiny_gpt2(
    folder: Path,
    *,
    vocab: int = 320,
    layers: int = 2,
    hidden: int = 32,
    positions: int = 256,
    dtype: Literal["bf16", "fp32"] = "fp32",
    seed: int = 0,
) -> Path:
    """A GPT-2 (Conv1D weights stored transposed, absolute positions)."""
    config = GPT2Config(
        vocab_size=vocab,
        n_layer=layers,
        n_embd=hidden,
        n_head=4,
        n_positions=positions,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return _save(folder, GPT2LMHeadModel, config, vocab, dtype, seed, None)


def tiny_gemma2(folder: Path, *, vocab: int = 320, layers: int = 2) -> Path:
    """A Gemma 2, whose scores are capped: transformers has no scaled_dot_product_attention for it."""
    config = Gemma2Config(
        vocab_size=vocab,
        num_hidden_layers=layers,
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        sliding_window=32,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return _save(folder, Gemma2ForCausalLM, config, vocab, "fp32", 0, None)


def tiny_moe(folder: Path, family: str, *, dtype: Literal["bf16", "fp32"] = "bf16", seed: int = 0) -> Path:
    """A mixture of `EXPERTS` experts of a family of transformers: mixtral, qwen3_moe, gpt_oss, ..."""
    config = AutoConfig.for_model(
        family,
        vocab_size=320,
        num_hidden_layers=2,
        hidden_size=64,
        intermediate_size=96,
        moe_intermediate_size=48,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        **MOE.get(family, PLAIN_MOE),
    )
    return _save(folder, MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], config, 320, dtype, seed, "apache-2.0")


def tiny_tokenizer(folder: Path, vocab: int = 320) -> None:
    """tokenizer.json (byte-level BPE, at most `vocab` tokens), tokenizer_config.json and chat_template.jinja."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": SPECIAL[0],
        "bos_token": SPECIAL[1],
        "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[2],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(CHATML)


def tiny_config(method: str = "lora", **changes: Any) -> TrainConfig:
    """A complete TrainConfig with small numbers."""
    adapter = {"r": 4, "lora_alpha": 8.0, "lora_dropout": 0.0, "target_modules": "all-linear"}
    values: dict[str, Any] = {
        "method": method,
        **({} if method == "full" else adapter),
        "num_train_epochs": 1.0,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "dtype": "fp32",
        "autocast": None,
        "max_length": 64,
        "on_long": "drop",
        "replay_share": 0.0,
        "eval_steps": 1,
        "save_steps": 1,
        "save_total_limit": 1,
        "logging_steps": 1,
        "seed": 0,
    }
    return TrainConfig(**{**values, **changes})


def _save(
    folder: Path, kind: type[PreTrainedModel], config: Any, vocab: int, dtype: str, seed: int, license: str | None
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = kind(config)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    model.to(DTYPES[dtype]).save_pretrained(folder)
    tiny_tokenizer(folder, vocab)
    if license:
        (folder / "README.md").write_text(f"---\nlicense: {license}\n---\n# tiny\n")
    return folder
