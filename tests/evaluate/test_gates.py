"""Requirements: read as they are written, met or not by the number they name, unknown is not met."""

import pytest

from rankwise.errors import UsageError
from rankwise.evaluate.exam import NAMES
from rankwise.evaluate.gates import gate, read_requirement
from rankwise.evaluate.measures import share_of
from rankwise.evaluate.paired import compare_losses, compare_shares
from rankwise.records import Evaluation, Tendency

KEPT = share_of([True, True, False, True], "kept")
FOUND = Evaluation(
    comparisons=(
        compare_shares("facts", [True] * 2 + [False] * 18, [True] * 14 + [False] * 6, "test"),
        compare_losses("heldout_loss", [(20.0, 10)] * 8, [(5.0, 10)] * 8, "test"),
    ),
    answers=(),
    tendencies=(Tendency(name="facts_kept", base=None, tuned=KEPT),),
    seconds=1.0,
    notes=(),
)


@pytest.mark.parametrize(
    ("text", "value", "met"),
    [
        ("facts>=0.6", 0.7, True),
        ("facts >= 70%", 0.7, True),
        ("facts>0.7", 0.7, False),
        ("facts<=.7", 0.7, True),
        ("facts<0.7", 0.7, False),
        ("facts.tuned>=0.8", 0.7, False),
        ("facts.base<0.2", 0.1, True),
        ("facts.difference>0", 0.6, True),
        ("facts.difference.low>0.5", FOUND.comparisons[0].difference_interval[0], False),
        ("facts.difference.high<1", FOUND.comparisons[0].difference_interval[1], True),
        ("facts.low>=0.6", FOUND.comparisons[0].tuned_interval[0], False),
        ("heldout_loss<=0.5", 0.5, True),
        ("heldout_loss.difference<-1e0", -1.5, True),
        ("facts_kept>=0.9", 0.75, False),
        ("facts_kept.low>=0.1", KEPT.interval[0], True),
        ("facts_kept.base>=0.1", None, False),
        ("facts_kept.difference>=0.1", None, False),
        ("format>=0.1", None, False),
    ],
)
def test_a_requirement_is_held_against_what_it_names(text: str, value: float | None, met: bool) -> None:
    found = gate(read_requirement(text, NAMES), FOUND)
    assert found.value == (value if value is None else pytest.approx(value)) and found.met is met
    assert found.requirement == text


@pytest.mark.parametrize("text", ["facts", "facts=0.6", "facts>=", "facts>=x", ">=0.6", "facts.middle>1", "facts>1>2"])
def test_what_cannot_be_read_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_requirement(text, NAMES)


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="nothing is named fatcs") as error:
        read_requirement("fatcs>=0.6", NAMES)
    assert error.value.fix == "did you mean facts?"
