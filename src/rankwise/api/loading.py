"""A finished run's data, its model and the untouched base."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rankwise.errors import RunError
from rankwise.methods import METHODS, TUNERS
from rankwise.records import Job, Plan, TrainConfig
from rankwise.store import Run
from rankwise.text.dataset import Dataset, load_dataset
from rankwise.text.general import general_path
from rankwise.text.probes import Probe, read_probes
from rankwise.text.template import ChatText


def require_finished(run: Run) -> Run:
    """The run itself. Raises RunError where it has no model yet."""
    state = run.state()
    if state != "finished":
        raise RunError(
            f"{run.folder} is {state}, not finished",
            fix=f"continue with `rankwise train {run.folder} --resume`" if state != "planned" else "train it first",
        )
    return run


def load_inputs(decided: Plan) -> tuple[TrainConfig, ChatText, Dataset]:
    """The chosen configuration, the chat template and the rows of a plan."""
    config = decided.verdict.config
    assert config is not None
    text = text_of(decided)
    data = load_dataset(
        decided.job,
        text,
        general=general_path(decided.job, decided.facts.model),
        max_length=config.max_length,
        on_long=config.on_long,
        seed=decided.split_seed,
    )
    return config, text, data


def text_of(decided: Plan) -> ChatText:
    """The tokenizer and the chat template that a plan's model is trained with."""
    return ChatText.for_job(decided.job, decided.facts.model.path)


def probes_of(job: Job) -> list[Probe]:
    """The closed-book questions of a job; none where it names no file."""
    return read_probes(job.data.facts) if job.data.facts else []


def load_tuned(
    run: Run, decided: Plan, *, adapter: Path | None = None
) -> tuple[Any, Callable[[], AbstractContextManager[Any]]]:
    """(the tuned model, how to get the untouched base).

    Args:
        adapter: another one than the run's own.
    """
    from rankwise.model.attach import load_adapter, untouched
    from rankwise.model.load import load_base
    from rankwise.model.vocabulary import extend

    base_folder, dtype = decided.facts.model.path, inference_dtype(decided)
    if METHODS[decided.verdict.method].trains == "adapter":
        stored = TUNERS[decided.verdict.method].base
        base = load_base(base_folder, dtype=dtype, four_bit=stored == "nf4", eight_bit=stored == "int8")
        tuned = load_adapter(extend(base, decided.facts.new_tokens), adapter or run.adapter)
        return tuned, lambda: untouched(tuned)
    tuned = load_base(run.model, dtype=dtype)
    return tuned, lambda: always(extend(load_base(base_folder, dtype=dtype), decided.facts.new_tokens))


@contextmanager
def always(model: Any) -> Iterator[Any]:
    """A model that needs no switching, where a context is asked for."""
    yield model


def inference_dtype(decided: Plan) -> Any:
    """Inference runs in the precision of the frozen base; a full model was saved in that of the base's files."""
    config = decided.verdict.config
    assert config is not None
    if METHODS[config.method].trains == "adapter":
        return config.dtype
    return "bf16" if config.autocast == "bf16" and decided.facts.model.dtype == "bf16" else "fp32"
