"""Each other estimator's answer is the number that its own command prints.

The peers live in a virtualenv of their own: `.venv-peers`, or the interpreter that RANKWISE_PEERS names.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks.memory.case import Case, RefusedError
from benchmarks.memory.peers import lay_out

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("RANKWISE_PEERS", ROOT / ".venv-peers" / "bin" / "python"))
GIB, MIB = 2**30, 2**20
# In ftuneai's own table under this name, so that its command needs no network either.
NAME = "mistralai/Mistral-7B-v0.3"
CONFIG = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "torch_dtype": "bfloat16",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 32768,
    "max_position_embeddings": 32768,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
BASE = {
    "model": NAME,
    "batch": 2,
    "seq_len": 2048,
    "dtype": "bf16",
    "optimizer": "adamw_torch",
    "gradient_checkpointing": True,
    "attn": "flash",
    "parallel": "none",
    "gpus": 1,
}
LORA = {"rank": 16, "targets": "q_proj,k_proj,v_proj,o_proj"}
ROWS: dict[str, dict[str, Any]] = {
    "full": BASE | {"method": "full"},
    "lora": BASE | {"method": "lora"} | LORA,
    "qlora": BASE | {"method": "qlora", "double_quant": True} | LORA,
    "sharded": BASE | {"method": "full", "parallel": "zero3", "gpus": 4},
    "dora": BASE | {"method": "dora"} | LORA,
    "eager": BASE | {"method": "lora", "attn": "eager"} | LORA,
}
needs_peers = pytest.mark.skipif(
    not PYTHON.exists(), reason="no virtualenv of the peers: .venv-peers or RANKWISE_PEERS"
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A hub cache with the model's config, and the folder of that config."""
    root = tmp_path_factory.mktemp("hub")
    return root, lay_out(root, NAME, CONFIG)


@pytest.fixture(scope="module")
def answered() -> dict[str, Any]:
    """Every peer's answer to every row, from the adapters."""
    rows: list[dict[str, Any]] = [
        {"id": key, "options": row, "config": CONFIG, "gpu": "A100-80GB"} for key, row in ROWS.items()
    ]
    unknown: dict[str, Any] = {"id": "unknown", "options": ROWS["full"], "config": None, "gpu": "A100-80GB"}
    said = subprocess.run(
        [PYTHON, "-m", "benchmarks.memory.peers"],
        input=json.dumps([*rows, unknown]),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)  # type: ignore[no-any-return]


