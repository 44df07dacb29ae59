"""Looks: the base once and from the cache after that, the tuned model beside it item by item."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from rankwise.evaluate.paired import compare_losses, resampled
from rankwise.model.likelihood import row_losses
from rankwise.model.load import load_base
from rankwise.records import Job
from rankwise.text.ability import ability_sets
from rankwise.text.template import ChatText
from rankwise.watch.forgetting import Numbers, Probe, SetProbe, Watch
from tests.watched import ability_files, knowing_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return knowing_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def sets(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    given = {key: str(tmp_path / name) for key, name in ability_files(tmp_path).items()}
    job = Job.model_validate({"goal": "task", "model": "m", "data": {"examples": 9}, "forgetting": given})
    return ability_sets(job, ChatText.from_folder(folder), [])


class Counted(SetProbe):
    """Counts the items that a model was really asked."""

    asked_items = 0

    def measure(self, model: Any, numbers: Sequence[int]) -> Numbers:
        Counted.asked_items += len(numbers)
        return super().measure(model, numbers)


def watch(probes: Sequence[Probe], **changes: Any) -> Watch:
    settings: dict[str, Any] = {
        "probes": probes,
        "prompts": [[5, 6, 7, 8]],
        "autocast": None,
        "budget": 0.03,
        "made_of": ["base"],
        "as_base": nullcontext,
        "starts_as_base": True,
        "share": lambda items, measure: measure(range(items)),
        "same": lambda own: own,
        "first": True,
        "resampled": resampled,
    }
    return Watch(**(settings | changes))


def spoiled(folder: Path, by: float = 0.3) -> Any:
    """The base with noise on its weights."""
    model = load_base(folder, dtype="fp32")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by * torch.randn_like(parameter)
    return model


def test_a_base_is_asked_once(folder: Path, sets: Any, tmp_path: Path) -> None:
    model = load_base(folder, dtype="fp32")
    Counted.asked_items = 0
    first = watch([Counted(s, None) for s in sets])
    first.ask_base(model)
    assert Counted.asked_items == 14
    again = watch([Counted(s, None) for s in sets])
    again.ask_base(spoiled(folder))  # nobody looks at it: the answers are remembered
    assert Counted.asked_items == 14 and again.base == first.base
    assert first.believed and again.believed and torch.equal(again.believed.logs, first.believed.logs)
    watch([Counted(s, None) for s in sets], made_of=["another base"]).ask_base(model)
    watch([Counted(s.first(6), None) for s in sets]).ask_base(model)
    assert Counted.asked_items == 14 + 14 + 12
    for kept in (tmp_path / "cache" / "baselines").iterdir():
        for file in kept.iterdir() if kept.is_dir() else [kept]:
            file.write_text("[[1.0")
    watch([Counted(s, None) for s in sets]).ask_base(model)  # what is damaged is made again
    assert Counted.asked_items == 14 + 14 + 12 + 14


def test_an_untrained_model_has_lost_nothing(folder: Path, sets: Any) -> None:
    model = load_base(folder, dtype="fp32")
    seen = watch([SetProbe(s, None) for s in sets], starts_as_base=False)
    seen.ask_base(model)
    for step in (0, 5):
        found = seen.look(step, model)
        assert [(s.difference, s.interval, s.level) for s in found.slices] == [(0.0, (0.0, 0.0), "green")] * 2
        assert found.level == "green" and found.kl == pytest.approx(0.0, abs=1e-6)


def test_a_spoiled_model_is_red_slice_by_slice(folder: Path, sets: Any) -> None:
    base, spoilt = load_base(folder, dtype="fp32"), spoiled(folder)
    seen = watch([SetProbe(s, None) for s in sets])
    seen.ask_base(base)
    found = seen.look(3, spoilt)
    text, questions = found.slices
    assert (text.level, questions.level, found.level) == ("red", "red", "red") and found.kl and found.kl > 0.1
    assert questions.baseline == 1.0 and questions.value < 0.7  # learned by heart, then lost
    rows = [item[0] for item in sets[0].items]
    compared = compare_losses("general_loss", row_losses(base, rows), row_losses(spoilt, rows), "by hand")
    assert text.difference == pytest.approx(compared.difference, rel=1e-5)
    assert text.interval == pytest.approx(compared.difference_interval, rel=1e-4)


def test_any_other_probe_can_be_plugged_in(folder: Path, sets: Any) -> None:
    class Task:
        """As a task of another suite would be: rights and wrongs by item."""

        name, metric, chance, items, content = "a task", "choice", 0.25, 20, "its hash"

        def measure(self, model: Any, numbers: Sequence[int]) -> Numbers:
            right = 20 if model is base else 8
            return [(float(number < right), 1.0) for number in numbers]

    base, tuned = load_base(folder, dtype="fp32"), load_base(folder, dtype="fp32")
    task: Probe = Task()
    seen = watch([*(SetProbe(s, None) for s in sets), task], prompts=[])
    seen.ask_base(base)
    found = seen.look(1, tuned)
    assert [s.level for s in found.slices] == ["green", "green", "red"] and found.kl is None
    assert found.slices[-1].difference == pytest.approx(-0.6)
