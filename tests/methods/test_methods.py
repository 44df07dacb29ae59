"""What a method declares: exact counts against published ones, and one conformance suite over all methods."""

import pytest

from rankwise.decide.choose import require_sound_method
from rankwise.decide.configure import Rung, configure
from rankwise.decide.recipes import BY_NAME, PLANNED_METHODS
from rankwise.errors import JobError, UsageError
from rankwise.methods import METHODS, NF4_BITS, NOT_TRACED, TUNERS, AdapterOptions, Method, targeted, tuner
from rankwise.methods.base import config_fields
from rankwise.methods.bottleneck import inner_width, params_per_adapter
from rankwise.methods.lora import lora_params
from rankwise.records import TrainConfig
from rankwise.records.job import MethodChoice
from tests import builders

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def config(method: Method, **changes: object) -> TrainConfig:
    made = configure(builders.job(), builders.facts(builders.llama3_8b()), BY_NAME[method.name], Rung())
    return made.model_copy(update=changes)


# -- published counts for Llama-3-8B ----------------------------------------------------------


def test_the_base_has_its_published_size() -> None:
    facts = builders.llama3_8b()
    assert facts.total_params == 8_030_261_248
    assert round(facts.linear_params / 1e9, 3) == 6.979
    assert builders.smollm2().total_params == 134_515_008


@pytest.mark.parametrize(
    ("r", "targets", "params"),
    [
        (16, "all-linear", 41_943_040),
        (32, "all-linear", 83_886_080),
        (1, "all-linear", 2_621_440),
        (64, ("q_proj", "k_proj", "v_proj", "o_proj"), 54_525_952),
        (16, ("q_proj", "v_proj"), 6_815_744),
    ],
)
@pytest.mark.parametrize("name", ["lora", "qlora"])
def test_lora_trains_as_many_parameters_as_published(
    name: str, r: int, targets: str | tuple[str, ...], params: int
) -> None:
    chosen = config(METHODS[name], r=r, target_modules=targets)
    assert chosen.r == r and lora_params(builders.llama3_8b(), r, chosen.target_modules) == params


def test_one_rank_on_smollm2_is_305280_parameters() -> None:
    assert lora_params(builders.smollm2(), 1, "all-linear") == 305_280


def test_nf4_holds_the_linear_layers_of_llama3_8b_in_3_60_gb() -> None:
    assert round(NF4_BITS, 3) == 4.127
    assert round(NF4_BITS / 8 * builders.llama3_8b().linear_params / 1e9, 2) == 3.60


# -- targets -------------------------------------------------------------------------------------


def test_targets_are_names_of_linear_layers() -> None:
    facts = builders.llama3_8b()
    assert targeted(facts, None) == targeted(facts, "all-linear") == facts.linears
    assert [s.name for s in targeted(facts, "q_proj")] == ["q_proj"]
    assert [s.name for s in targeted(facts, ("v_proj", "q_proj"))] == ["q_proj", "v_proj"]


@pytest.mark.parametrize("targets", ["c_attn", ("query", "value")])
def test_targets_that_no_layer_has_are_refused_with_those_there_are(targets: str | tuple[str, ...]) -> None:
    with pytest.raises(JobError) as caught:
        targeted(builders.llama3_8b(), targets)
    assert "no linear layer of llama-3-8b" in caught.value.what and caught.value.exit_code == 2
    assert all(s.name in caught.value.expected for s in builders.llama3_8b().linears)


def test_a_target_that_one_layer_lacks_is_left_out_while_another_has_it() -> None:
    assert [s.name for s in targeted(builders.llama3_8b(), ("q_proj", "c_attn"))] == ["q_proj"]


# -- conformance: a new method runs through this by being in METHODS ------------------------------


def test_the_list_is_by_name() -> None:
    assert list(METHODS) == [m.name for m in METHODS.values()]


@every_method
def test_it_is_configured_with_the_options_that_it_has_and_no_other(method: Method) -> None:
    own = MethodChoice.model_fields.keys() - {"name"}
    assert set(method.options) <= own
    made = config(method)
    assert {name for name in own if getattr(made, name) is not None} <= set(method.options)


