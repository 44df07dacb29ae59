"""What every method must do, whatever it is: one suite over METHODS."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import kl_div

from rankwise import api
from rankwise.decide.compatibility import refused
from rankwise.errors import JobError, RunError
from rankwise.estimate.storage import SMALL_FILES
from rankwise.files import folder_bytes
from rankwise.methods import METHODS, TUNERS
from rankwise.model.attach import allow_packing, attach, load_adapter, total_params, trainable_params
from rankwise.model.likelihood import final_logits
from rankwise.model.load import load_base
from rankwise.model.trained import restore_weights
from rankwise.records import ModuleSpectrum, SpectrumSeen, Started, Validation
from rankwise.store import Run
from rankwise.watch import directions
from tests.training import carry_out, losses, published, toy_model, toy_run, trained, weights

PROMPTS = [[1, 5, 9, 40], [7, 8, 30]]
# Headers, configurations and the random state of a checkpoint: not in the prediction, and the same for every model.
HEADERS = 60_000
SPECTRAL = ("full", "lora", "qlora", "lora-8bit", "rslora", "dora", "pissa")  # their update is a matrix


# A head of its own changes what full fine-tuning trains and what an adapter leaves out: the rest is `make prove`.
CELLS = [
    pytest.param((name, kind), marks=() if kind == "tied" or name in ("full", "lora") else pytest.mark.prove)
    for name in METHODS
    for kind in ("tied", "untied")
]


@pytest.fixture(scope="module", params=CELLS, ids="-".join)
def cell(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    return found


@pytest.fixture(scope="module")
def method(cell: tuple[str, str]) -> str:
    return cell[0]


@pytest.fixture(scope="module")
def model(cell: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that weights outweigh headers."""
    return toy_model(tmp_path_factory.mktemp(cell[1]), hidden=128, intermediate=256, tied=cell[1] == "tied")


@pytest.fixture(scope="module")
def run(method: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp(method), model, method)


def base_of(run: Run) -> Any:
    """As in training."""
    config = run.plan().verdict.config
    assert config is not None
    stored = TUNERS[config.method].base
    folder = run.plan().facts.model.path
    return load_base(folder, dtype=config.dtype, four_bit=stored == "nf4", eight_bit=stored == "int8")


def loaded(run: Run) -> Any:
    """Base as in training, method attached, before any step."""
    config = run.plan().verdict.config
    assert config is not None
    return attach(base_of(run), config)


def test_the_traced_parameters_are_the_real_ones(run: Run, method: str) -> None:
    plan, real = run.plan(), loaded(run)
    estimate = plan.chosen()
    assert estimate is not None and plan.verdict.config is not None and plan.verdict.method == method
    assert estimate.trainable_params == trainable_params(real)
    assert estimate.total_params == total_params(real)
    started = next(e for e in run.events() if isinstance(e, Started))
    assert (started.trainable_params, started.total_params) == (trainable_params(real), total_params(real))


def test_an_adapter_trains_beside_the_base(run: Run, method: str) -> None:
    real, base = loaded(run), run.plan().facts.model.total_params
    if METHODS[method].trains == "weights":
        assert trainable_params(real) == total_params(real) == base
    else:
        assert 0 < trainable_params(real) == total_params(real) - base


def test_the_predicted_bytes_are_the_real_ones(run: Run, method: str) -> None:
    estimate = run.plan().chosen()
    assert estimate is not None
    for path in run.checkpoints.glob("checkpoint-*"):
        predicted = estimate.storage.checkpoint_bytes
        assert 0.9 * predicted <= folder_bytes(path) <= 1.1 * predicted + HEADERS
    if METHODS[method].trains == "adapter":
        assert estimate.storage.adapter_bytes is not None
        assert (run.adapter / "adapter_model.safetensors").stat().st_size == estimate.storage.adapter_bytes
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
    file = "adapter_model.safetensors"
    assert weights(best)[file] == weights(run.adapter)[file]
    library = "rankwise" if TUNERS[method].peft_type is None else "peft"
    assert f"library_name: {library}\n" in (run.adapter / "README.md").read_text()
    reference = loaded(run)
    restore_weights(reference, best)
    allow_packing(reference, True)  # as for use: bitsandbytes has another kernel for that
    published, trained = (final_logits(m, PROMPTS) for m in (load_adapter(base_of(run), run.adapter), reference))
    if TUNERS[method].residual:  # trained over a rounded residual of the base, published for the whole base
        assert kl_div(published.log_softmax(1), trained.log_softmax(1), log_target=True, reduction="batchmean") < 0.01
    else:
        assert torch.equal(published, trained)


def test_stopped_and_resumed(run: Run, method: str, model: Path, tmp_path: Path) -> None:
    broken = toy_run(tmp_path, model, method)
    carry_out(broken, stop_after=3)
    carry_out(broken, resume=True)
    assert losses(broken.events()) == losses(run.events())
    assert weights(published(broken)) == weights(published(run))


