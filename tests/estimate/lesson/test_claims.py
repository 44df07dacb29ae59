"""Every corrected claim of the lesson: the figure that the product computes, or the experiment that shows it.

Counts and bytes are exact. Time and money are held by ratio and by inequality, so that a better model of them may move.
"""

import inspect
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from rankwise import api
from rankwise.estimate.lesson.claims import CHECKS, claim
from rankwise.estimate.lesson.desk import Desk
from rankwise.estimate.lesson.said import said_claims, said_cost
from rankwise.records.tables import Claim, Figure, Said
from tests.tiny import tiny_llama

SAID = {c.id: c for c in said_claims()}
COMPUTED = sorted(CHECKS)
EXPERIMENTS = ("31", "38", "46", "47", "N8")  # shown below by running PEFT, torch or transformers


@cache
def desk() -> Desk:
    """Prices and plans of the real product, each asked for once in this module."""
    return Desk(lambda asked: api.estimate(**asked), lambda asked: api.plan(**asked))


@cache
def found(number: str) -> Claim:
    return claim(desk(), SAID[number])


def figures(number: str) -> dict[str, Any]:
    """Values by the name of the figure."""
    return {figure.name: figure.value for figure in found(number).computed or ()}


def value(number: str, name: str) -> Any:
    return figures(number)[name]


# -- the list itself -------------------------------------------------------------------------------


def test_the_claims_are_51_of_the_text_18_of_its_function_and_those_of_its_code() -> None:
    numbered = [str(n) for n in range(1, 52)]
    functions = [f"F{n}" for n in range(1, 19)]
    assert set(SAID) == {*numbered, *functions, *(f"N{n}" for n in range(1, 10))}
    assert len(said_claims()) == len(SAID)


@pytest.mark.parametrize("number", SAID)
def test_a_claim_has_a_verdict_a_reason_and_a_source(number: str) -> None:
    said = SAID[number]
    assert said.verdict and len(said.why) > 20 and said.source and said.said


def test_what_is_not_computed_is_held_by_evidence_or_by_an_experiment() -> None:
    for number in set(SAID) - set(CHECKS):
        assert not SAID[number].values, number
        assert number in EXPERIMENTS or any(
            word in SAID[number].source for word in ("arXiv", "read", "recalled", "run")
        )
    assert set(CHECKS) <= set(SAID)


@pytest.mark.parametrize("number", COMPUTED)
def test_what_was_said_stands_beside_a_figure_of_the_same_name(number: str) -> None:
    assert set(SAID[number].values) <= {figure.name for figure in found(number).computed or ()}


@pytest.mark.parametrize("number", [n for n in COMPUTED if SAID[n].verdict == "wrong"])
def test_a_wrong_claim_is_refuted_by_a_figure(number: str) -> None:
    pairs = [f for f in found(number).computed or () if f.said is not None]
    assert not pairs or any(differs(figure) for figure in found(number).computed or ()), pairs


@pytest.mark.parametrize("number", [n for n in COMPUTED if SAID[n].verdict == "right"])
def test_a_right_claim_is_borne_out(number: str) -> None:
    for figure in found(number).computed or ():
        if figure.said is not None:
            assert not differs(figure, tolerance=0.15), figure


def differs(figure: Figure, tolerance: float = 0.02) -> bool:
    """A word beside another word, a number beside a number that is further off, a number outside a range."""
    if figure.said is None or isinstance(figure.value, str) or isinstance(figure.said, str):
        return figure.said != figure.value
    if figure.value is None:
        return False
    low, high = _ends(figure.said)
    return not low * (1 - tolerance) <= figure.value <= high * (1 + tolerance)


def _ends(said: Said) -> tuple[float, float]:
    if isinstance(said, tuple):
        return said
    assert not isinstance(said, str)
    return said, said


# -- exact counts ----------------------------------------------------------------------------------


def test_n1_parameters_of_the_base() -> None:
    assert value("N1", "parameters of Llama-3-8B") == 8_030_261_248


