"""When spectra are taken in a run, what is in them, and what they may cost."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rankwise import api
from rankwise.records import Note, SpectrumSeen
from rankwise.store import Run
from rankwise.watch import directions
from rankwise.worker import spectra
from tests.training import toy_model, trained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directions, "cache_folder", lambda: tmp_path / "cache")


def run_with(share: float, folder: Path, model: Path, method: Any, patch: pytest.MonkeyPatch) -> Run:
    patch.setattr(spectra, "SHARE", share)
    return trained(folder, model, method)


def seen(run: Run) -> list[SpectrumSeen]:
    return [e for e in run.events() if isinstance(e, SpectrumSeen)]


def test_with_no_time_to_spare_the_first_and_the_last_are_taken(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = seen(run_with(0.0, tmp_path, model, "lora", monkeypatch))
    assert [e.step for e in told] == [2, 6]
    assert all(m.norm > 0 and m.norm_ratio is m.intruders is None for e in told for m in e.modules)


def test_with_time_they_follow_every_validation_and_know_the_base(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_with(1e9, tmp_path, model, "lora", monkeypatch)
    told = seen(run)
    assert [e.step for e in told] == [2, 4, 6]
    norms = [sum(m.norm**2 for m in e.modules) for e in told]
    assert norms[0] < norms[2] and all(m.norm_ratio and m.intruders is not None for e in told for m in e.modules)
    found = api.watch(run.folder)
    last = next(e for e in told if e.step == found.step)
    for live, kept in zip(
        sorted(last.modules, key=lambda m: m.module), sorted(found.modules, key=lambda m: m.module), strict=True
    ):
        assert live.module == kept.module and live.intruders == kept.intruders
        assert live.norm_ratio == pytest.approx(kept.norm_ratio, rel=1e-4)


def test_directions_that_are_remembered_are_used_without_time_for_them(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.watch(run_with(0.0, tmp_path / "first", model, "lora", monkeypatch).folder)
    told = seen(run_with(0.0, tmp_path / "second", model, "lora", monkeypatch))
    assert all(m.norm_ratio is not None for e in told for m in e.modules)


def test_full_fine_tuning_is_looked_at_where_there_is_time(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen(run_with(0.0, tmp_path / "none", model, "full", monkeypatch)) == []
    told = seen(run_with(1e9, tmp_path / "all", model, "full", monkeypatch))
    assert [e.step for e in told] == [2, 4, 6]
    names = {m.module for m in told[-1].modules}
    assert "model.embed_tokens" in names and len(names) == 15 and all(m.norm > 0 for m in told[-1].modules)


def test_spectra_do_not_change_what_is_learned(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = run_with(0.0, tmp_path / "few", model, "lora", monkeypatch)
    all_ = run_with(1e9, tmp_path / "all", model, "lora", monkeypatch)
    weights = [(run.adapter / "adapter_model.safetensors").read_bytes() for run in (few, all_)]
    assert weights[0] == weights[1]


def test_a_run_goes_on_where_memory_does_not_reach_for_spectra(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def far_too_much(*_: Any) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(spectra, "product_spectrum", far_too_much)
    run = run_with(1e9, tmp_path, model, "lora", monkeypatch)
    assert seen(run) == [] and (run.adapter / "adapter_model.safetensors").is_file()
    told = [e.text for e in run.events() if isinstance(e, Note) and "no spectrum" in e.text]
    assert [text.partition(":")[0] for text in told] == [f"no spectrum at step {step}" for step in (2, 4, 6)]
    assert all("can't allocate memory" in text for text in told)


def test_other_faults_of_spectra_are_not_memory(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectra, "product_spectrum", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match=r"size|inconsistent"):
        run_with(1e9, tmp_path, model, "lora", monkeypatch)
