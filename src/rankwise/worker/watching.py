"""The forgetting watch of a run put together: what is asked (text), looked at (watch), held against the base with
intervals (evaluate) and acted on (train), over all processes.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rankwise.evaluate.harness import load_tokenizer
from rankwise.evaluate.harness_probe import task_probes
from rankwise.evaluate.harness_tasks import Asked
from rankwise.evaluate.paired import resampled
from rankwise.methods import METHODS, TUNERS
from rankwise.model.attach import untouched
from rankwise.records import Plan, TrainConfig, Watched
from rankwise.text.ability import ability_sets
from rankwise.text.dataset import Dataset
from rankwise.text.template import ChatText
from rankwise.train.checkpoints import Checkpoints
from rankwise.train.engines.engine import Engine
from rankwise.train.engines.group import Group
from rankwise.train.guard import Guard
from rankwise.train.loop import versions
from rankwise.watch.forgetting import Numbers, Probe, SetProbe, Watch

BEGINNING = 64  # tokens of a row that has no prompt of its own


def guard_of(
    plan: Plan, config: TrainConfig, engine: Engine, checkpoints: Checkpoints, data: Dataset, chat: ChatText
) -> Guard | None:
    """The guard of this run, its base asked or remembered; None where nobody watches. The model is wrapped and
    untrained. Every process calls it.
    """
    if config.watch_steps is None:
        return None
    group, method, tuner = engine.group, METHODS[config.method], TUNERS[config.method]
    # Of PiSSA the base is not the frozen weights, but what they are together with an adapter that was not trained yet.
    switches = method.trains == "adapter" and not tuner.residual
    watch = Watch(
        probes=_probes(plan, config, engine, data, chat),
        prompts=_prompts(data),
        autocast=config.autocast,
        budget=plan.job.forgetting.budget_nats,
        made_of=_made_of(plan, config, group),
        as_base=lambda: _as_base(engine, switches),
        starts_as_base=config.adapter is None and (not switches or method.neutral is not None),
        share=lambda items, measure: shared(group, items, measure),
        same=group.from_first,
        first=group.first,
        resampled=resampled,
    )
    watch.ask_base(engine.module)

    def look(step: int) -> Watched:
        return group.from_first(watch.look(step, engine.module))

    return Guard(look, config.watch_steps, plan.job.forgetting.action, checkpoints)


def _probes(plan: Plan, config: TrainConfig, engine: Engine, data: Dataset, chat: ChatText) -> list[Probe]:
    """Our sets or the job's, then tasks of lm-evaluation-harness. Raises BenchmarkError: one cannot be asked."""
    sets = ability_sets(plan.job, chat, data.general)
    probes: list[Probe] = [SetProbe(s.first(config.watch_items), config.autocast) for s in sets]
    wanted = plan.job.forgetting
    if wanted.tasks:
        tokenizer = load_tokenizer(plan.facts.model.path, plan.job.data.named_tokens, plan.job.chat_template)
        asked = Asked(wanted.tasks, wanted.tasks_path, limit=wanted.limit)
        probes += task_probes(asked, tokenizer, config.autocast, bare=lambda: engine.bare, whole=engine.splits)
    return probes


def _as_base(engine: Engine, switches: bool) -> AbstractContextManager[Any]:
    return untouched(engine.bare) if switches else nullcontext()


def _made_of(plan: Plan, config: TrainConfig, group: Group) -> list[Any]:
    """Everything that the numbers of a base follow from, but what it is asked."""
    tuner = TUNERS[config.method]
    return [
        plan.base_hash,
        plan.facts.new_tokens.rows if plan.facts.new_tokens else None,
        config.method if tuner.residual else tuner.base,
        config.dtype,
        config.autocast,
        plan.facts.device.name if group.device.type == "cuda" else group.device.type,
        versions()["torch"],
        versions()["transformers"],
    ]


def _prompts(data: Dataset) -> list[list[int]]:
    """Of a few held-out rows; the beginning of a row that is learned from its first token on."""
    found = zip(data.prompts(), data.validation, strict=False)
    return [prompt if len(prompt) > 1 else list(row.ids[:BEGINNING]) for prompt, row in found]


def shared(group: Group, items: int, measure: Callable[[Sequence[int]], Numbers]) -> Numbers:
    """Each process measures its share, and equally many: under ZeRO-3 and FSDP all must be there."""
    own = list(range(group.rank, items, group.world))
    filled = own + [0] * (-(-items // group.world) - len(own))
    found = dict(zip(own, measure(filled), strict=False))
    known = {number: said for each in group.gathered(found) for number, said in each.items()}
    return [known[number] for number in range(items)]