def test_n2_lora_16_on_all_seven_is_half_of_what_was_printed() -> None:
    assert value("N2", "trained, r=16") == 41_943_040
    assert value("N2", "with the base, r=16") == 8_072_204_288
    assert value("N2", "share, r=16") == pytest.approx(0.005196, abs=1e-6)
    assert value("N2", "trained, r=32") == 83_886_080  # what the lesson printed


def test_n3_rank_64_on_attention() -> None:
    assert value("N3", "trained, r=64 on q, k, v, o") == 54_525_952
    assert value("N3", "with the base") == 8_084_787_200
    assert value("N3", "trained, r=64 on all seven") == 167_772_160  # what the lesson printed
    assert value("N3", "base and r=64 on all seven") == 8_198_033_408  # and its total is not that


def test_9_query_and_value_adapters_are_small() -> None:
    assert value("9", "parameters, Llama-3-8B") == 6_815_744
    assert value("9", "parameters, Llama-2-7B") == 8_388_608
    assert value("9", "gradients, Llama-3-8B") == 4 * 6_815_744 < 0.3e9 / 5


def test_10_bytes_of_the_qlora_adapter() -> None:
    assert value("10", "adapter weights, fp32") == 4 * 54_525_952
    assert value("10", "Adam states") == 8 * 54_525_952 < 0.6e9


def test_21_rank_8_has_65536_parameters_and_rank_16_twice_as_many() -> None:
    assert value("21", "r=8, one 4096x4096 matrix") == 65_536
    assert value("21", "r=16, one 4096x4096 matrix") == 131_072


def test_n4_f17_an_adapter_goes_with_its_rank() -> None:
    assert value("N4", "adapter r=16, fp32") == pytest.approx(167_772_160, rel=1e-3)  # and the file's header
    assert value("N4", "adapter r=16, bf16") == pytest.approx(83_886_080, rel=1e-3)
    assert value("F17", "adapter r=256, 8B, bf16") == pytest.approx(
        16 * value("F17", "adapter r=16, 8B, bf16"), rel=1e-3
    )
    assert value("F17", "adapter r=256, 8B, bf16") > 5 * 0.15e9


def test_n5_n6_n7_bases_in_4_and_8_bits() -> None:
    assert value("N5", "NF4 weights of Llama-3-8B") == pytest.approx(5.70e9, rel=0.005)
    assert value("N5", "with embedding and head in fp32, as PEFT prepares them") == pytest.approx(7.80e9, rel=0.005)
    assert value("N6", "NF4 weights of Llama-3-70B") == pytest.approx(39.5e9, rel=0.005)
    assert value("N6", "with embedding and head in fp32, as PEFT prepares them") == pytest.approx(43.7e9, rel=0.005)
    assert value("N7", "8-bit weights of Llama-3-70B") == pytest.approx(72.7e9, rel=0.005)


# -- memory ----------------------------------------------------------------------------------------


def test_1_the_recipe_decides_the_state() -> None:
    params = 6_738_415_616
    assert value("1", "by the lesson's 14 bytes a parameter") == 14 * params
    assert value("1", "state in pure bf16") == pytest.approx(8 * params, rel=0.01)
    assert value("1", "state, fp32 weights under autocast") == pytest.approx(16 * params, rel=0.01)
    assert value("1", "state, DeepSpeed ZeRO-3") == pytest.approx(20 * params, rel=0.01)


def test_2_34b_leaves_no_room_on_six_cards() -> None:
    assert value("2", "state at 14 bytes a parameter") == 14 * 33_743_970_304
    assert value("2", "share of 6x A100-80GB before any activation") > 0.9
    assert value("2", "fewest A100-80GB, DeepSpeed ZeRO-3") > 6
    assert value("2", "fewest A100-80GB, fp32 weights under autocast") > 6


def test_3_70b_needs_more_than_twelve_cards() -> None:
    assert value("3", "state at 14 bytes a parameter") == 14 * 70_553_706_496 > 960e9
    assert value("3", "fewest A100-80GB, DeepSpeed ZeRO-3") > 12
    assert value("3", "fewest A100-80GB, fp32 weights under autocast") > 12


