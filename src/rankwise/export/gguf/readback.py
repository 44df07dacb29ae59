"""A GGUF file read again: its text against training's, its logits against the model that it was made of."""

import json
from pathlib import Path
from typing import Any

import psutil
import torch
from gguf import GGUFReader
from torch.nn.functional import kl_div, log_softmax
from transformers import AutoModelForCausalLM, GgufConfig

from rankwise.export.gguf.converter import Precision
from rankwise.model.likelihood import final_logits
from rankwise.model.load import load_base, quiet_transformers
from rankwise.records import Check
from rankwise.text.golden import GOLDEN_CHAT, golden
from rankwise.text.template import ChatText

# KL of next-token probabilities, nats: an adapter of SmolLM2-135M gave 0 in bf16 and 0.018 in q8_0.
MAX_KL = {"bf16": 0.01, "f16": 0.01, "q8_0": 0.05}
TEXTS = ("The capital of France is", "1, 2, 3,")
FP32 = 4


def adds_bos(file: Path) -> bool:
    """Does the file say that BOS is put before a text? llama.cpp does so for its own kinds of tokenizer by default."""
    reader = GGUFReader(file)
    said = _value(reader, "tokenizer.ggml.add_bos_token")
    return bool(said) if said is not None else _value(reader, "tokenizer.ggml.model") == "llama"


def text_kept(file: Path, chat: ChatText) -> Check:
    """Template, EOS and size of the vocabulary in the file."""
    reader = GGUFReader(file)
    wrong = []
    if _value(reader, "tokenizer.chat_template") != chat.template:
        wrong.append("another chat template")
    if (eos := _value(reader, "tokenizer.ggml.eos_token_id")) != chat.eos_token_id:
        wrong.append(f"EOS is {eos}, not {chat.eos_token_id}")
    field = reader.get_field("tokenizer.ggml.tokens")
    tokens = len(field.data) if field is not None else 0
    if tokens < chat.vocab_size:
        wrong.append(f"{tokens:,} tokens, not {chat.vocab_size:,}")
    return Check(
        name="gguf_text",
        passed=not wrong,
        number="; ".join(wrong) or f"the same template, EOS {chat.eos_token_id}, {tokens:,} tokens",
        limit="as in the model",
        text="Chat template and tokenizer in the GGUF file, against the model's.",
    )


def logits_kept(file: Path, model: Path, chat: ChatText, precision: Precision) -> tuple[Check | None, str]:
    """The file loaded by transformers against the model it was made of, on a few prompts; (None, why) where this
    machine or transformers cannot.
    """
    needed = 2 * FP32 * _numbers(model)
    if needed > psutil.virtual_memory().available:
        return None, f"the logits of the GGUF were not compared: that takes {needed / 1e9:.1f} GB of memory"
    try:
        with quiet_transformers():
            read: Any = AutoModelForCausalLM.from_pretrained(
                str(file.parent),
                gguf_file=file.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
                local_files_only=True,
            )
    except (ValueError, NotImplementedError, KeyError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return None, f"the logits of the GGUF were not compared: transformers does not read it back ({first[:160]})"
    prompts = [list(found.ids) for found in golden(chat)] or [chat.encode(text) for text in TEXTS]
    theirs = final_logits(read.eval(), prompts)
    del read
    ours = final_logits(load_base(model, dtype="fp32"), prompts)
    width = min(ours.shape[1], theirs.shape[1])  # a vocabulary may be padded in one of them
    one, other = log_softmax(ours[:, :width], 1), log_softmax(theirs[:, :width], 1)
    kl = float(kl_div(other, one, log_target=True, reduction="sum")) / len(one)
    same = int((one.argmax(1) == other.argmax(1)).sum())
    return (
        Check(
            name="gguf_logits",
            passed=kl <= MAX_KL[precision],
            number=f"KL {kl:.2g} nats per prompt on average, {same} of {len(one)} likeliest tokens equal",
            limit=f"KL {MAX_KL[precision]:g}",
            text=f"The GGUF file ({precision}), read by transformers, against the model, {len(GOLDEN_CHAT)} prompts.",
        ),
        "",
    )


def _numbers(model: Path) -> int:
    """At most: bytes of the weights over the smallest item."""
    return sum(f.stat().st_size for f in model.glob("*.safetensors")) // _item_bytes(model)


def _item_bytes(model: Path) -> int:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return 4 if str(config.get("dtype") or config.get("torch_dtype")).endswith("float32") else 2


def _value(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()