@every_method
def test_a_plan_can_be_forced_to_it_and_carries_it_out(method: Method) -> None:
    recipe = BY_NAME[method.name]
    assert recipe.method == method.name in PLANNED_METHODS and recipe.executable
    assert recipe.low_rank == ("r" in method.options) == ("lora" in method.name or method.name in ("dora", "pissa"))


@every_method
def test_an_option_of_another_method_is_refused_by_name(method: Method) -> None:
    given = {
        "r": 4,
        "lora_alpha": 8.0,
        "target_modules": "all-linear",
        "num_virtual_tokens": 5,
        "bottleneck_size": 4,
    } | {
        "loraplus_lr_ratio": 16.0,
        "init_lora_weights": "pissa_niter_4",
    }
    for key, value in given.items():
        forced = builders.job(method={"name": method.name, key: value})
        if key in method.options:
            require_sound_method(forced, builders.facts())
            continue
        with pytest.raises(JobError) as caught:
            require_sound_method(forced, builders.facts())
        assert f"method.{key} is given, and {method.name} has no such option" in caught.value.what


# -- what a person says, in the words of a PEFT config class --------------------------------------

LORA_FIELDS = frozenset({"r", "lora_alpha", "lora_dropout", "target_modules"})
EVERY = AdapterOptions(r=4, lora_alpha=8.0, lora_dropout=0.1)


def test_rank_alpha_and_dropout_go_to_the_fields_there_are() -> None:
    values, notes = config_fields(TUNERS["lora"], EVERY, LORA_FIELDS)
    assert values == {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8.0, "lora_dropout": 0.1} and notes == []
    values, _ = config_fields(TUNERS["oft"], EVERY, frozenset({"r", "oft_block_size", "module_dropout"}))
    assert (values["r"], values["oft_block_size"], values["module_dropout"]) == (4, 0, 0.1)
    values, _ = config_fields(TUNERS["adalora"], EVERY, LORA_FIELDS | {"init_r", "target_r"})
    assert (values["init_r"], values["target_r"]) == (6, 4) and "r" not in values


def test_what_has_no_place_is_said() -> None:
    _, notes = config_fields(TUNERS["ia3"], EVERY, frozenset({"target_modules"}))
    assert notes == [
        "rank 4 is ignored: ia3 has no rank",
        "alpha 8.0 is ignored: ia3 has no alpha",
        "dropout 0.1 is ignored: ia3 has no dropout",
    ]


@pytest.mark.parametrize(("name", "field"), [("dora", "use_dora"), ("rslora", "use_rslora")])
def test_what_makes_a_method_is_fixed(name: str, field: str) -> None:
    assert config_fields(TUNERS[name], AdapterOptions(), LORA_FIELDS | {field})[0][field] is True


def test_virtual_tokens_have_a_default_and_can_be_said() -> None:
    fields = frozenset({"num_virtual_tokens"})
    assert config_fields(TUNERS["prompt"], AdapterOptions(), fields)[0]["num_virtual_tokens"] == 20
    assert config_fields(TUNERS["prompt"], AdapterOptions(num_virtual_tokens=5), fields)[0]["num_virtual_tokens"] == 5


def test_a_method_is_found_by_name_and_a_slip_is_answered() -> None:
    assert tuner("dora") is TUNERS["dora"]
    assert tuner("newest", {"NEWEST"}).peft_type == "NEWEST"
    with pytest.raises(UsageError) as caught:
        tuner("qlroa")
    assert "no method qlroa" in caught.value.what and caught.value.fix == "did you mean qlora?"


def test_every_method_of_training_can_be_priced() -> None:
    assert set(METHODS) <= set(TUNERS) and not set(METHODS) & set(NOT_TRACED)
    assert list(TUNERS) == [t.name for t in TUNERS.values()]


@pytest.mark.parametrize(("asked", "width"), [(None, 256), (64, 64)])
def test_a_bottleneck_has_two_matrices_and_two_biases(asked: int | None, width: int) -> None:
    assert inner_width(4096, asked) == width
    assert params_per_adapter(4096, width) == 4096 * width + width + width * 4096 + 4096