def test_4_the_table_has_two_rules() -> None:
    fills = figures("4")
    assert max(fills["7B fills 8x A100-40GB to"], fills["13B fills 16x A100-40GB to"]) < 1 / 3
    assert min(fills["34B fills 6x A100-80GB to"], fills["70B fills 12x A100-80GB to"]) > 0.9


def test_5_lora_7b_fits_one_40_gb_card() -> None:
    assert value("5", "fewest A100-40GB") == 1
    assert 15e9 < value("5", "LoRA r=16, 7B, peak on one A100-40GB") < 19e9


def test_6_lora_13b_fits_one_40_gb_card_and_70b_needs_several() -> None:
    assert value("6", "13B, fewest A100-40GB") == 1
    assert value("6", "34B, fewest A100-80GB") <= 2
    assert value("6", "70B, fewest A100-80GB") in (2, 4)


def test_7_8_qlora_peaks() -> None:
    assert value("7", "7B, peak") < 10e9 < value("7", "13B, peak") < 16e9
    assert value("8", "34B, 4-bit weights, embedding and head") == pytest.approx(18.2e9, rel=0.005)
    assert value("8", "34B, peak") < 0.75 * 40e9
    assert value("8", "70B, peak") < 0.75 * 80e9
    assert value("8", "70B, fewest A100-80GB") == 1


def test_11_full_fine_tuning_of_7b_on_one_card() -> None:
    assert value("11", "fewest A100-80GB, pure bf16, fused AdamW") == 1
    assert value("11", "fewest A100-40GB, bf16, paged 8-bit AdamW") == 1


def test_12_70b_on_eight_cards_with_offload() -> None:
    assert value("12", "fewest A100-80GB, ZeRO-3 with offload to the CPU") == 8
    assert value("12", "fewest A100-80GB, ZeRO-3 without") > 12


def test_50_gpt2_on_the_larger_v100_alone() -> None:
    assert value("50", "GPT-2 1.5B, fewest V100-32GB") == 1
    assert value("50", "GPT-2 1.5B, fewest V100-16GB") == "more than 1"


def test_f11_a_fraction_of_a_card_is_no_second_card() -> None:
    assert value("F11", "LoRA 34B, fewest A100-80GB") == 1


def test_f12_logits_and_length_count() -> None:
    assert value("F12", "logits at the peak, LoRA 8B, one row of 8,192 tokens") > 4 * 8192 * 128_256  # one fp32 copy
    assert value("F12", "peak, 8,192 tokens over 512 tokens") > 1.5


def test_f13_bytes_a_parameter_go_with_the_rank() -> None:
    assert value("F13", "LoRA r=16, 8B") < 2.2 < 2.5 < value("F13", "LoRA r=256, 8B")
    assert value("F13", "QLoRA r=16, 8B") > 0.7


def test_f14_smaller_cards_are_asked_for() -> None:
    assert value("F14", "QLoRA 7B, fewest RTX-3090-24GB") == 1


# -- time and money --------------------------------------------------------------------------------


def test_13_full_takes_a_fraction_more_operations_than_lora_not_ten_times_as_many() -> None:
    """6N over 4N; with checkpointing 8N over 6N at most: torch stops computing again once the last saved tensor is
    there, which spares full fine-tuning the last product of each layer.
    """
    assert 1.4 < value("13", "operations per token, full over LoRA, without") < 1.55
    assert 1.15 < value("13", "operations per token, full over LoRA, with checkpointing") < 1.4
    assert 0.7 < value("13", "card-hours, full over LoRA, 8B on A100-80GB") < 3.0  # small products can make LoRA slower


def test_14_qlora_is_slower_than_lora_on_the_same_card() -> None:
    assert 0.5 < value("14", "speed, QLoRA over LoRA, 8B on one A100-80GB") < 1.0


