"""A task of lm-evaluation-harness as one slice of the forgetting watch: a number and a weight for each item."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from typing import Any, Literal

from torch import nn

from rankwise.errors import BenchmarkError
from rankwise.evaluate.harness import score
from rankwise.evaluate.harness_tasks import Asked, Loaded, load_tasks, raised
from rankwise.model.likelihood import Autocast
from rankwise.records import content_hash

ROLLING = "loglikelihood_rolling"  # of whole texts: the harness's name for perplexity


class TaskProbe:
    """What `watch.forgetting.Probe` asks for. Right answers give (1 or 0, 1), texts (nats, tokens).

    No solved examples stand before an item: they cost, and which ones would depend on how processes share the items.

    Attributes:
        name: of the task or group.
        metric: `choice`, a share of right answers by the task's first accuracy; `general_loss`, nats per token.
        chance: share that guessing gets right; None for cross-entropy.
        items: how many there are.
        content: hash of all that its numbers follow from, beside the model and its arithmetic.
    """

    def __init__(
        self,
        loaded: Loaded,
        asked: Asked,
        tokenizer: Any,
        autocast: Autocast,
        *,
        bare: Callable[[], nn.Module] | None = None,
        whole: bool = False,
    ):
        """
        Args:
            bare: the model as transformers or PEFT know it, where what trains is wrapped; None: as `measure` gets it.
            whole: every process asks all items. Where a model is split, all processes must take part in each forward
                pass, and shares of the items differ in how many passes they take.
        """
        self.loaded, self.asked, self.tokenizer, self.autocast = loaded, asked, tokenizer, autocast
        self.bare, self.whole = bare, whole
        self.name = loaded.name
        tasks = loaded.content["tasks"]
        kinds = {task.OUTPUT_TYPE == ROLLING for task in tasks.values()}
        if len(kinds) != 1:
            raise BenchmarkError(
                f"{self.name} holds both texts and questions, which have no measure in common",
                fix="name its tasks one by one in forgetting.tasks",
            )
        self.metric: Literal["general_loss", "choice"] = "general_loss" if kinds == {True} else "choice"
        docs = {name: list(islice(task.eval_docs, asked.limit)) for name, task in tasks.items()}
        self.places = [(name, number) for name, rows in docs.items() for number in range(len(rows))]
        self.items = len(self.places)
        self.chance = None if self.metric == "general_loss" else _chance(tasks, docs)
        self.tokens = self._tokens(docs) if self.metric == "general_loss" else []
        said = [asked.chat_template and tokenizer.chat_template, asked.batch_size, version("lm-eval")]
        self.content = content_hash([loaded.hashes, *said, tokenizer.get_vocab()])

    def measure(self, model: nn.Module, numbers: Sequence[int]) -> list[tuple[float, float]]:
        """(value, weight) of the items of these numbers, of which one may stand twice."""
        asked = range(self.items) if self.whole else sorted(set(numbers))
        only: dict[str, list[int]] = {}
        for name, place in (self.places[number] for number in asked):
            only.setdefault(name, []).append(place)
        tasks = self.loaded.content["tasks"]
        part = replace(self.loaded, content={"tasks": {name: tasks[name] for name in only}, "groups": {}})
        asked_of = self.bare() if self.bare else model
        found = score(asked_of, self.tokenizer, part, self.asked, resamples=0, autocast=self.autocast, only=only)
        kind = "mean" if self.metric == "choice" else "perplexity"
        said: dict[tuple[str, int], float] = {}
        for name, places in only.items():
            outcomes = next((s.outcomes for s in found.scores if s.task == name and s.aggregation == kind), None)
            if outcomes is None:
                raise _no_number(name)
            said |= {(name, number): value for number, value in zip(places, outcomes, strict=True)}
        if self.metric == "choice":
            return [(said[self.places[number]], 1.0) for number in numbers]
        return [(-said[self.places[number]], self.tokens[number]) for number in numbers]

    def _tokens(self, docs: dict[str, list[Any]]) -> list[float]:
        """Of each text, as the harness encodes it."""
        tasks = self.loaded.content["tasks"]
        return [
            float(len(self.tokenizer.encode(tasks[n].doc_to_target(doc)))) for n, rows in docs.items() for doc in rows
        ]


def task_probes(
    asked: Asked,
    tokenizer: Any,
    autocast: Autocast,
    *,
    bare: Callable[[], nn.Module] | None = None,
    whole: bool = False,
) -> Iterator[TaskProbe]:
    """One for each name. Raises BenchmarkError for the first that cannot be asked, UsageError for an unknown one."""
    loaded, failed = load_tasks(replace(asked, num_fewshot=0))
    if failed:
        raise raised(failed[0])
    for one in loaded:
        yield TaskProbe(one, asked, tokenizer, autocast, bare=bare, whole=whole)


def _chance(tasks: dict[str, Any], docs: dict[str, list[Any]]) -> float:
    """Mean over the items of 1 / choices; what is generated is not guessed."""
    found = [
        1 / len(tasks[name].doc_to_choice(doc)) if tasks[name].OUTPUT_TYPE == "multiple_choice" else 0.0
        for name, rows in docs.items()
        for doc in rows
    ]
    return sum(found) / len(found)


def _no_number(name: str) -> BenchmarkError:
    return BenchmarkError(
        f"{name} keeps no number an item, so it cannot be watched",
        expected="a task with acc, acc_norm or exact_match, or with word_perplexity",
        fix="leave it out of forgetting.tasks; `rankwise eval --tasks` runs it after training",
    )
