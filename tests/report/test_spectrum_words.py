"""What a person reads of spectra: each sentence with its numbers, and nothing where nothing is known."""

import pytest

from rankwise.records import Watching
from rankwise.report import spectrum_words as say
from rankwise.report.watch_page import watch_page
from rankwise.watch.spectra import sum_up
from tests.builders import spectrum, watching

MODULE = spectrum().modules[0]


def test_the_update_in_a_few_sentences() -> None:
    found = watching()
    lines = say.spectrum_lines(found.spectrum)
    assert lines[0] == (
        "Update of 1 matrices: effective rank 3.6 of up to 16, 50 % of the energy in the first direction (medians)."
    )
    assert "1 % of the weight's (median)" in lines[1] and "q_proj" in lines[1]
    assert lines[2] == "Intruder directions: 1 in 1 matrices."
    assert lines[3] == "From step 5 to 10: norm 0.4 -> 0.4, effective rank 3.6 -> 3.6, intruders 1 -> 1."


def test_without_the_base_nothing_is_said_of_it() -> None:
    alone = spectrum().model_copy(
        update={"modules": (MODULE.model_copy(update={"norm_ratio": None, "intruders": None}),)}
    )
    assert len(say.spectrum_lines(sum_up([alone]))) == 1
    (row,) = say.kind_rows(alone.modules)
    assert row == ("q_proj", "1", "16", "3.6", "50 %", "unknown", "unknown")


def test_no_spectrum_says_why_and_a_dead_one_which() -> None:
    assert say.spectrum_lines(None, "IA3 scales") == ["No spectrum: IA3 scales."]
    dead = MODULE.model_copy(update={"norm": 0.0, "effective_rank": None, "first_energy": None})
    lines = say.spectrum_lines(sum_up([spectrum().model_copy(update={"modules": (dead,)})]))
    assert "all of them are zero" in lines[0] and "Unchanged: 1 matrices, such as model.layers.0" in lines[-1]


def test_a_row_for_each_kind_of_module() -> None:
    other = MODULE.model_copy(
        update={"module": "model.layers.1.self_attn.q_proj", "effective_rank": 4.6, "intruders": 3}
    )
    up = MODULE.model_copy(update={"module": "model.layers.1.mlp.up_proj", "effective_rank_interval": (3.0, 4.5)})
    rows = say.kind_rows([MODULE, other, up])
    assert [row[:3] for row in rows] == [("q_proj", "2", "16"), ("up_proj", "1", "16")]
    assert rows[0][3] == "4.1" and rows[0][6] == "4" and rows[1][3] == "3.6 (3 to 4.5)"
    assert all(len(row) == len(say.HEADS) for row in rows)


def test_the_condition_number_is_that_of_a_and_b_and_says_why() -> None:
    (line,) = say.condition_lines([MODULE])
    assert "of A 1.7 (median) and of B 12 (median)" in line and "infinite" in line
    none = MODULE.model_copy(update={"condition_a": None, "condition_b": None})
    assert say.condition_lines([none]) == [] == say.condition_lines([])


def test_which_rank_keeps_the_gain() -> None:
    truncation = watching().truncation
    assert truncation is not None
    assert say.truncation_sentence(truncation) == (
        "Rank 4 of 16 keeps 99 % of the gain (95 %: 97 to 100); the gain is 1.000 nats per token "
        "(95 %: 0.900 to 1.100)."
    )
    rows = say.truncation_rows(truncation)
    assert [row[0] for row in rows] == ["base", "1", "4", "16"] and rows[2][4] == "99 %"
    assert all(len(row) == len(say.TRUNCATION_HEADS) for row in rows)
    lower = truncation.model_copy(update={"ranks": truncation.ranks[:1]})
    assert "No lower rank that was tried keeps 99 %" in say.truncation_sentence(lower)
    unsure = truncation.ranks[0].model_copy(update={"kept": None, "kept_interval": None})
    assert "cannot be told" in say.truncation_sentence(truncation.model_copy(update={"ranks": (unsure,)}))


@pytest.mark.parametrize(("passed", "word"), [(True, ", proven."), (False, "NOT proven")])
def test_a_smaller_adapter_is_proven_or_not(passed: bool, word: str) -> None:
    shrunk = watching().shrunk
    assert shrunk is not None
    assert word in say.shrunk_sentence(shrunk.model_copy(update={"passed": passed}))


def test_the_page_is_one_file_and_escapes_what_it_shows() -> None:
    found = watching(folder="<b>outputs</b>", notes=("<script>alert(1)</script>",))
    page = watch_page(found, version="1")
    assert "<b>outputs</b>" not in page and "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page
    assert "What a rank is worth" in page and "src=" not in page
    bare = Watching.model_validate(
        found.model_dump() | {"spectrum": None, "no_spectrum": "IA3 scales", "truncation": None}
    )
    assert "IA3 scales" in watch_page(bare, version="1")
