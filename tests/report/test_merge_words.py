"""What a merge says of itself."""

from rankwise.report.merge_words import blend_card, merge_sentences, quantisation_sentences
from tests import builders


def test_a_merge_onto_a_dequantised_base_says_why_in_its_own_numbers() -> None:
    first, why, numbers = merge_sentences(builders.merge())
    assert first == "3 tensors changed and 5 copied (14.48 GB) in 40.0 s."
    assert "quantised to NF4" in why and "dequantised" in why
    assert "1.50 times as large as the quantisation error in the median layer" in numbers
    assert "smaller than it in 1 of 3" in numbers and "model.layers.0.self_attn.q_proj.weight (0.75)" in numbers
    assert quantisation_sentences(builders.merge(stored_as="as-loaded")) == []


def test_a_blend_names_its_shares_and_an_undone_merge_its_distance() -> None:
    one = builders.merge().adapters[0]
    both = (one.model_copy(update={"weight": 0.7}), one.model_copy(update={"path": "b", "weight": 0.3}))
    blend = builders.merge(how="ties", density=0.5, adapters=both, stored_as="as-loaded")
    assert merge_sentences(blend)[1] == "2 adapters by TIES, 50% of each kept: 0.7 of /runs/first/adapter, 0.3 of b."
    card = blend_card(blend, [builders.plan(), builders.plan()])
    assert card.startswith("---\nbase_model:") and "- 0.7 of " in card and "No proof covers a blend" in card
    undone = builders.merge(how="undone", stored_as="as-loaded", undone_difference=0.0039, undone_equal=0.991)
    assert "0.0039; 99.10% of the weights are the base's" in merge_sentences(undone)[1]
