"""The setting columns of a published measurement as options of `rankwise estimate`.

A key is left out where the row does not state it, so that the command's stated default holds.

Method     the command's names; `llama-adapter` is PEFT's adaption_prompt, "(olora init)" and the like are LoRA. Methods
           without a name (LISA, BAdam, adapter v2, embeddings trained beside LoRA) are refused.
Length     a whole number. A cap ("truncated to", "cap;", "max length") is the length: the longest batch sets the peak,
           and over a run some batch reaches the cap. Rows called short are refused: nothing says how long they were.
Dtype      bfloat16, float16, float32. "by GPU" is bf16 from Ampere on, else fp16. "float32 master" is `amp`.
Autocast   the Trainer's bf16 or fp16 flag, or autocast on, is `autocast` over 16-bit weights and `amp` over fp32 ones.
           "fp16 compute" is bitsandbytes' compute dtype, not autocast.
K-bit      fms-acceleration's own GPTQ path (accelerated-peft) prepares nothing. QLoRA:
           no upcast where the row says so, where the loop is not HF's (litgpt, torchtune, fsdp_qlora, Unsloth),
           and where the model is sharded: TRL skips `prepare_model_for_kbit_training` for sharded QLoRA. Upcast where
           the row says so. Otherwise not stated.
Double     "no double quant" and litgpt's `bnb.nf4` (its other name is `bnb.nf4-dq`) are off; "-dq" and "double quant"
           are on.
Optimizer  HF `optim` names; "torch AdamW" is adamw_torch; bitsandbytes' PagedAdamW is paged_adamw_32bit. "HF default"
           is adamw_torch_fused from transformers 4.54 with torch 2.8 on, adamw_torch before.
Attention  any flash kernel -> flash; sdpa* -> sdpa; eager. "a/b" takes the first. Empty: not stated.
Loss       `fused_or_chunked_ce`: Liger, cut cross-entropy, Unsloth's -> fused-linear; a fast kernel on materialised
           logits -> fast-ce; head or loss in chunks -> chunked. "off" is the model's own loss, which depends on the
           transformers version and the model class (`LOSS_ERAS`).
Stack      the software that ran: litgpt, or transformers by its version: to 4.45, 4.46 to 4.48, later ("today"). Empty:
           not stated, and the command takes the stack that the loss is usually met with.
Checkpoint "on", "full", "recompute full" -> true; "off" -> false. Selective, offloaded and unstated are refused.
Targets    names joined by commas, "(a|b)_proj" written out. litgpt's query and value rows of a fused matrix are LoRA on
           q_proj and v_proj (query_key_value in GPT-NeoX: the same parameter count). The Qwen-1 names c_attn, c_proj,
           w1 and w2 stand beside their Qwen2 names, because transformers has no Qwen-1 class.
Prompt     prompt_length follows from `trainable_params`, which prefix and adaption-prompt rows state.
"""

import re
from collections.abc import Mapping
from typing import Any


class NotMappedError(Exception):
    """The row's settings cannot be said as options; the message is the reason."""


# What the loss of `labels=` kept, by model class and first transformers version, read in the wheels of 4.30 to 4.52.
# upcast-logits: `logits.float()` and a contiguous shifted copy. shifted-logits: the copy alone. full-logits: the upcast
# without the copy, as ForCausalLMLoss pads the labels instead since 4.49.
LOSS_ERAS: dict[str, list[tuple[tuple[int, int], str]]] = {
    # in the class to 4.45 (Mistral and Granite to 4.47), then in ForCausalLMLoss, where the caller's 16-bit logits live
    "llama": [((4, 0), "shifted-logits"), ((4, 31), "upcast-logits"), ((4, 49), "full-logits")],
    # GPT-BigCode, GPT-NeoX, StableLM, Falcon, BLOOM, MPT, OPT: the shifted copy without an upcast, to 4.48.1
    "older": [((4, 0), "shifted-logits"), ((4, 49), "full-logits")],
    # Qwen-1 is code from the hub: the shifted copy without an upcast, in every version
    "qwen1": [((0, 0), "shifted-logits")],
}
# Rows that say "off" but no version are publications of 2023 and 2024 (Qwen, fsdp_qlora, Liger's charts).
VERSION_OF_UNDATED = (4, 40)
QWEN1 = re.compile(r"(^|/)qwen-(1_8b|7b|14b|72b)", re.IGNORECASE)
OLDER = re.compile(
    r"starcoder(?!2)|santacoder|bigcode|pythia|neox|redpajama|stablelm|falcon|bloom|mpt|opt-", re.IGNORECASE
)
LATE = re.compile(r"mistral|granite|powerlm", re.IGNORECASE)


