"""Bytes on disk: against files that the real optimizers and writers make, and against the field's figures."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributed import destroy_process_group, init_process_group
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import LlamaConfig, LlamaForCausalLM, get_scheduler
from transformers.optimization import Adafactor

from rankwise.estimate.storage import (
    SMALL_FILES,
    checkpoint,
    estimate_storage,
    retention,
    state_width,
    trained_width,
)
from rankwise.methods import AdapterOptions
from rankwise.model.adapterfile import adapter_file_bytes
from rankwise.model.attach import trainable_params, wrap
from rankwise.records import CostOptions, Setup, StorageEstimate
from rankwise.store import Run
from rankwise.train.checkpoints import Checkpoints
from tests.tiny import tiny_config
from tests.train.test_checkpoints import alone

TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
CONFIG = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
# torch.save takes an entry of a zip file for each tensor, safetensors a few words of JSON; a checkpoint has the states
# of torch's, numpy's and Python's random generators and the files of the schedule.
PER_TENSOR, PER_CHECKPOINT = 600, 40_000
PER_DISTRIBUTED_TENSOR = 2_500  # a file of torch.save of its own, inside a larger one


def setup(method: str = "full", **changes: Any) -> Setup:
    content: dict[str, Any] = {
        "config": {"model_type": "llama", **CONFIG},
        "method": method,
        "r": None if method == "full" else 8,
        "target_modules": None if method == "full" else "all-linear",
        "dtype": "bf16",
        "per_device_train_batch_size": 1,
        "max_length": 64,
        "device": "gpu-8.0",
    }
    return Setup.model_validate(content | changes)


def estimated(asked: Setup, trainable: int, **changes: Any) -> StorageEstimate:
    content: dict[str, Any] = {
        "stored_bytes": 2 * trainable,
        "adapter_file_bytes": None,
        "optimizer_bytes": 0,
        "mergeable": True,
        "max_steps": 100,
        "options": CostOptions(),
        "usd_per_gb_month": None,
    }
    return estimate_storage(asked, trainable=trainable, **(content | changes))


# -- what the real writers write ------------------------------------------------------------------


def model(method: str, dtype: str) -> Any:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        base = LlamaForCausalLM(LlamaConfig(**CONFIG)).to(TYPES[dtype])
    if method == "full":
        return base
    return wrap(base, method, AdapterOptions(r=8, lora_alpha=16, target_modules="all-linear"), seed=0).model


def stepped(trained: Any, kind: Any, **options: Any) -> Any:
    """The optimizer after one real step."""
    optimizer = kind([p for p in trained.parameters() if p.requires_grad], lr=1e-4, **options)
    ids = torch.arange(3, 19).unsqueeze(0)
    trained(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    return optimizer


def written(trained: Any, optimizer: Any, tmp_path: Path) -> int:
    """Bytes of the checkpoint that `rankwise train` makes of them."""
    writer = Checkpoints(Run(tmp_path), tiny_config(), 0)
    *_, saved = writer.save(1, alone(trained, optimizer), get_scheduler("constant", optimizer, 0, 2), {1: 1.0}, 4)
    return int(saved.bytes)


def allowance(trained: Any, states: int = 3) -> int:
    """For headers and entries: AdamW's step counts are tensors too."""
    tensors = sum(1 for p in trained.parameters() if p.requires_grad)
    return PER_CHECKPOINT + PER_TENSOR * (1 + states) * tensors


