"""What was predicted beside what happened: the ledger's entries and the run's."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rankwise.api.loading import inference_dtype, probes_of
from rankwise.errors import RankwiseError
from rankwise.estimate import commands, ledger
from rankwise.estimate.price import setup_of
from rankwise.files import folder_bytes, write_record
from rankwise.observe.devices import observe_device
from rankwise.records import Actual, Candidate, Plan
from rankwise.records.job import Hardware
from rankwise.store import Run
from rankwise.text.dataset import Dataset
from rankwise.text.template import ChatText

LOG = logging.getLogger(__name__)


@contextmanager
def aside() -> Iterator[None]:
    """Work that is done stays done, whether or not its times can be kept."""
    try:
        yield
    except RankwiseError as error:
        LOG.warning("the times of this were not kept: %s", error.what)


def keep_training_times(run: Run) -> None:
    """The mean step and the whole run, beside the plan's predictions."""
    decided, evidence = run.plan(), run.evidence()
    priced, config = decided.chosen(), decided.verdict.config
    if priced is None or config is None:
        return
    facts = decided.facts
    named, method = str(decided.verdict.candidate), config.method
    candidate = Candidate(id=named, recipe=method, method=method, parallel="none", config=config)
    ledger.append(
        *ledger.training_entries(
            priced.time,
            facts.device,
            setup_of(facts, candidate),
            facts.data.mean_length,
            evidence.actuals,
            model=decided.job.model,
            source=f"run {run.name}",
        )
    )


def keep_evaluation_times(run: Run, decided: Plan, chat: ChatText, data: Dataset, spent: Any, seconds: float) -> None:
    from rankwise.evaluate.workload import expected_work

    positions = decided.facts.model.max_position_embeddings
    expected = expected_work(data, probes_of(decided.job), chat, positions)
    subject = _served(run, decided)
    if told := commands.estimate_evaluation(subject, expected):
        times = commands.Times(seconds, spent.forward_seconds, spent.generation_seconds)
        ledger.append(*commands.evaluation_entries(subject, told, spent.work(), times, f"run {run.name}"))
        _keep_actual(run, "evaluation_seconds", told, seconds)


def keep_merge_time(run: Run, decided: Plan, seconds: float) -> None:
    subject = _served(run, decided)
    if told := commands.estimate_merge(subject):
        ledger.append(commands.merge_entry(subject, told, seconds, f"run {run.name}"))
        _keep_actual(run, "merge_seconds", told, seconds)


def _served(run: Run, decided: Plan) -> commands.Served:
    """A run's model as evaluation and merge use it: on the CPU."""
    config, facts = decided.verdict.config, decided.facts.model
    assert config is not None
    return commands.Served(
        device=observe_device(Hardware(gpu="cpu")),
        model=decided.job.model,
        method=config.method,
        total=facts.total_params,
        linears=facts.linears,
        tied=facts.tie_word_embeddings,
        dtype=inference_dtype(decided),
        targets=config.target_modules,
        stored_bytes=facts.weight_bytes,
        adapter_bytes=folder_bytes(run.adapter) if run.adapter.is_dir() else 0,
    )


def _keep_actual(run: Run, quantity: str, told: commands.Told, seconds: float) -> None:
    """Beside the other predictions of the run; a later one takes the place of an earlier one."""
    evidence = run.evidence()
    made = Actual(
        quantity=quantity,
        unit="s",
        predicted=told.seconds,
        interval=told.interval,
        actual=seconds,
        source="from imported libraries to the result",
    )
    others = [a for a in evidence.actuals if a.quantity != quantity]
    write_record(run.evidence_path, evidence.model_copy(update={"actuals": (*others, made)}))


def actual(run: Run, quantity: str) -> Actual | None:
    """A prediction about a run beside what happened; None where nothing was predicted."""
    found = run.evidence().actuals if run.evidence_path.is_file() else ()
    return next((a for a in found if a.quantity == quantity), None)