def read_options(cells: Mapping[str, str], note: list[str]) -> dict[str, Any]:
    """The options of `rankwise estimate` that describe the row's run. Raises NotMappedError."""
    options: dict[str, Any] = {"model": cells["model_id"], "method": read_method(cells, note)}
    for fill in (
        fill_batch,
        fill_precision,
        fill_adapter,
        fill_quantization,
        fill_optimizer,
        fill_activations,
        fill_loss,
        fill_stack,
        fill_devices,
    ):
        fill(cells, options, note)
    return options


METHODS = {
    "lora + neftune": "lora",
    "lora (olora init)": "lora",
    "lora (pissa init)": "lora",
    "lora (unsloth)": "lora",
    "qlora (unsloth)": "qlora",
    "full (pre-training loop)": "full",
    "llama-adapter": "adaption_prompt",
    "prefix_tuning": "prefix",
    "prompt_tuning": "prompt",
    "p-tuning": "p_tuning",
    "bone": "miss",
}
NAMED = frozenset(
    re.findall(
        r"[\w-]+",
        """
    full lora qlora gptq-lora dora rslora ia3 prompt prefix bottleneck adaption_prompt p_tuning miss adalora
    adamss boft c3a deft delora fourierft glora gralora hira hra ln_tuning loha lokr oft poly psoft pvera
    randlora road shira tinylora trainable_tokens unilora vblora vera waveft xlora
""",
    )
)


def read_method(cells: Mapping[str, str], note: list[str]) -> str:
    """The method's name on the command line."""
    method = METHODS.get(cells["method"], cells["method"])
    if method not in NAMED:
        raise NotMappedError(f"method not on the command line: {cells['method'] or 'not stated'}")
    if method != cells["method"] and "(" not in cells["method"]:
        note.append(f"{cells['method']} read as {method}")
    if method in ("qlora", "gptq-lora") and re.search(r"int8|8-?bit", f"{cells['quantization']} {cells['row_label']}"):
        raise NotMappedError("8-bit base")
    if method == "lora" and cells["quantization"]:
        raise NotMappedError(f"LoRA on a base quantized with {cells['quantization']}")
    if method == "full" and cells["quantization"] not in ("", "bf16"):
        raise NotMappedError("low-precision training (float8, int8, mxfp8)")
    return method


def whole(cells: Mapping[str, str], key: str, words: str, note: list[str] | None = None) -> int:
    """A cell that must be a whole number; with `note`, a remark in brackets may follow it and is noted."""
    text = cells[key].strip()
    if not text:
        raise NotMappedError(f"{words} not stated")
    found = re.fullmatch(r"(\d+)(?:\.0)?(?: \((.+)\))?", text)
    if not found or int(found.group(1)) < 1 or (found.group(2) and note is None):
        raise NotMappedError(f"{words} not one number")
    if found.group(2) and note is not None:
        note.append(f"{words}: {found.group(2)}")
    return int(found.group(1))


def fill_batch(cells: Mapping[str, str], options: dict[str, Any], note: list[str]) -> None:
    """batch, seq_len, grad_accum."""
    options["batch"] = whole(cells, "micro_batch_size", "batch", note)
    layout = cells["seq_layout"].lower()
    if "short" in layout:
        raise NotMappedError("sequence length unknown: rows shorter than the cap")
    options["seq_len"] = whole(cells, "seq_len", "sequence length", note)
    if re.search(r"cap;|max length|truncated", layout):
        note.append("the cap is read as the length")
    if cells["grad_accum"]:
        options["grad_accum"] = whole(cells, "grad_accum", "accumulation")


def fill_precision(cells: Mapping[str, str], options: dict[str, Any], note: list[str]) -> None:
    """dtype, amp, autocast."""
    base = cells["base_dtype"].lower()
    old_gpu = re.search(r"\b(T4|V100|P100|2080)\b", cells["gpu_type"], re.IGNORECASE)
    if "by gpu" in base:
        options["dtype"] = "fp16" if old_gpu else "bf16"
    elif base.startswith("float32 master"):
        options["dtype"], options["amp"] = "bf16", True
    elif "/fp16 mixed" in base or not base:
        raise NotMappedError("dtype not stated")
    elif found := re.search(r"bfloat16|bf16|float16|float32", base):
        options["dtype"] = {"bfloat16": "bf16", "bf16": "bf16", "float16": "fp16", "float32": "fp32"}[found.group(0)]
    else:
        raise NotMappedError(f"dtype not known: {base}")
    # "fp16 compute" is bitsandbytes' compute dtype, not autocast
    found = re.fullmatch(r"(bf16|fp16)( amp| \(trainer flag\))?", cells["autocast"].lower())
    if found and options["dtype"] == "fp32":
        options["dtype"], options["amp"] = found.group(1), True
    elif found and "amp" not in options:
        options["autocast"] = found.group(1)