TORCH = {"adamw_torch": torch.optim.AdamW, "sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}
BITSANDBYTES = {
    "adamw_8bit": bnb.optim.AdamW8bit,
    "lion_8bit": bnb.optim.Lion8bit,
    "paged_adamw": bnb.optim.PagedAdamW,
}


@pytest.mark.parametrize("optim", TORCH)
@pytest.mark.parametrize(("method", "dtype"), [("full", "fp32"), ("full", "bf16"), ("lora", "bf16"), ("dora", "fp32")])
def test_a_checkpoint_of_rankwise_train_has_the_predicted_bytes(
    method: str, dtype: str, optim: str, tmp_path: Path
) -> None:
    trained = model(method, dtype)
    size = written(trained, stepped(trained, TORCH[optim]), tmp_path)
    file = None if method == "full" else adapter_file_bytes(trained)
    predicted = checkpoint(setup(method, dtype=dtype, optim=optim), trainable_params(trained), file, 0).resumable
    assert 0 < size - predicted < allowance(trained)
    name = "model.safetensors" if file is None else "adapter_model.safetensors"
    weights = checkpoint(setup(method, dtype=dtype, optim=optim), trainable_params(trained), file, 0).weights
    found = (tmp_path / "checkpoints" / "checkpoint-1" / name).stat().st_size
    assert found == weights if file else 0 < found - weights < allowance(trained, 0)


@pytest.mark.parametrize("optim", BITSANDBYTES)
def test_bitsandbytes_states_have_the_predicted_bytes(optim: str, tmp_path: Path) -> None:
    trained = model("full", "bf16")
    optimizer = stepped(trained, BITSANDBYTES[optim])
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    size = (tmp_path / "optimizer.pt").stat().st_size
    predicted = checkpoint(setup(optim=optim), trainable_params(trained), None, 0).optimizer
    small = 8 * sum(p.numel() for p in trained.parameters() if p.numel() < 4096)  # stay fp32
    assert 0 < size - predicted < small + allowance(trained, 5)
    assert allowance(trained, 5) < predicted


def test_adafactor_is_counted_by_its_trace(tmp_path: Path) -> None:
    trained = model("full", "fp32")
    optimizer = stepped(trained, Adafactor, scale_parameter=False, relative_step=False)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    states = sum(v.numel() * 4 for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor))
    found = checkpoint(setup(optim="adafactor", dtype="fp32"), trainable_params(trained), None, states).optimizer
    assert found == states and 0 < (tmp_path / "optimizer.pt").stat().st_size - found < allowance(trained)
    assert state_width("adafactor", 4) is None


