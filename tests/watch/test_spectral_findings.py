"""Each finding of the spectra fires where it should, and is silent where it should be."""

from collections.abc import Sequence

import pytest

from rankwise.records import Event, Finding, ModuleSpectrum, SpectrumSeen
from rankwise.watch.findings import find
from rankwise.watch.spectra import sum_up
from rankwise.watch.spectral_findings import SPECTRAL_FINDINGS
from tests.builders import TIME, spectrum, whole_run

NAMES = {finding.__name__ for finding in SPECTRAL_FINDINGS}


def seen(step: int, *modules: ModuleSpectrum) -> SpectrumSeen:
    return SpectrumSeen(time=TIME, step=step, modules=modules, seconds=0.2)


def module(name: str = "m", **changes: object) -> ModuleSpectrum:
    return spectrum().modules[0].model_copy(update={"module": name, "intruders": 0, **changes})


def dead(name: str) -> ModuleSpectrum:
    return module(name, norm=0.0, norm_ratio=0.0, effective_rank=None, first_energy=None)


def found(events: Sequence[Event]) -> dict[str, Finding]:
    return {f.name: f for f in find(None, events) if f.name in NAMES}


def test_an_ordinary_spectrum_says_nothing() -> None:
    assert found([seen(5, module("a"), module("b")), seen(10, module("a"), module("b"))]) == {}
    assert found(whole_run()) == {} and found([]) == {}


def test_a_module_that_did_not_change_is_named() -> None:
    said = found([seen(10, module("a"), dead("layers.3.q_proj"))])["dead_modules"]
    assert said.level == "warning" and "layers.3.q_proj" in said.text and "1 of 2" in (said.number or "")


def test_nothing_that_changed_is_a_fault() -> None:
    said = found([seen(10, dead("a"), dead("b"))])
    assert said["dead_modules"].level == "fault" and set(said) == {"dead_modules"}


@pytest.mark.parametrize(("energy", "rank", "fires"), [(0.95, 16, True), (0.89, 16, False), (1.0, 1, False)])
def test_one_direction_is_a_collapse_where_there_is_room_for_more(energy: float, rank: int, fires: bool) -> None:
    modules = [module(str(i), first_energy=energy, rank=rank) for i in range(3)]
    said = found([seen(10, *modules, module("x"))])
    assert ("rank_collapse" in said) == fires
    if fires:
        assert "3 of 4" in (said["rank_collapse"].number or "") and "rank" in (said["rank_collapse"].advice or "")


def test_half_of_the_matrices_is_no_collapse() -> None:
    assert "rank_collapse" not in found([seen(10, module("a", first_energy=0.99), module("b"))])


@pytest.mark.parametrize(("ratio", "level"), [(0.09, None), (0.11, "warning"), (1.5, "fault")])
def test_updates_are_held_against_the_weights(ratio: float, level: str | None) -> None:
    said = found([seen(10, *(module(str(i), norm_ratio=ratio) for i in range(3)))]).get("large_updates")
    assert (said.level if said else None) == level


def test_one_large_update_among_many_is_none() -> None:
    assert "large_updates" not in found([seen(10, module("a", norm_ratio=5.0), module("b"), module("c"))])


def test_growing_intruders_are_told_and_steady_few_are_not() -> None:
    few, more = module("a", intruders=1), module("a", intruders=2)
    others = [module(str(i)) for i in range(9)]
    assert "intruder_directions" not in found([seen(5, few, *others), seen(10, few, *others)])
    said = found([seen(5, few, *others), seen(10, more, *others)])["intruder_directions"]
    assert said.number == "1 -> 2 in 10 matrices at step 10" and said.level == "warning"


def test_one_intruder_a_matrix_is_told_at_once() -> None:
    said = found([seen(10, *(module(str(i), intruders=1) for i in range(4)))])
    assert said["intruder_directions"].number == "4 in 4 matrices at step 10"


def test_intruders_that_nobody_counted_are_no_finding() -> None:
    assert "intruder_directions" not in found([seen(10, module("a", intruders=None, norm_ratio=None))])


def test_the_summary_is_of_the_last_and_shows_the_growth() -> None:
    early = seen(5, module("a", norm=3.0, effective_rank=4.0), module("b", norm=4.0, effective_rank=2.0))
    late = seen(10, module("a", norm_ratio=0.5), dead("b"), module("c", intruders=None, norm_ratio=None))
    said = sum_up([early, late])
    assert said is not None and said.growth[0].norm == pytest.approx(5.0) and said.growth[0].effective_rank == 3.0
    assert (said.matrices, said.rank, said.last.step, said.last.dead) == (3, 16, 10, 1)
    assert said.dead_modules == ("b",) and said.last.intruders == 0 and said.last == said.growth[-1]
    assert (said.largest_ratio, said.largest_ratio_module) == (0.5, "a") and said.seconds == pytest.approx(0.4)
    assert "2410.21228" in said.source and "0.6" in said.source and "10" in said.source


def test_no_spectra_have_no_summary() -> None:
    assert sum_up(whole_run()) is None and sum_up([seen(3)]) is None


def test_what_was_not_counted_is_unknown_in_the_summary() -> None:
    said = sum_up([seen(10, module("a", intruders=None, norm_ratio=None))])
    assert said is not None and said.last.intruders is said.last.norm_ratio is said.largest_ratio is None
    assert "intruders" not in said.source