PARTS = re.compile(r"\(([a-z_|]+)\)_proj")
QWEN1_NAMES = {"c_attn": "q_proj,k_proj,v_proj", "attn.c_proj": "o_proj", "w1": "up_proj", "w2": "gate_proj"}
FUSED_NAMES = {
    "query|value rows of fused attn": "q_proj,v_proj,query_key_value",
    "query|value": "q_proj,v_proj,query_key_value",
    "query|key|value|projection|mlp|head": "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj,query_key_value,"
    "dense,dense_h_to_4h,dense_4h_to_h,fc1,fc2,lm_head,embed_out",
    "DEFAULT (attention qkv of the family)": "q_proj,k_proj,v_proj,c_attn,query_key_value,W_pack",
    "DEFAULT (c_attn)": "q_proj,k_proj,v_proj,c_attn",
}
ALL_LINEAR = frozenset({"all-linear", "all linear", "ALL", "ALL (all linear)", "linear layers", "all attn + mlp"})
PROMPTED = frozenset({"prefix", "adaption_prompt"})


def read_targets(text: str) -> str | None:
    """`--targets` for the table's words; None where the row leaves them to the method's default."""
    if not text or text in ("DEFAULT", "PEFT default", "self_attn"):
        return None
    if text in ALL_LINEAR:
        return "all-linear"
    if text in FUSED_NAMES:
        return FUSED_NAMES[text]
    if "linear_attn" in text or "shared_expert" in text:
        raise NotMappedError("targets of a hybrid model, cut off in the table")
    if found := PARTS.findall(text):
        return ",".join(f"{part}_proj" for part in found[-1].split("|"))
    names = [name.strip(" '") for name in text.split("|") if name.strip(" '")]
    if {"c_attn", "w1"} <= set(names):
        names = [*names, *(new for old in names for new in QWEN1_NAMES[old].split(","))]
    return ",".join(names)


def fill_adapter(cells: Mapping[str, str], options: dict[str, Any], note: list[str]) -> None:
    """rank, alpha, dropout, targets, adapter_dtype, prompt_length."""
    if options["method"] == "full":
        return
    for column, key in (("lora_rank", "rank"), ("lora_alpha", "alpha")):
        if cells[column]:
            options[key] = whole(cells, column, key)
    if cells["lora_dropout"]:
        options["dropout"] = float(cells["lora_dropout"])
    if (targets := read_targets(cells["target_modules"])) is not None:
        options["targets"] = targets
    if found := re.match(r"bfloat16|float16|float32", cells["adapter_dtype"]):
        options["adapter_dtype"] = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}[found.group(0)]
    if options["method"] in PROMPTED:
        options["prompt_length"] = read_prompt_length(cells, options["method"])
    elif "rank" not in options and "lora" in options["method"]:
        raise NotMappedError("rank not stated")
    if cells["method"] == "miss" or "bdlora" in cells["row_label"] or cells["method"] == "glora":
        note.append("a variant of the method that options cannot tell")


# (hidden size, key and value width, layers, heads) of the models in prefix and adaption-prompt rows.
SHAPES = {
    "meta-llama/Llama-3.2-3B": (3072, 1024, 28, 24),
    "meta-llama/Llama-2-7b-hf": (4096, 4096, 32, 32),
    "stabilityai/stablelm-base-alpha-3b": (4096, 4096, 16, 32),
}


def read_prompt_length(cells: Mapping[str, str], method: str) -> int:
    """Virtual tokens, from the number of trained parameters: it divides evenly for one number of layers only."""
    shape = SHAPES.get(cells["model_id"])
    if shape is None or not cells["trainable_params"]:
        raise NotMappedError("prompt length not stated")
    hidden, width, layers, heads = shape
    trained = int(cells["trainable_params"])
    if method == "prefix":
        sizes = [(2 * layers * width, 0)]
    else:  # a prompt per layer and a gate per layer (PEFT) or per head (litgpt), on all or all but two layers
        sizes = [(n * hidden, n * gates) for n in (layers, layers - 2) for gates in (1, heads)]
    for size, gates in sizes:
        if trained > gates and (trained - gates) % size == 0:
            return (trained - gates) // size
    raise NotMappedError("prompt length does not follow from the trained parameters")