def test_a_checkpoint_of_fsdp_has_the_predicted_bytes(tmp_path: Path) -> None:
    """torch's own fully_shard with mixed precision, on one rank; distributed checkpoints as accelerate writes them."""
    init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        whole: nn.Module = model("full", "fp32")
        fully_shard(whole, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
        optimizer = stepped(whole, torch.optim.AdamW)
        weights, states = get_state_dict(whole, optimizer)
        save_distributed({"model": weights, "optimizer": states}, checkpoint_id=tmp_path / "saved")
    finally:
        destroy_process_group()
    size = sum(f.stat().st_size for f in (tmp_path / "saved").iterdir())
    asked = setup(dtype="fp32", autocast="bf16", parallel="fsdp", world_size=2)
    predicted = checkpoint(asked, trainable_params(whole), None, 0)
    assert predicted.resumable == 12 * trainable_params(whole)
    tensors = 4 * len(list(whole.parameters()))  # the weight, two states and a step count
    assert 0 < size - predicted.resumable < PER_CHECKPOINT + PER_DISTRIBUTED_TENSOR * tensors


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
@pytest.mark.parametrize(("stage", "dtype"), [(1, "bf16"), (2, "bf16"), (3, "bf16"), (2, "fp32")])
def test_a_checkpoint_of_deepspeed_has_the_predicted_bytes(stage: int, dtype: str, tmp_path: Path) -> None:
    """Stage 3 leaves the 16-bit weights to be gathered by the trainer, which writes them beside the checkpoint."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    command = [sys.executable, "-m", "tests.estimate.zero_checkpoint", str(stage), dtype, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    params = json.loads(done.stdout.strip().splitlines()[-1])["params"]
    autocast = "bf16" if dtype == "bf16" else None
    asked = setup(dtype=dtype, autocast=autocast, parallel=f"zero{stage}", world_size=2)
    predicted = checkpoint(asked, params, None, 0)
    expected = predicted.optimizer if stage == 3 else predicted.resumable
    assert expected == params * {(1, "bf16"): 14, (2, "bf16"): 14, (3, "bf16"): 12, (2, "fp32"): 16}[stage, dtype]
    assert 0 < sum(f.stat().st_size for f in (tmp_path / "saved").rglob("*.pt")) - expected < PER_CHECKPOINT


# -- the field's figures (7B is 7e9 parameters in them) -------------------------------------------

S3 = 0.023  # USD per GB and month, as the lesson has it


def test_a_resumable_7b_checkpoint_is_98_gb_by_deepspeed_and_not_14() -> None:
    one = estimated(setup(parallel="zero3", autocast="bf16", world_size=8), 7_000_000_000)
    assert (one.checkpoint_bytes, one.weights_only_bytes) == (98_000_000_000, 14_000_000_000)
    assert round(20 * one.checkpoint_bytes / 1e9 * S3) == 45
    assert round(20 * (one.weights_only_bytes or 0) / 1e9 * S3, 2) == 6.44  # what the lesson counted


def test_a_resumable_7b_checkpoint_is_84_gb_with_fp32_weights_and_42_in_bf16() -> None:
    amp = setup(dtype="fp32", autocast="bf16")
    assert estimated(amp, 7_000_000_000).checkpoint_bytes == 84_000_000_000
    assert estimated(setup(), 7_000_000_000).checkpoint_bytes == 42_000_000_000
    assert estimated(setup(optim="adamw_8bit"), 7_000_000_000).checkpoint_bytes == 28_218_750_000


def test_20_resumable_checkpoints_of_a_7b_model_are_1_96_tb_if_none_goes() -> None:
    options = CostOptions(save_steps=500, keep_best=0, keep_last=20)
    run = estimated(
        setup(parallel="zero2", autocast="bf16", world_size=8),
        7_000_000_000,
        stored_bytes=14_000_000_000,
        max_steps=10_000,
        options=options,
        usd_per_gb_month=S3,
    )
    assert (run.checkpoints, run.kept) == (20, 20)
    assert (run.unpruned_bytes or 0) - 14_000_000_000 - 21 * SMALL_FILES == 1_960_000_000_000
    assert run.usd_per_month == pytest.approx((1960 + 14) * S3, rel=1e-4)


@pytest.mark.parametrize(("batch", "saved"), [(16, 125), (32, 62), (64, 31), (128, 15)])
def test_the_lessons_20_checkpoints_depend_on_the_batch(batch: int, saved: int) -> None:
    """10 epochs of 100,000 rows, every 500 steps: whole intervals; the last step is saved as well."""
    steps = -(-10 * 100_000 // batch)
    found = retention(steps, CostOptions(save_steps=500)).written
    assert found == saved + (1 if steps % 500 else 0)


def test_an_adapter_file_is_not_the_lessons_150_mb() -> None:
    """LoRA r=16 on all seven linear layers of Llama-3-8B: 167.8 MB fp32, as PEFT keeps it, and 83.9 MB in bf16."""
    assert estimated(setup("lora"), 41_943_040).adapter_bytes == 167_772_160
    assert estimated(setup("lora", adapter_dtype="bf16"), 41_943_040).adapter_bytes == 83_886_080


# -- retention ------------------------------------------------------------------------------------


def test_retention_is_the_best_and_the_newest_and_one_that_is_being_written() -> None:
    held = retention(1000, CostOptions(save_steps=100, keep_best=1, keep_last=2))
    assert (held.written, held.kept, held.most) == (10, 3, 4)
    assert (retention(1000, CostOptions()).written, retention(3, CostOptions()).written) == (4, 3)
    assert retention(None, CostOptions()).written is None and retention(None, CostOptions()).most == 4


counts = st.integers(0, 5)


@given(st.integers(1, 10_000), st.integers(1, 10_000), counts, counts)
def test_retention_never_keeps_more_than_was_written(steps: int, every: int, best: int, last: int) -> None:
    held = retention(steps, CostOptions(save_steps=every, keep_best=best, keep_last=last))
    assert held.written is not None
    assert held.kept <= held.most <= held.written and held.most <= held.kept + 1


@given(st.sampled_from(["full", "lora"]), st.integers(1, 10**9), st.integers(1, 10**5), counts, counts)
def test_more_checkpoints_never_take_less(method: str, params: int, steps: int, best: int, last: int) -> None:
    def of(**changes: Any) -> StorageEstimate:
        options = CostOptions(save_steps=10, **({"keep_best": best, "keep_last": last} | changes))
        return estimated(setup(method), params, max_steps=steps, options=options, usd_per_gb_month=S3)

    one, more = of(), of(keep_last=last + 1)
    assert one.run_bytes <= more.run_bytes and (one.usd_per_month or 0) <= (more.usd_per_month or 0)
    assert one.unpruned_bytes == more.unpruned_bytes and one.unpruned_bytes is not None
    assert one.run_bytes <= one.unpruned_bytes
    assert one.checkpoint_bytes > (one.weights_only_bytes or 0) > 0


# -- unknown stays unknown ------------------------------------------------------------------------


def test_unknown_steps_and_prices_stay_unknown() -> None:
    run = estimated(setup("lora"), 1_000_000, max_steps=None, mergeable=False)
    assert (run.checkpoints, run.unpruned_bytes, run.usd_per_month, run.merged_bytes) == (None,) * 4
    assert run.run_bytes > 0
    assert estimated(setup(), 1_000_000).adapter_bytes is None is estimated(setup(), 1_000_000).merged_bytes


def test_the_width_of_what_is_saved_follows_the_recipe() -> None:
    assert trained_width(setup(dtype="bf16")) == 2
    assert trained_width(setup(dtype="bf16", autocast="bf16", parallel="fsdp", world_size=2)) == 4
    assert trained_width(setup(dtype="fp32", autocast="bf16", parallel="zero1", world_size=2)) == 2
    assert trained_width(setup("qlora")) == 4
    assert json.loads(estimated(setup(), 10).model_dump_json())["write_seconds"] == pytest.approx(60 / 1e9)
