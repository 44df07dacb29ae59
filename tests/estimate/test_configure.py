"""Options -> Configuration -> Setup: defaults are those that the help states, nonsense is refused by name."""

from typing import Any

import pytest

from rankwise.errors import UsageError
from rankwise.estimate.configure import configure, positions_of, refuse_other_models
from rankwise.estimate.options import OPTIONS, typed
from rankwise.methods import TUNERS
from rankwise.records import Configuration, CostOptions
from rankwise.unsupported import OTHER_TRAINING
from tests import builders

LLAMA = builders.llama3_8b().config
GPT2 = {"model_type": "gpt2", "n_positions": 1024}


def made(config: dict[str, Any] | None = None, **said: Any) -> Configuration:
    return configure(typed({"model": "some-model", **said}), config or LLAMA)


def refusal(config: dict[str, Any] | None = None, **said: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        made(config, **said)
    return caught.value


# -- defaults ------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_table() -> None:
    asked = made()
    stated = {name: option for name, option in OPTIONS.items() if not option.derived and option.default is not None}
    of_other_methods = {"prompt_length", "bottleneck"}
    found = asked.model_dump() | asked.costs.model_dump()
    assert {n: found[n] for n in stated if n not in of_other_methods} == {
        n: o.default for n, o in stated.items() if n not in of_other_methods
    }
    assert (asked.rank, asked.alpha, asked.targets, asked.seq_len) == (16, 32.0, "all-linear", 2048)
    assert (asked.parallel, asked.kbit_upcast, asked.double_quant, asked.devices) == ("none", False, False, 1)
    assert (asked.gpu, asked.examples, asked.tokens_per_example, asked.notes) == (None, None, None, ())


def test_every_default_can_be_said_in_words() -> None:
    assert all(option.default_words and option.help.endswith(".") for option in OPTIONS.values())


def test_every_option_is_a_field_and_every_field_an_option() -> None:
    own = set(Configuration.model_fields) - {"id", "config", "costs", "notes"}
    assert own | set(CostOptions.model_fields) == set(OPTIONS) and not own & set(CostOptions.model_fields)


def test_what_the_bill_depends_on_is_said_by_options_of_their_kind_and_range() -> None:
    assert made(variants=10, zipf=0.0, pricing="spot", failure_rate=0.0).costs == CostOptions(
        variants=10, zipf=0.0, pricing="spot", failure_rate=0.0
    )
    for wrong in ({"variants": 0}, {"failure_rate": 1.0}, {"write_bandwidth": 0}, {"pricing": "cheap"}, {"zipf": -1}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            typed(wrong)


def test_a_quantised_base_of_which_nothing_is_said_runs_under_the_trainers_flag() -> None:
    assert made(method="qlora").autocast == "bf16" and made(method="qlora", dtype="fp16").autocast == "fp16"
    assert made(method="qlora", autocast="none").autocast == "none"
    assert made(method="qlora", kbit_upcast=True).autocast == made(method="lora").autocast == "none"


def test_the_length_is_the_models_where_that_is_shorter() -> None:
    assert made(GPT2).seq_len == 1024 == positions_of(GPT2)
    assert made({"model_type": "bloom"}, seq_len=50_000).seq_len == 50_000  # ALiBi: no positions in its config


@pytest.mark.parametrize("method", ["qlora", "gptq-lora", "lora-8bit"])
def test_a_quantised_base_is_prepared_as_peft_documents_it_unless_said_otherwise(method: str) -> None:
    asked = made(method=method)
    assert asked.kbit_upcast and "PEFT" in asked.notes[0]
    assert asked.double_quant == (method == "qlora")
    assert not made(method=method, kbit_upcast=False).kbit_upcast
    assert not made(method="qlora", double_quant=False).double_quant


def test_several_devices_are_data_parallel_unless_said_otherwise() -> None:
    assert made(gpus=4, nodes=2).parallel == "ddp"
    assert made(gpus=4, parallel="fsdp").parallel == "fsdp"
    assert made(gpus=4, nodes=2).setup("gpu-8.0").world_size == 8


def test_rank_alpha_and_targets_belong_to_low_rank_methods() -> None:
    assert made(rank=4).alpha == 8.0 and made(rank=4, alpha=1).alpha == 1.0
    for method in ("full", "prompt", "bottleneck", "ia3"):
        asked = made(method=method)
        assert (asked.rank, asked.alpha, asked.targets) == (None, None, None)
    assert made(method="prompt").prompt_length == 20 and made(method="prompt").bottleneck is None
    assert made(method="bottleneck").bottleneck == 64 and made(method="lora").bottleneck is None
    assert made(method="vera", rank=64).rank == 64


# -- to the step ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "dtype", "autocast"),
    [
        ({}, "bf16", None),
        ({"dtype": "fp32"}, "fp32", None),
        ({"amp": True}, "fp32", "bf16"),
        ({"amp": True, "dtype": "fp16"}, "fp32", "fp16"),
        ({"autocast": "bf16"}, "bf16", "bf16"),
        ({"autocast": "fp16", "dtype": "bf16"}, "bf16", "fp16"),
    ],
)
def test_precision_reaches_the_step(said: dict[str, Any], dtype: str, autocast: str | None) -> None:
    setup = made(**said).setup("gpu-8.0")
    assert (setup.dtype, setup.autocast, setup.adapter_dtype) == (dtype, autocast, "fp32")


def test_every_option_of_the_step_reaches_it() -> None:
    said = {
        "method": "lora",
        "rank": 4,
        "dropout": 0.1,
        "targets": "q_proj, v_proj",
        "adapter_dtype": "bf16",
        "optimizer": "adamw_8bit",
        "batch": 3,
        "seq_len": 512,
        "grad_accum": 5,
        "gradient_checkpointing": True,
        "attn": "flash",
        "loss": "chunked",
        "parallel": "zero2",
        "offload": "optimizer",
        "gpus": 2,
    }
    setup = made(**said).setup("gpu-9.0")
    assert (setup.r, setup.lora_alpha, setup.lora_dropout, setup.target_modules) == (4, 8.0, 0.1, ("q_proj", "v_proj"))
    assert (setup.adapter_dtype, setup.optim, setup.per_device_train_batch_size) == ("bf16", "adamw_8bit", 3)
    assert (setup.max_length, setup.gradient_accumulation_steps, setup.gradient_checkpointing) == (512, 5, True)
    assert (setup.attn_implementation, setup.loss, setup.parallel) == ("flash", "chunked", "zero2")
    assert (setup.offload, setup.world_size, setup.device, setup.config) == ("optimizer", 2, "gpu-9.0", LLAMA)


# -- what was not meant --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"metod": "lora"}, "there is no option metod"),
        ({"method": "lroa"}, "there is no method 'lroa'"),
        ({"dtype": "int8"}, "there is no dtype 'int8'"),
        ({"attn": "xformers"}, "there is no attn"),
        ({"rank": 0}, "rank is 0"),
        ({"rank": "many"}, "rank is 'many'"),
        ({"rank": 2.5}, "rank is 2.5"),
        ({"rank": True}, "rank is True"),
        ({"batch": -1}, "batch is -1"),
        ({"seq_len": 0}, "seq_len is 0"),
        ({"grad_accum": 0}, "grad_accum is 0"),
        ({"gpus": 0}, "gpus is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": float("nan")}, "epochs is nan"),
        ({"examples": 0}, "examples is 0"),
        ({"alpha": 0}, "alpha is 0"),
        ({"dropout": 1}, "dropout is 1"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"amp": "yes"}, "amp is 'yes'"),
        ({"targets": ","}, "targets names no module"),
        ({"targets": 3}, "targets is 3"),
        ({"method": "full", "rank": 8}, "full has no --rank"),
        ({"method": "full", "kbit_upcast": True}, "full has no --kbit-upcast"),
        ({"method": "lora", "double_quant": True}, "lora has no --double-quant"),
        ({"method": "lora-8bit", "double_quant": True}, "lora-8bit has no --double-quant"),
        ({"method": "prompt", "rank": 8}, "prompt has no --rank"),
        ({"method": "bottleneck", "targets": "q_proj"}, "bottleneck has no --targets"),
        ({"method": "lora", "prompt_length": 8}, "lora has no --prompt-length"),
        ({"seq_len": 8193}, "seq_len is 8,193, and some-model has 8,192 positions"),
        ({"parallel": "none", "gpus": 2}, "parallel is none, and there are 2 devices"),
        ({"method": "qlora", "parallel": "zero3", "gpus": 2}, "DeepSpeed ZeRO-3 refuses"),
        ({"offload": "optimizer"}, "needs zero2, zero3 or fsdp"),
        ({"offload": "all", "parallel": "zero2", "gpus": 2}, "ZeRO-2 keeps whole weights"),
        ({"amp": True, "dtype": "fp32"}, "fp32 is no mixed precision"),
        ({"amp": True, "autocast": "fp16"}, "--autocast says fp16"),
        ({"amp": True, "method": "qlora"}, "--amp keeps fp32 weights"),
    ],
)
def test_what_cannot_be_is_refused_by_name(said: dict[str, Any], words: str) -> None:
    error = refusal(**said)
    assert words in error.what and error.exit_code == 2
    assert error.expected or error.fix or "needs" in error.what