HOMEMADE_LOOPS = re.compile(r"litgpt|torchtune|fsdp_qlora|unsloth", re.IGNORECASE)


def fill_quantization(cells: Mapping[str, str], options: dict[str, Any], note: list[str]) -> None:
    """double_quant, kbit_upcast."""
    if options["method"] == "gptq-lora" and "accelerated-peft" in cells["row_label"]:
        options["kbit_upcast"] = False
    if options["method"] != "qlora":
        return
    text = cells["quantization"].lower()
    if "no double" in text or text == "bnb.nf4":
        options["double_quant"] = False
    elif "double" in text or text.endswith("-dq"):
        options["double_quant"] = True
    says_upcast = "float32 for non-quantized" in cells["base_dtype"] or "prepare_model_for_kbit" in cells["notes"]
    sharded = re.search(r"FSDP|ZeRO-?3", cells["parallelism"], re.IGNORECASE)
    if "no fp32 upcast" in cells["notes"] or HOMEMADE_LOOPS.search(cells["source_repo"]):
        options["kbit_upcast"] = False
    elif sharded:
        options["kbit_upcast"] = False
        note.append("sharded QLoRA: TRL skips the k-bit preparation")
    elif says_upcast:
        options["kbit_upcast"] = True


HF_OPTIM = re.compile(
    r"adamw_torch_fused|adamw_torch_8bit|adamw_torch_4bit|adamw_torch|paged_adamw_8bit|paged_adamw_32bit|paged_adamw|"
    r"adamw_8bit|adamw_bnb_8bit|adafactor|lion_8bit|lion|sgd"
)
OPTIMIZERS: list[tuple[str, str]] = [
    (r"pagedadamw8bit", "paged_adamw_8bit"),
    (r"pagedadamw", "paged_adamw_32bit"),
    (r"bnb adamw 8-bit", "adamw_bnb_8bit"),
    (r"torchao adamw 8-bit", "adamw_torch_8bit"),
    (r"torchao adamw 4-bit", "adamw_torch_4bit"),
    (r"adamw fused", "adamw_torch_fused"),
    (r"adamw", "adamw_torch"),
]


def fill_optimizer(cells: Mapping[str, str], options: dict[str, Any], note: list[str]) -> None:
    """optimizer, optimizer_in_backward."""
    text = cells["optimizer"].lower()
    if "optimizer-in-backward" in text:
        options["optimizer_in_backward"] = True
    if "foreach=false" in text:
        raise NotMappedError("AdamW without foreach")
    if "muon" in text or "galore" in text or "unclear" in text or "decoupled" in text:
        raise NotMappedError(f"optimizer: {cells['optimizer']}")
    if found := HF_OPTIM.search(text):
        options["optimizer"] = found.group(0)
        return
    if text in ("hf default", "trainer default"):
        fused = (version(cells) or (0, 0)) >= (4, 54) and (version(cells, "torch") or (0, 0)) >= (2, 8)
        options["optimizer"] = "adamw_torch_fused" if fused else "adamw_torch"
        return
    for pattern, name in OPTIMIZERS:
        if re.search(pattern, text):
            options["optimizer"] = name
            return
    if options["method"] == "full":
        raise NotMappedError("optimizer not stated")
    note.append("optimizer not stated")


def fill_activations(cells: Mapping[str, str], options: dict[str, Any], note: list[str]) -> None:
    """gradient_checkpointing, attn."""
    text = cells["grad_ckpt"].lower()
    if "offload" in text or "unsloth" in text:
        raise NotMappedError("checkpoints offloaded to the CPU")
    if "selective" in text:
        raise NotMappedError("selective checkpointing")
    if re.match(r"on\b|full|recompute full|true|standard", text):
        options["gradient_checkpointing"] = True
    elif text in ("off", "false"):
        options["gradient_checkpointing"] = False
    else:
        raise NotMappedError("checkpointing not stated")
    kernel = cells["attn_impl"].lower().removeprefix("kernels-community/").split("/")[0]
    found = re.search(r"flash|sdpa|eager", kernel)
    if found:
        options["attn"] = found.group(0)
    elif kernel:
        raise NotMappedError(f"attention kernel: {cells['attn_impl']}")


