"""A few real steps, looks and answers of one arm, before a comparison whose budget is time: how long each takes."""

import gc
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rankwise.compare.measured import Measured
from rankwise.estimate.counted import counter_of
from rankwise.evaluate.paper import Paper
from rankwise.evaluate.paperwork import asked_of
from rankwise.methods import METHODS
from rankwise.model.generate import BATCH, Said, say
from rankwise.model.likelihood import row_losses
from rankwise.model.load import DTYPES
from rankwise.records import Allowance, Step
from rankwise.records.bakeoff import ArmKind
from rankwise.records.ledger import EvaluationWork
from rankwise.store import Run
from rankwise.worker.publishing import cast_weights
from rankwise.worker.trials import Asked, Material, TrainingRun, inference_dtype, untrained

Papers = Mapping[ArmKind, Mapping[int, Paper]]  # way to ask -> items of each kind at most -> what is asked
STEPS = 6  # the first has the optimizer's state to make, and is left out; the median of five bears a slow one
READ_ROWS = 4
SAID_TOKENS = 6


def measure(material: Material, papers: Papers, allowance: Allowance, scratch: Path, started: float) -> Measured:
    """Seconds of an arm's work on this device.

    Args:
        papers: of each way to ask that the comparison has, that of trained arms among them, by items asked at most.
        scratch: a folder that may be filled, and is removed.
        started: seconds from the start of this process until its rows were read.
    """
    began = time.monotonic()
    if allowance.config is None:
        model = untrained(material)
        return _answering(material, papers, model, Measured(start=started, load=time.monotonic() - began))
    asked = Asked("measured", material.config.learning_rate, material.config.seed, STEPS, 1)
    try:
        run = TrainingRun(Run(scratch), material, asked, allowance, stop=lambda: False)
        load = time.monotonic() - began
        run.train(lambda *_: None, publishes=False)
        steps = [event for event in run.run.events() if isinstance(event, Step)][1:]
        look = run.looks.look_seconds
        flops = counter_of(material.plan).mean_step(material.plan)
        model = run.engine.bare
        del run.engine.optimizer
        gc.collect()
        if METHODS[material.config.method].trains == "weights":
            cast_weights(model, DTYPES[inference_dtype(material.plan)])
        times = tuple(_as_mean(step, material) for step in steps)
        found = Measured(start=started, load=load, look=look, step_flops=flops, steps=times)
        return _answering(material, papers, model, found)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _as_mean(step: Step, material: Material) -> float:
    """Seconds of a step, as one of rows of mean length would have taken."""
    return step.seconds * material.plan.facts.data.mean_length * material.config.effective_batch / step.tokens


def _answering(material: Material, papers: Papers, model: Any, found: Measured) -> Measured:
    """With the seconds of all answers, from how long a token that is read and one that is said take here."""
    positions = material.plan.facts.model.max_position_embeddings
    plain = max(papers["trained"].items())[1]
    asked = (*plain.replies.items, *plain.questions.items)[:BATCH]
    rows = material.aside[:READ_ROWS]
    read = _seconds(lambda: row_losses(model, rows, material.config.autocast))
    a_token = read / sum(len(row.ids) for row in rows)
    first = _seconds(lambda: say(model, material.chat, asked, 1))
    said: list[Said] = []
    later = _seconds(lambda: said.extend(say(model, material.chat, asked, 1 + SAID_TOKENS)))
    a_step = max(0.0, later - first) / max(1, max(len(one.ids) for one in said) - 1)

    def seconds(work: EvaluationWork) -> float:
        prompts = sum(batch.rows * batch.prompt for batch in work.batches)
        return (work.tokens + prompts) * a_token + sum(batch.steps for batch in work.batches) * a_step

    answers = {
        kind: {most: seconds(asked_of(paper, positions, ends=kind != "base")) for most, paper in by.items()}
        for kind, by in papers.items()
    }
    return found.model_copy(update={"answers": answers})


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
