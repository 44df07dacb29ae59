"""What every method must do, whatever it is: one suite over METHODS."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rankwise import api
from rankwise.estimate.storage import SMALL_FILES
from rankwise.methods import METHODS
from rankwise.model.attach import allow_packing, attach, load_adapter, total_params, trainable_params
from rankwise.model.likelihood import final_logits
from rankwise.model.load import load_base
from rankwise.records import Started
from rankwise.store import Run, folder_bytes
from rankwise.train.checkpoints import restore_weights
from tests.training import RATES, carry_out, losses, published, toy_model, toy_run, trained, weights

PROMPTS = [[1, 5, 9, 40], [7, 8, 30]]
# Headers, configurations and the random state of a checkpoint: not in the prediction, and the same for every model.
HEADERS = 60_000


@pytest.fixture(scope="module", params=list(METHODS))
def method(request: pytest.FixtureRequest) -> str:
    RATES.setdefault(request.param, 1e-2)
    return str(request.param)


@pytest.fixture(scope="module", params=["tied", "untied"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that weights outweigh headers."""
    folder = tmp_path_factory.mktemp(request.param)
    return toy_model(folder, hidden=128, intermediate=256, tied=request.param == "tied")


@pytest.fixture(scope="module")
def run(method: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp(method), model, method)


def loaded(run: Run) -> Any:
    """Base as in training, method attached, before any step."""
    config = run.plan().verdict.config
    assert config is not None
    folder = Path(run.plan().facts.model.folder)
    four_bit = config.method == "qlora"
    return attach(load_base(folder, dtype=config.dtype, four_bit=four_bit), config)


def test_the_declared_parameters_are_the_real_ones(run: Run, method: str) -> None:
    plan, real = run.plan(), loaded(run)
    estimate = plan.chosen()
    assert estimate is not None and plan.verdict.config is not None and plan.verdict.method == method
    assert METHODS[method].trainable_params(plan.facts.model, plan.verdict.config) == trainable_params(real)
    assert estimate.trainable_params == trainable_params(real)
    assert estimate.total_params == total_params(real)
    started = next(e for e in run.events() if isinstance(e, Started))
    assert (started.trainable_params, started.total_params) == (trainable_params(real), total_params(real))


def test_only_what_is_declared_trains(run: Run, method: str) -> None:
    trains = [name for name, p in loaded(run).named_parameters() if p.requires_grad]
    assert trains
    assert METHODS[method].trains == "weights" or all("lora_" in name for name in trains)


def test_the_predicted_bytes_are_the_real_ones(run: Run, method: str) -> None:
    estimate = run.plan().chosen()
    assert estimate is not None
    for path in run.checkpoints.glob("checkpoint-*"):
        predicted = estimate.storage.checkpoint_bytes
        assert 0.9 * predicted <= folder_bytes(path) <= 1.1 * predicted + HEADERS
    if METHODS[method].trains == "adapter":
        assert estimate.storage.adapter_bytes is not None
        actual = (run.adapter / "adapter_model.safetensors").stat().st_size
        assert 0.9 * estimate.storage.adapter_bytes <= actual <= 1.1 * estimate.storage.adapter_bytes + HEADERS
    else:
        assert estimate.storage.adapter_bytes is None
    assert folder_bytes(run.folder) <= estimate.storage.run_bytes
    assert SMALL_FILES > HEADERS


def test_saved_and_restored_is_the_same_model(run: Run) -> None:
    """Every checkpoint, and what was published."""
    newest = run.checkpoints / "checkpoint-6"
    real = loaded(run)
    untrained = final_logits(real, PROMPTS)
    restore_weights(real, newest)
    restored = final_logits(real, PROMPTS)
    assert not torch.equal(untrained, restored)
    again = loaded(run)
    restore_weights(again, newest)
    assert torch.equal(final_logits(again, PROMPTS), restored)


def test_what_is_published_loads_and_is_the_best_checkpoint(run: Run, method: str) -> None:
    evidence, config = run.evidence(), run.plan().verdict.config
    assert config is not None
    best = run.checkpoints / f"checkpoint-{evidence.best_validation_step}"
    if METHODS[method].trains == "weights":
        assert load_base(run.model, dtype="bf16").dtype == torch.bfloat16
        return
    assert weights(best) == weights(run.adapter)
    base = load_base(Path(run.plan().facts.model.folder), dtype=config.dtype, four_bit=method == "qlora")
    reference = loaded(run)
    restore_weights(reference, best)
    allow_packing(reference, True)  # as for use: bitsandbytes has another kernel for that
    assert torch.equal(final_logits(load_adapter(base, run.adapter), PROMPTS), final_logits(reference, PROMPTS))


def test_stopped_and_resumed(run: Run, method: str, model: Path, tmp_path: Path) -> None:
    broken = toy_run(tmp_path, model, method)
    carry_out(broken, stop_after=3)
    carry_out(broken, resume=True)
    assert losses(broken.events()) == losses(run.events())
    assert weights(published(broken)) == weights(published(run))


def test_merged_and_proven(run: Run, method: str) -> None:
    folder = api.merge(run)
    outcome, artifact = api.verify(run)
    assert outcome.passed and artifact is not None, [c for c in outcome.checks if not c.passed]
    facts = run.plan().facts.model
    assert total_params(load_base(folder, dtype="bf16")) == facts.total_params
    assert artifact.method == method
