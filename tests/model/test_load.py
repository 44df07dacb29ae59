"""What is loaded is the class that transformers has, with the attention that it can have."""

from pathlib import Path

from rankwise import api
from rankwise.model.load import load_base
from rankwise.records import Step
from tests.tiny import tiny_gemma2, tiny_llama
from tests.training import carry_out, toy_run


def test_a_class_has_the_attention_that_transformers_has_for_it(tmp_path: Path) -> None:
    llama, gemma = (
        load_base(tiny_llama(tmp_path / "a"), dtype="fp32"),
        load_base(tiny_gemma2(tmp_path / "b"), dtype="fp32"),
    )
    assert (llama.config._attn_implementation, gemma.config._attn_implementation) == ("sdpa", "eager")


def test_a_model_without_sdpa_is_planned_trained_and_proven(tmp_path: Path) -> None:
    run = toy_run(tmp_path, tiny_gemma2(tmp_path / "model"), "lora")
    losses = [e.loss for e in carry_out(run) if isinstance(e, Step)]
    assert len(losses) == 6 and losses[-1] < losses[0]
    assert api.verify(run)[0].passed