LOSSES: list[tuple[str, str]] = [
    (r"fast ce kernel|logits materialised|ce fusion|fused ce loss kernel", "fast-ce"),
    (r"chunked", "chunked"),
    (r"liger|cut cross|cutcrossentropy|\bcce\b|unsloth", "fused-linear"),
]


def fill_loss(cells: Mapping[str, str], options: dict[str, Any], note: list[str]) -> None:
    """loss: the stated kernel, else what the model class of that transformers version kept."""
    text = cells["fused_or_chunked_ce"].lower()
    for pattern, name in LOSSES:
        if re.search(pattern, text):
            options["loss"] = name
            if name == "fast-ce" and frees_logits(cells):
                note.append(FREED)
            return
    if text.startswith("off") or version(cells) or (not text and QWEN1.search(cells["model_id"])):
        options["loss"] = plain_loss(cells, note)
    else:
        note.append("loss not stated")


def plain_loss(cells: Mapping[str, str], note: list[str]) -> str:
    """The loss of `labels=` in that model class at that version of transformers."""
    model = cells["model_id"]
    name = "qwen1" if QWEN1.search(model) else "older" if OLDER.search(model) else "llama"
    at = version(cells)
    if at is None:
        note.append("transformers version not stated: the loss of 2023 and 2024")
        at = VERSION_OF_UNDATED
    elif frees_logits(cells):
        note.append(FREED)
    return [kept for first, kept in LOSS_ERAS[name] if at >= first][-1]


FREED = "the model class frees its 16-bit logits before the loss: 2 B per token and vocabulary entry less than later"


def frees_logits(cells: Mapping[str, str]) -> bool:
    """Whether `logits = logits.float()` stood in the class, so that nothing held the 16-bit logits during the loss."""
    at = version(cells)
    older = OLDER.search(cells["model_id"]) or QWEN1.search(cells["model_id"])
    return at is not None and not older and (4, 31) <= at <= ((4, 47) if LATE.search(cells["model_id"]) else (4, 45))


def version(cells: Mapping[str, str], package: str = "transformers") -> tuple[int, int] | None:
    """(major, minor) of a package in the software column; None where it is not stated."""
    found = re.search(rf"\b{package} (\d+)\.(\d+)", cells["software"])
    return (int(found.group(1)), int(found.group(2))) if found else None


def fill_stack(cells: Mapping[str, str], options: dict[str, Any], note: list[str]) -> None:
    """stack: litgpt, or what the version of transformers says."""
    at = version(cells)
    if at is not None:
        options["stack"] = "4.45" if at < (4, 46) else "4.48" if at < (4, 49) else "today"
    elif "litgpt" in cells["software"]:
        options["stack"] = "litgpt"


NO_GPU = "GPU not stated: an A100"
PARALLEL: list[tuple[str, str]] = [
    (r"^single$", "none"),
    (r"^ddp", "ddp"),
    (r"zero-?1$", "zero1"),
    (r"zero-?2", "zero2"),
    (r"zero-?3", "zero3"),
    (r"^fsdp[12]?( full_shard| zero-3)?($| \+ cpu offload| \()|^fsdp per script", "fsdp"),
]


def fill_devices(cells: Mapping[str, str], options: dict[str, Any], note: list[str]) -> None:
    """parallel, offload, gpus, gpu."""
    text = cells["parallelism"].lower()
    gpus = whole(cells, "num_gpus", "number of GPUs") if cells["num_gpus"] else 1
    if re.search(r"expert parallel|\b[tpes]p ?\d|sequence.parallel (?!1\b)\d|device_map|gemini", text):
        raise NotMappedError(f"parallelism: {cells['parallelism'].split('(')[0].strip()}")
    if not text and gpus == 1:
        text = "single"
    name = next((name for pattern, name in PARALLEL if re.search(pattern, text)), None)
    if name is None:
        raise NotMappedError(f"parallelism: {cells['parallelism'] or 'not stated'}")
    if name != "none" and gpus == 1:
        raise NotMappedError("number of GPUs not stated")
    options["parallel"], options["gpus"] = name, gpus
    if "cpu" in text or "offload" in text:
        options["offload"] = "all" if name == "fsdp" or "param" in text else "optimizer"
    if cells["gpu_type"] and not re.search(r"not stated|class", cells["gpu_type"]):
        options["gpu"] = cells["gpu_type"]
    else:
        options["gpu"] = "A100-80GB"
        note.append(NO_GPU)