def printed(hub: Path, *command: str) -> str:
    """What a peer's own command prints, offline."""
    environment = os.environ | {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    environment.pop("PYTHONPATH", None)
    run = subprocess.run(
        [PYTHON.parent / command[0], *command[1:]], capture_output=True, text=True, env=environment, cwd=hub
    )
    # fitcheck says by its exit code that a run does not fit.
    assert run.returncode in (0, 1), run.stderr
    return run.stdout


def number(pattern: str, text: str) -> float:
    """The first number after a pattern."""
    found = re.search(pattern + r"\D*?([\d.]+)", text, re.DOTALL)
    assert found, text
    return float(found.group(1))


def vramcalc(hub: Path, folder: str) -> tuple[str, float, float]:
    text = printed(
        hub,
        *("vramcalc", folder, "--train", "--lora", "16", "--batch", "2", "--seq", "2048", "--grad-checkpoint"),
        *("--precision", "pure", "--attn", "flash", "--json"),
    )
    return "lora", json.loads(text)["estimate"]["total"], 1


def ftuneai(hub: Path, folder: str) -> tuple[str, float, float]:
    # Its command has no flash attention; the adapter's row has none either.
    text = printed(
        hub,
        *("ftune", "estimate", "--model", NAME, "--method", "lora", "-q", "none", "-b", "2", "-s", "2048", "-r", "16"),
        *("--lora-target", "attention_all", "--output", "json"),
    )
    return "eager", json.loads(text)["memory"]["total_gb"] * GIB, 1


def hf_vram_calc(hub: Path, folder: str) -> tuple[str, float, float]:
    out = hub / "hf-vram-calc.json"
    printed(hub, "hf-vram-calc", "--model", NAME, "--model_path", folder, "--dtype", "bf16", "--output_json", str(out))
    return "full", json.loads(out.read_text())["memory_requirements"][0]["training_gib"] * GIB, 0.005 * GIB


def accelerate(hub: Path, folder: str) -> tuple[str, float, float]:
    # The command asks the hub whether the model exists; only that question is answered here.
    script = (
        "import sys, types, json, accelerate.commands.estimate as e;"
        f"e.verify_on_hub = lambda repo, token=None: types.SimpleNamespace(config={CONFIG!r});"
        f"sys.argv = ['x', {folder!r}, '--library_name', 'transformers', '--dtypes', 'float16']; e.main()"
    )
    text = printed(hub, "python", "-c", script)
    line = next(line for line in text.splitlines() if "float16" in line)
    return "full", float(re.findall(r"([\d.]+) GB", line)[-1]) * GIB, 0.005 * GIB


def llm_analysis(hub: Path, folder: str) -> tuple[str, float, float]:
    out = hub / "llm-analysis"
    printed(
        hub,
        *("python", "-m", "llm_analysis.analysis", "train", "--model_name", folder, "--gpu_name", "mi250x-128gb"),
        *("--batch_size_per_gpu", "2", "--seq_len", "2048", "--activation_recomputation", "2", "--dp_size", "4"),
        *("--ds_zero", "3", "--master_weights_dtype_bytes", "2", "--other_op_bytes", "4"),
        *("--mlp_gated_linear_units", "True", "--output_dir", str(out)),
    )
    summary = json.loads(next(out.glob("*summary.json")).read_text())
    return "sharded", summary["(weight+op_state+grad+act)_memory_per_gpu"], 1


def deepspeed(hub: Path, folder: str) -> tuple[str, float, float]:
    script = (
        "from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs_all_cold as e;"
        "e(total_params=7248023552, largest_layer_params=134217728, num_gpus_per_node=4)"
    )
    text = printed(hub, "python", "-c", script)
    line = next(line for line in text.splitlines() if "offload_param=none, offload_optimizer=none" in line)
    return "sharded", float(re.findall(r"([\d.]+)GB", line)[1]) * GIB, 0.005 * GIB


def fitcheck(hub: Path, folder: str) -> tuple[str, float, float]:
    text = printed(
        hub,
        *("fitcheck", NAME, "--quant", "nf4", "--double-quant", "--lora-r", "16", "--lora-targets", "q,k,v,o"),
        *("--batch-size", "2", "--seq-len", "2048", "--grad-checkpoint", "--flash-attn", "--gpu", "a100-80", "--json"),
    )
    return "qlora", json.loads(text[text.index("{") :])["memory_mib"]["total"] * MIB, 0.005 * MIB


def torch_kitsune(hub: Path, folder: str) -> tuple[str, float, float]:
    text = printed(
        hub,
        *("kitsune", "predict", "--hf", NAME, "--seq-len", "2048", "--batch-size", "2", "--dtype", "bfloat16"),
        *("--optimizer", "adamw", "--format", "json"),
    )
    return "full", json.loads(text[text.index("{") :])["memory"]["total_bytes"], 1


def gpu_estimator(hub: Path, folder: str) -> tuple[str, float, float]:
    text = printed(
        hub,
        *("gpu-estimate", "estimate", "--huggingface-model", NAME, "--batch-size", "2", "--seq-length", "2048"),
        *("--precision", "bf16", "--optimizer", "adamw", "--gradient-checkpointing", "-v"),
    )
    return "full", number("Total Memory:", text) * GIB, 0.005 * GIB


def qmemcalc(hub: Path, folder: str) -> tuple[str, float, float]:
    text = printed(
        hub,
        *("qmemcalc", "--model_name", NAME, "--batch_size", "2", "--seq_len", "2048", "--lora_r", "16"),
        *("--precision", "bf16", "--quantization", "4bit", "--gradient_checkpointing"),
    )
    return "qlora", number("total_MB", text) * 1e6, 1


def soup_cli(hub: Path, folder: str) -> tuple[str, float, float]:
    # Its command prints the figure only on a machine with a GPU; this is the function that the gate calls.
    script = (
        "from soup_cli.utils.gpu import model_size_from_name as size;"
        "from soup_cli.utils.hardware_fit import HardwareFitInput, decide_hardware_fit;"
        f"i = HardwareFitInput(size({NAME!r}), 2048, 2, 'adamw_torch', '4bit', 'qlora', True);"
        "print('peak', decide_hardware_fit(i, available_vram_gb=80).peak_vram_gb)"
    )
    return "qlora", number("peak", printed(hub, "python", "-c", script)) * 1e9, 1


COMMANDS: dict[str, Callable[[Path, str], tuple[str, float, float]]] = {
    "vramcalc": vramcalc,
    "ftuneai": ftuneai,
    "hf-vram-calc": hf_vram_calc,
    "accelerate": accelerate,
    "llm-analysis": llm_analysis,
    "deepspeed": deepspeed,
    "fitcheck-llm": fitcheck,
    "torch-kitsune": torch_kitsune,
    "gpu-estimator": gpu_estimator,
    "qmemcalc": qmemcalc,
    "soup-cli": soup_cli,
}


@needs_peers
@pytest.mark.parametrize("peer", COMMANDS)
def test_a_peer_is_quoted_as_its_own_command_prints(peer: str, answered: dict[str, Any], hub: tuple[Path, str]) -> None:
    row, expected, rounding = COMMANDS[peer](*hub)
    assert answered["predictions"][row][peer] == pytest.approx(expected, abs=rounding)


@needs_peers
def test_what_a_peer_cannot_say_is_null_with_the_reason_counted(answered: dict[str, Any]) -> None:
    assert set(answered["peers"]) == set(COMMANDS)
    for peer, about in answered["peers"].items():
        assert about["version"], peer
        assert about["null"]["no config at hand"] == 1
        said = [answered["predictions"][row][peer] for row in answered["predictions"]]
        assert said.count(None) == sum(about["null"].values()), peer
    assert answered["predictions"]["dora"]["vramcalc"] is None
    assert answered["peers"]["vramcalc"]["null"]["no dora"] == 1
    assert answered["predictions"]["sharded"]["vramcalc"] is None
    assert answered["predictions"]["dora"]["soup-cli"] is not None


@needs_peers
def test_every_peer_is_at_the_pinned_version(answered: dict[str, Any]) -> None:
    lines = [(ROOT / "benchmarks" / "memory" / name).read_text() for name in ("peers.txt", "peers-no-deps.txt")]
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", "\n".join(lines), re.MULTILINE))
    assert {peer: about["version"] for peer, about in answered["peers"].items()} == {
        peer: pinned[peer] for peer in COMMANDS
    }


def case(**options: object) -> Case:
    return Case(BASE | {"method": "lora"} | LORA | options, CONFIG, "A100-80GB", "folder")


def test_names_that_the_model_does_not_have_are_no_targets() -> None:
    assert case(targets="q_proj,v_proj,query_key_value").targets == frozenset({"q_proj", "v_proj"})
    assert case(targets="query_key_value").targets == frozenset({"query_key_value"})
    assert case(targets="all-linear").targets == "all-linear"


@pytest.mark.parametrize("options", [{"parallel": "fsdp"}, {"parallel": "zero1"}, {"offload": "optimizer"}])
def test_sharding_and_offload_are_more_than_one_gpu(options: dict[str, str]) -> None:
    with pytest.raises(RefusedError, match="no sharding"):
        case(**options).on_one_gpu()
    case(parallel="ddp").on_one_gpu()


def test_an_optimizer_that_the_peer_lacks_is_refused() -> None:
    assert case(optimizer="paged_adamw_8bit").of_optimizers({"8bit": "small", "adamw": "adam"}) == "small"
    with pytest.raises(RefusedError, match="no optimizer lion"):
        case(optimizer="lion").of_optimizers({"adamw": "adam"})