def test_training_goes_on_from_it(run: Run, method: str, model: Path, tmp_path: Path) -> None:
    """Another run begins with what this one published, and leads back to it."""
    if "untied" in str(model):
        pytest.skip("the head plays no part in it")
    short = {"max_steps": 1}
    if never := refused(method, "continuing an adapter"):
        with pytest.raises(JobError, match=re.escape(never.why)):
            toy_run(tmp_path, model, {"name": method, "adapter": str(run.folder)}, train=short)
        return
    if METHODS[method].trains == "weights":
        second = trained(tmp_path, run.model, method, train=short)
    else:
        second = trained(tmp_path, model, {"name": method, "adapter": str(run.folder)}, train=short)
    loss = {e.step: e.loss for e in run.events() if isinstance(e, Validation)}[run.evidence().best_validation_step or 0]
    begun = next(e.loss for e in second.events() if isinstance(e, Validation))
    assert begun == pytest.approx(loss, rel=1e-2 if method == "full" else 1e-6)  # full is published in bf16
    parent, plan = second.plan().facts.parent, run.plan()
    assert parent is not None and parent.lineage == plan.lineage()
    assert parent.kind == ("model" if method == "full" else "adapter")
    assert f"Went on from the {parent.kind}" in (published(second) / "README.md").read_text()


def test_recomputing_activations_changes_no_loss_or_is_refused(
    run: Run, method: str, model: Path, tmp_path: Path
) -> None:
    changes = {"train": {"gradient_checkpointing": True, "max_steps": 2}}
    if never := refused(method, "gradient_checkpointing"):
        with pytest.raises(JobError, match=re.escape(never.why)):
            toy_run(tmp_path, model, method, **changes)
    else:
        assert losses(trained(tmp_path, model, method, **changes).events()) == losses(run.events())[:2]


def test_it_learns(run: Run) -> None:
    """Held-out rows, before the first step and at the best checkpoint."""
    losses = {e.step: e.loss for e in run.events() if isinstance(e, Validation)}
    assert min(losses.values()) < losses[0]


def test_merged_and_proven(run: Run, method: str) -> None:
    """What cannot be merged is refused with the sentence of the plan's table, and proven as it is used."""
    never = refused(method, "merge")
    folder = None
    if never is None:
        folder = api.merge(run)
    else:
        with pytest.raises(RunError, match=re.escape(never.why)):
            api.merge(run)
    outcome, artifact = api.verify(run)
    assert outcome.passed and artifact is not None, [c for c in outcome.checks if not c.passed]
    assert artifact.method == method
    unmerged = [c.text for c in outcome.checks if c.name == "answers_unmerged"]
    if folder is None:
        assert never is not None and len(unmerged) == 1 and never.why in unmerged[0] and artifact.kind == "adapter"
    else:
        assert total_params(load_base(folder, dtype="bf16")) == run.plan().facts.model.total_params and not unmerged


def test_an_adapter_that_lost_a_part_is_not_proven(run: Run, method: str, tmp_path: Path) -> None:
    """One tensor as before the first step, or one learned position that is not there."""
    if METHODS[method].trains == "weights":
        pytest.skip("there is no adapter")
    folder = tmp_path / "copy"
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("model", "merged_to"))
    file = folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    part, value = METHODS[method].neutral or ("prompt_embeddings", 0.0)
    name = next(name for name in tensors if part.rstrip(".") in name)
    lost = tensors[name] if METHODS[method].neutral else tensors[name][-1:]
    lost.fill_(value)
    save_file(tensors, file, {"format": "pt"})
    outcome, artifact = api.verify(Run(folder))
    assert artifact is None and "modules_applied" in [c.name for c in outcome.checks if not c.passed]


def test_spectra_are_those_of_what_is_published(
    run: Run, method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """While it trains and from the files alike; a method without B and A says why it has none."""
    monkeypatch.setattr(directions, "cache_folder", lambda: tmp_path)
    found = api.watch(run.folder)
    seen = {e.step: e for e in run.events() if isinstance(e, SpectrumSeen)}
    if method not in SPECTRAL:
        assert found.spectrum is None and found.no_spectrum and not seen
        return
    assert found.modules and all(m.norm > 0 and m.norm_ratio and m.intruders is not None for m in found.modules)
    if METHODS[method].trains == "weights":
        return
    assert 6 in seen and found.step is not None
    last = seen.get(found.step)
    if last is not None:
        for live, kept in zip(last.modules, sorted_as(found.modules, last.modules), strict=True):
            assert live.norm == pytest.approx(kept.norm, rel=1e-3) and live.rank == kept.rank
            assert live.effective_rank == pytest.approx(kept.effective_rank, rel=1e-3)


def sorted_as(modules: Sequence[ModuleSpectrum], order: Sequence[ModuleSpectrum]) -> list[ModuleSpectrum]:
    by_name = {m.module: m for m in modules}
    return [by_name[m.module] for m in order]
