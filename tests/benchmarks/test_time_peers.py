"""Each other estimator's throughput is the one that its own command's hours, or seconds, mean.

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
from benchmarks.memory.case import RefusedError
from benchmarks.memory.peers import lay_out
from benchmarks.time.adapters import FTUNEAI_GPUS, PEERS, Run
from benchmarks.time.peers import predict
from benchmarks.time.rows import Row

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("RANKWISE_PEERS", ROOT / ".venv-peers" / "bin" / "python"))
HOUR = 3600
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
PARAMS = 7_248_023_552
BASE = {
    "model": NAME,
    "batch": 2,
    "seq_len": 2048,
    "grad_accum": 3,
    "dtype": "bf16",
    "optimizer": "adamw_torch",
    "gradient_checkpointing": True,
    "attn": "flash",
    "parallel": "none",
    "gpus": 1,
    "gpu": "a100_80gb",
}
ROWS: dict[str, dict[str, Any]] = {
    "lora": BASE | {"method": "lora", "rank": 16},
    "qlora": BASE | {"method": "qlora", "rank": 16},
    "sharded": BASE | {"method": "full", "parallel": "fsdp", "gpus": 2},
    "nodes": BASE | {"method": "full", "parallel": "fsdp", "gpus": 8, "nodes": 2},
    "ia3": BASE | {"method": "ia3"},
    "unknown gpu": BASE | {"method": "lora", "rank": 16, "gpu": "NVIDIA L40S"},
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
        {"id": key, "options": row, "config": CONFIG, "gpu": row["gpu"], "params": PARAMS} for key, row in ROWS.items()
    ]
    rows.append({"id": "unknown", "options": ROWS["lora"], "config": None, "gpu": "a100_80gb", "params": None})
    said = subprocess.run(
        [PYTHON, "-m", "benchmarks.time.peers"], input=json.dumps(rows), capture_output=True, text=True, cwd=ROOT
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
    assert run.returncode == 0, run.stderr
    return run.stdout


def ftuneai(hub: Path, folder: str) -> tuple[str, float]:
    text = printed(
        hub,
        *("ftune", "estimate", "--model", NAME, "--method", "lora", "-q", "none", "-b", "2", "-s", "2048", "-r", "16"),
        *("-d", "1000000", "-e", "2", "--output", "json"),
    )
    hours = {entry["gpu"]: entry["total_hours"] for entry in json.loads(text)["training_time"]}
    return "lora", 1_000_000 * 2 * 2048 / (hours["A100-80GB"] * HOUR)


def llm_analysis(hub: Path, folder: str, *more: str) -> tuple[str, float]:
    out = hub / f"llm-analysis{len(more)}"
    printed(
        hub,
        *("python", "-m", "llm_analysis.analysis", "train", "--model_name", folder, "--gpu_name", "a100-sxm-80gb"),
        *("--batch_size_per_gpu", "2", "--global_batch_size", "12", "--seq_len", "2048", "--dp_size", "2"),
        *("--activation_recomputation", "2", "--ds_zero", "3", "--total_num_tokens", "1e9"),
        *("--mlp_gated_linear_units", "True", "--output_dir", str(out), *more),
    )
    summary = json.loads(next(out.glob("*summary.json")).read_text())
    # The seconds of a run over a thousand million tokens, not those of a step that the adapter reads.
    return "sharded", 1e9 / summary["total_training_latency"]


def llm_analysis_half(hub: Path, folder: str) -> tuple[str, float]:
    return llm_analysis(hub, folder, "--flops_efficiency", "0.5")


def soup_cli(hub: Path, folder: str) -> tuple[str, float]:
    (hub / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n' * 1000)
    (hub / "soup.yaml").write_text(
        f"base: {NAME}\ntask: sft\n"
        "data: {train: rows.jsonl, format: alpaca, max_length: 2048, val_split: 0.0}\n"
        "training: {epochs: 2, batch_size: 2, quantization: 4bit, lora: {r: 16}}\n"
    )
    entries = json.loads(printed(hub, "soup", "cost", "--json", "--gpu", "A100 80G"))
    return "qlora", 1000 * 2 * 2048 / (entries[0]["duration_hrs"] * HOUR)


def gpu_estimator(hub: Path, folder: str) -> tuple[str, float]:
    text = printed(
        hub,
        *("gpu-estimate", "estimate", "--model-params", str(PARAMS), "--batch-size", "2", "--seq-length", "2048"),
        *("--precision", "bf16", "--optimizer", "adamw", "--gradient-checkpointing", "--gpu-type", "A100"),
        *("--dataset-size", "10000000", "--epochs", "2"),
    )
    assert "Number of GPUs Needed: 2" in text
    hours = re.search(r"\(([\d.]+) hours\)", text)
    assert hours, text
    return "sharded", 10_000_000 * 2 * 2048 / (float(hours.group(1)) * HOUR)


COMMANDS: dict[str, Callable[[Path, str], tuple[str, float]]] = {
    "ftuneai": ftuneai,
    "llm-analysis": llm_analysis,
    "llm-analysis at 0.5": llm_analysis_half,
    "soup-cli": soup_cli,
    "gpu-estimator": gpu_estimator,
}


@needs_peers
@pytest.mark.parametrize("peer", COMMANDS)
def test_a_peer_is_quoted_as_its_own_command_prints(peer: str, answered: dict[str, Any], hub: tuple[Path, str]) -> None:
    row, expected = COMMANDS[peer](*hub)
    # Hours are printed to 0.01 or 0.1 of thousands; llm-analysis leaves the last step out.
    assert answered["predictions"][row][peer] == pytest.approx(expected, rel=1e-4)


@needs_peers
def test_what_a_peer_cannot_say_is_null_with_the_reason_counted(answered: dict[str, Any]) -> None:
    assert set(answered["peers"]) == set(COMMANDS) == set(PEERS)
    for peer, about in answered["peers"].items():
        assert about["version"], peer
        assert about["null"]["no config at hand"] == 1
        assert about["null"]["no ia3"] == 1
        said = [answered["predictions"][row][peer] for row in answered["predictions"]]
        assert said.count(None) == sum(about["null"].values()), peer
    assert answered["peers"]["ftuneai"]["null"]["no second node"] == 1
    assert answered["peers"]["ftuneai"]["null"]["no NVIDIA L40S"] == 1
    assert answered["peers"]["gpu-estimator"]["null"]["speaks of another number of GPUs"] == 1
    assert answered["predictions"]["nodes"]["llm-analysis"] == pytest.approx(
        8 * answered["predictions"]["sharded"]["llm-analysis"]
    )


@needs_peers
def test_rows_of_the_bench_reach_the_peers() -> None:
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12}
    config |= {"n_positions": 2048, "vocab_size": 50368}
    options = BASE | {"model": "mosaicml MPT 125m", "method": "full", "parallel": "fsdp", "gpus": 8, "config": config}
    unmapped = Row("b", "source", "A", None, None, "compiled", "")
    said = predict([Row("a", "source", "A", 1e6, options, None, ""), unmapped], PYTHON)
    assert set(said["answers"]) == set(said["versions"]) == set(said["claims"]) == set(said["refused"]) == set(COMMANDS)
    for answers in said["answers"].values():
        assert set(answers) == {"a"}
    # 24 b s L h^2 (1 + s / 6h + V / 12 L h) forward, twice that backward, and once more recomputed, at 312 TFLOP/s.
    flops = 4 * 24 * 12 * 768**2 * (1 + 2048 / (6 * 768) + 50368 / (12 * 12 * 768))
    assert said["answers"]["llm-analysis"]["a"] == pytest.approx(8 * 312e12 / flops, rel=1e-3)
    assert said["answers"]["ftuneai"]["a"] is not None
    assert said["refused"]["soup-cli"] == {"no sharding or offload": 1}


def test_without_the_peers_there_are_no_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict([], tmp_path / "python") == {}
    assert "is missing" in capsys.readouterr().err


def run(**options: object) -> Run:
    return Run(BASE | {"method": "full"} | options, CONFIG, str(options.get("gpu", "a100_40gb")), "folder", PARAMS)


def test_a_run_counts_the_gpus_of_all_nodes_and_the_tokens_that_rows_have() -> None:
    assert (run(gpus=8, nodes=4).devices, run().devices) == (32, 1)
    assert (run().length, run(tokens_per_example=210).length) == (2048, 210)


def test_a_gpu_that_the_peer_does_not_list_is_refused() -> None:
    assert run().gpu_of(FTUNEAI_GPUS) == "A100-40GB"
    assert run(gpu="A100-SXM4-80GB").gpu_of(FTUNEAI_GPUS) == "A100-80GB"
    with pytest.raises(RefusedError, match="no RTX 6000 Ada"):
        run(gpu="RTX 6000 Ada 48GB").gpu_of(FTUNEAI_GPUS)


def test_offload_is_refused() -> None:
    with pytest.raises(RefusedError, match="no offload"):
        run(offload="all").no_offload()
