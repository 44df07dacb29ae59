"""`--methods` is read as it is written, and what cannot be meant is refused with what could be."""

import pytest

from rankwise.compare.arms import read_arms
from rankwise.compare.folder import file_name
from rankwise.errors import UsageError
from rankwise.records import MethodChoice


def test_arms_in_their_order_with_their_options() -> None:
    arms = read_arms("base, fewshot,retrieval,lora:r=16:lora_alpha=32:target_modules=q_proj+v_proj,full")
    assert [arm.name for arm in arms][:3] == ["base", "fewshot", "retrieval"]
    assert [arm.kind for arm in arms] == ["base", "fewshot", "retrieval", "trained", "trained"]
    wanted = MethodChoice(name="lora", r=16, lora_alpha=32, target_modules=("q_proj", "v_proj"))
    assert arms[3].method == wanted and arms[4].method == MethodChoice(name="full") and arms[0].method is None


def test_one_method_under_two_names_is_compared_with_itself() -> None:
    first, second = read_arms("a=lora:r=8,b=lora:r=8")
    assert (first.name, second.name) == ("a", "b") and first.method == second.method


def test_files_of_arms_are_told_apart() -> None:
    arms = read_arms("lora:r=8,lora-r=full,lora:r=16,lora:target_modules=q_proj+v_proj")
    assert len({file_name(arm.name) for arm in arms}) == 4
    assert all("/" not in file_name(arm.name) and ":" not in file_name(arm.name) for arm in arms)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("base,lroa", "did you mean lora?"),
        ("base,lora:rank=8:lora_alpa=16", "lora has no option rank"),
        ("base,lora:lora_alpa=16", "did you mean lora_alpha?"),
        ("base,lora:r=0", "r: Input should be greater than or equal to 1"),
        ("base,lora:r=many", "r: Input should be a valid integer"),
        ("base,lora:r", "'r' says no value"),
        ("base,lora:r=8:r=16", "r is given twice"),
        ("base,lora:adapter=runs/one", "lora has no option adapter"),
        ("base:r=8,lora", "base has no options"),
        ("lora:r=8,lora:r=8", "a=lora:r=8,b=lora:r=8"),
        ("a/b=lora,full", "is no name of an arm"),
        ("full", "at least two"),
        ("", "names 0 arms"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_arms(text)
    assert says in str(refused.value) and refused.value.exit_code == 2