def test_15_tokens_set_the_cost() -> None:
    dollars = figures("15")
    for name in ("full", "LoRA"):
        short, long = (dollars[f"{name}, {tokens} tokens an example"] for tokens in ("512", "2,048"))
        assert 3.5 < long / short < 4.5
    for tokens in ("512", "2,048"):
        ratio = dollars[f"full, {tokens} tokens an example"] / dollars[f"LoRA, {tokens} tokens an example"]
        assert 0.7 < ratio < 5.0  # the lesson: 10


def test_16_three_epochs_take_longer_than_either_of_the_two_answers() -> None:
    assert value("16", "QLoRA 7B, 512 tokens an example, one A100-80GB") > 4 * 3600
    assert value("16", "QLoRA 7B, 2,048 tokens an example, one A100-80GB") > 10 * 3600


def test_17_the_sentence_contradicts_the_table() -> None:
    full, qlora = said_cost("7B", "full"), said_cost("7B", "qlora")
    assert full is not None and qlora is not None
    assert value("17", "full, 10 runs at the table's low end") == 10 * full.usd[0] == 1500
    assert value("17", "full, 20 runs at the table's high end") == 20 * full.usd[1] == 6000
    assert value("17", "QLoRA, 10 runs at the table's low end") == 10 * qlora.usd[0] == 80
    assert value("17", "QLoRA, 20 runs at the table's high end") == 20 * qlora.usd[1] == 300


def test_43_checkpointing_costs_adapters_more() -> None:
    full, lora = value("43", "more operations, full"), value("43", "more operations, LoRA")
    assert 0.2 < full < 0.34 < lora < 0.51
    assert value("43", "LoRA 8B, batch 4 x 2,048: peak with checkpointing over without") < 0.6


def test_44_a_step_of_lora_is_a_fifth_to_a_third_cheaper() -> None:
    assert all(0.6 < share < 0.9 for share in figures("44").values())


def test_n9_the_same_cards_run_both_at_about_the_same_speed() -> None:
    assert 0.7 < value("N9", "time of a run, full over LoRA, 8B on the same A100-80GB") < 3.0


def test_f9_hours_follow_from_tokens() -> None:
    hours = figures("F9")
    short, long = (hours[f"70B, QLoRA, {tokens} tokens an example, one A100-80GB"] for tokens in ("512", "2,048"))
    assert 3.5 < long / short < 4.5


# -- storage and serving ---------------------------------------------------------------------------


def test_18_a_resumable_checkpoint_is_several_times_the_weights() -> None:
    weights = value("18", "weights alone")
    assert weights == pytest.approx(2 * 6_738_415_616, rel=0.01)
    assert 5.5 < value("18", "resumable, fp32 weights under autocast") / weights < 8.1
    assert 5.5 < value("18", "resumable, DeepSpeed ZeRO-3") / weights < 8.1
    assert value("18", "20 of the weights, a month") == pytest.approx(6.20, abs=0.1)
    assert value("18", "20 resumable ones, ZeRO-3, a month") > 35


def test_19_the_number_of_checkpoints_follows_the_batch() -> None:
    assert list(figures("19").values()) == [125, 62, 31, 15]


def test_20_ten_variants() -> None:
    assert value("20", "10 full copies, 7B") == pytest.approx(134.8e9, rel=0.01)
    assert 14e9 < value("20", "one base and 10 adapters (r=16, all linear layers)") < 16.5e9


def test_45_unmerged_adapters_cost_throughput() -> None:
    (penalty,) = found("45").computed or ()
    assert penalty.interval is not None and 0 < penalty.interval[0] < penalty.interval[1] < 0.6


def test_48_one_more_variant_costs_an_adapter_not_a_model() -> None:
    assert value("48", "memory of one more variant, full copy over adapter") > 50
    assert value("48", "GPUs that serve one base with 10 adapters") <= value(
        "48", "GPUs that serve 10 full copies of 7B"
    )
    assert value("48", "variants from which adapters are cheaper") <= 10


# -- the decision function ---------------------------------------------------------------------------


def test_f1_f2_what_does_not_fit_is_not_chosen_however_many_variants() -> None:
    assert value("F1", "answer") == "qlora"
    assert value("F1", "the answer fits") == "yes"
    assert value("F2", "LoRA fits one A100-80GB") == "no"


