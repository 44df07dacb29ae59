"""When a plan packs, and when it refuses to."""

import pytest

from rankwise.decide.configure import Rung, configure
from rankwise.decide.packing import packs, require_packable, why_not
from rankwise.decide.recipes import BY_NAME
from rankwise.errors import JobError
from rankwise.estimate.price import setup_of
from rankwise.records import Candidate, TrainOptions
from tests import builders
from tests.builders import job


def on_cpu(**config: object) -> object:
    facts = builders.facts(builders.smollm2(), builders.data_facts(320, 95), builders.laptop())
    model = facts.model.model_copy(update={"config": {**facts.model.config, **config}})
    return facts.model_copy(update={"model": model})


@pytest.mark.parametrize("method", ["lora", "qlora", "full", "dora", "bottleneck"])
def test_a_cpu_packs_and_a_gpu_does_not(method: str) -> None:
    assert packs(method, on_cpu())
    assert not packs(method, builders.facts(device=builders.a100()))


@pytest.mark.parametrize("method", ["prompt", "prefix", "p_tuning"])
def test_learned_positions_are_never_packed(method: str) -> None:
    assert not packs(method, on_cpu())
    with pytest.raises(JobError, match="packing cannot hold"):
        require_packable(job(method={"name": method}, train={"packing": True}), on_cpu())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}, "carry a state"),
        ({"model_type": "qwen3_next", "layer_types": ["linear_attention", "full_attention"]}, "carry a state"),
        ({"model_type": "mamba2", "state_size": 16}, "carry a state"),
        ({"model_type": "falcon", "alibi": True}, "ALiBi"),
        ({"model_type": "opt"}, "without the position ids"),
    ],
)
def test_models_whose_documents_would_see_each_other_are_refused(config: dict[str, object], words: str) -> None:
    assert words in (why_not(config) or "")
    assert not packs("lora", on_cpu(**config))
    with pytest.raises(JobError, match=words.split(" (")[0]):
        require_packable(job(train={"packing": True}), on_cpu(**config))
    require_packable(job(), on_cpu(**config))


def test_several_devices_do_not_pack() -> None:
    two = builders.facts(device=builders.laptop(count=2))
    assert not packs("lora", two)
    with pytest.raises(JobError, match="on 2 devices"):
        require_packable(job(train={"packing": True}), two)


def test_a_model_that_nobody_tried_packs_when_it_is_asked_to() -> None:
    facts = on_cpu(model_type="another")
    assert not packs("lora", facts)
    require_packable(job(train={"packing": True}), facts)
    asked = configure(job(train={"packing": True}), facts, BY_NAME["lora"], Rung())
    assert asked.packing and not configure(job(), facts, BY_NAME["lora"], Rung()).packing


def test_the_job_has_the_last_word_and_rows_stay_what_they_were() -> None:
    packed, plain = (configure(job(train=said), on_cpu(), BY_NAME["lora"], Rung()) for said in ({}, {"packing": False}))
    assert packed.packing and not plain.packing
    assert packed.effective_batch == plain.effective_batch and packed.max_steps == plain.max_steps


def test_memory_is_priced_for_rows_that_are_filled() -> None:
    """Unpacked, no row is longer than the longest; packed, a row is filled up to max_length."""
    facts = on_cpu()
    config = configure(job(train=TrainOptions(max_length=512).model_dump()), facts, BY_NAME["lora"], Rung())

    def length(packing: bool) -> int:
        changed = config.model_copy(update={"packing": packing})
        return setup_of(
            facts, Candidate(id="a", recipe="lora", method="lora", parallel="none", config=changed)
        ).max_length

    assert length(False) == min(512, facts.data.longest)
    assert length(True) == min(512, facts.data.longest * config.gradient_accumulation_steps)