@pytest.mark.parametrize("name", ["tensor", "context", "expert", "pipeline", "tensor-parallel"])
def test_parallelism_that_is_not_modelled_is_named(name: str) -> None:
    assert refusal(parallel=name).what == f"{name} parallelism is not modelled"


@pytest.mark.parametrize("name", OTHER_TRAINING)
def test_training_that_is_no_supervised_step_is_named(name: str) -> None:
    error = refusal(method=name)
    assert error.what.startswith(f"{name} is not modelled") and "would be wrong" in error.what
    assert name not in TUNERS


def test_a_nearly_right_name_is_offered() -> None:
    assert refusal(metod="lora").fix == "did you mean method?"
    assert refusal(method="qlra").fix == "did you mean qlora?"


@pytest.mark.parametrize("key", ["vision_config", "audio_config"])
def test_models_that_read_more_than_text_are_refused(key: str) -> None:
    with pytest.raises(UsageError, match="vision or audio model"):
        refuse_other_models({"model_type": "llava", key: {"hidden_size": 8}}, "llava")
    refuse_other_models(LLAMA, "llama")


def test_what_is_harmless_is_not_refused() -> None:
    assert made(method="full", kbit_upcast=False, rank=None).kbit_upcast is False
    assert made(rank="8").rank == 8 and made(alpha=4).alpha == 4.0
    assert made(gpus=1, parallel="fsdp", offload=True).offload == "all"
    assert made(targets=["q_proj", "q_proj"]).targets == ("q_proj",)


def test_what_was_assumed_is_noted() -> None:
    asked = made(tokens_per_example=9999, seq_len=1000)
    assert asked.tokens_per_example == 1000 and "9,999" in asked.notes[0]
    assert any("no adapter" in note for note in made(method="full", adapter_dtype="bf16").notes)