def test_f3_nothing_runs_405b_on_one_card() -> None:
    assert value("F3", "answer") == "none"
    assert "qlora" in value("F3", "rejected for memory")


def test_f4_lora_that_fits_comes_before_qlora() -> None:
    assert value("F4", "answer") == "lora"


def test_f5_f6_f10_the_data_decide_not_the_number_of_variants() -> None:
    assert value("F5", "answer") == "full"
    assert value("F6", "answer") == "full"
    assert figures("F10") == {"5,000 examples": "lora", "20,000,000 examples": "full"}


def test_f7_a_typo_is_refused() -> None:
    assert value("F7", "answer") == "refused: did you mean knowledge?"


def test_f8_a_budget_rejects_or_says_why_it_cannot() -> None:
    said = value("F8", "what is said of the budget")
    assert said is not None
    assert value("F8", "with a budget of 1 USD") == "none" or "not checked" in said


def test_f15_f16_losers_are_named_with_rule_and_number() -> None:
    assert value("F15", "rejected options with their rule") >= 2
    assert "states_fit" in value("F16", "why full fine-tuning is out")


def test_f18_cheaper_rungs_are_named() -> None:
    assert value("F18", "cheaper rungs named before training") >= 1


# -- experiments -----------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """A tiny Llama with a LoRA whose B is no longer zero."""

    def wrapped(**options: Any) -> Any:
        folder = tiny_llama(tmp_path / "tiny", dtype="fp32")
        config = json.loads((folder / "config.json").read_text())
        assert config["model_type"] == "llama"
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return peft.get_peft_model(model, peft.LoraConfig(r=4, task_type="CAUSAL_LM", **options))

    yield wrapped


def _trained(model: Any) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_31_peft_trains_embeddings_and_single_tokens(tiny: Callable[..., Any]) -> None:
    vocabulary, hidden = 320, 32
    assert _trained(tiny(target_modules=["embed_tokens"])) == 4 * (vocabulary + hidden)
    attention = _trained(tiny(target_modules=["q_proj"]))
    assert _trained(tiny(target_modules=["q_proj"], trainable_token_indices=[300, 301])) == attention + 2 * hidden


def test_38_the_update_of_an_adapter_has_no_finite_condition_number(tiny: Callable[..., Any]) -> None:
    layer = tiny(target_modules=["q_proj"]).base_model.model.model.layers[0].self_attn.q_proj
    assert not layer.get_delta_weight("default").any()  # B is zero at the start
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    values = torch.linalg.svdvals(layer.get_delta_weight("default"))
    assert values[3] > 1e-3 and (values[4:] < 1e-5 * values[0]).all()


def test_46_an_adapter_can_be_unmerged(tiny: Callable[..., Any]) -> None:
    model = tiny(target_modules=["q_proj"])
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.02)
    before = layer.base_layer.weight.detach().clone()
    model.merge_adapter()
    assert not torch.equal(layer.base_layer.weight, before)
    model.unmerge_adapter()
    assert (layer.base_layer.weight - before).abs().max() < 1e-6


@pytest.mark.parametrize(("deviation", "lost"), [(1e-4, 0.33), (5e-4, 0.065), (2e-3, 0.016)])
def test_47_merging_in_bf16_rounds_part_of_the_update_away(deviation: float, lost: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = (0.02 * torch.randn(1024, 1024, generator=generator)).bfloat16().float()
    update = deviation * torch.randn(1024, 1024, generator=generator)
    rounded = (weight + update).bfloat16().float() - weight
    assert ((rounded - update).norm() / update.norm()).item() == pytest.approx(lost, rel=0.1)


def test_n8_the_lessons_code_does_not_run_today() -> None:
    assert "tokenizer" not in inspect.signature(transformers.Trainer.__init__).parameters
    assert "processing_class" in inspect.signature(transformers.Trainer.__init__).parameters
    assert "warmup_ratio" not in inspect.signature(transformers.TrainingArguments.__init__).parameters
