"""What vLLM serves unmerged is said in one place, and the other places agree with it."""

import pytest

from rankwise.decide.compatibility import refused
from rankwise.methods import METHODS
from rankwise.methods.unmerged import SLOT_RANKS, UNMERGED, highest_rank, slot_rank, why_not_unmerged

LORA = {"peft_type": "LORA", "r": 8, "bias": "none", "init_lora_weights": True}


@pytest.mark.parametrize("method", [name for name, one in METHODS.items() if one.trains == "adapter"])
def test_a_plan_refuses_what_is_not_served(method: str) -> None:
    assert (refused(method, "vllm unmerged") is None) == (method in UNMERGED)


def test_a_rank_takes_the_next_slot() -> None:
    assert [slot_rank(rank) for rank in (1, 8, 9, 512, 513)] == [1, 8, 16, 512, None]
    assert list(SLOT_RANKS) == sorted(SLOT_RANKS)


def test_a_plain_lora_is_served() -> None:
    assert why_not_unmerged(LORA) == []
    assert why_not_unmerged({**LORA, "use_rslora": True, "init_lora_weights": "gaussian"}) == []


def test_the_highest_rank_counts() -> None:
    assert highest_rank({**LORA, "rank_pattern": {"q_proj": 32}}) == 32
    assert why_not_unmerged({**LORA, "rank_pattern": {"q_proj": 600}}) == ["rank 600 is above 512"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1]}, "new tokens"),
        ({"bias": "all"}, "biases"),
        ({"init_lora_weights": "pissa"}, "weights were changed"),
        ({"r": None}, "rank is not told"),
        ({"peft_type": "IA3"}, "not LoRA"),
        ({"peft_type": None, "type": "RANKWISE_BOTTLENECK"}, "RANKWISE_BOTTLENECK"),
    ],
)
def test_what_is_not_served_is_said(more: dict[str, object], words: str) -> None:
    assert any(words in why for why in why_not_unmerged({**LORA, **more}))
