"""Any task of lm-evaluation-harness on a model in memory: its numbers, and the outcome of each item beside them."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn
from transformers import AutoTokenizer

from rankwise.errors import BenchmarkError, ModelError
from rankwise.evaluate.benchmarks import interval_of, right_or_wrong
from rankwise.evaluate.harness_quiet import quiet_harness, seeded
from rankwise.evaluate.harness_tasks import Asked, Loaded
from rankwise.model.likelihood import Autocast, evaluating
from rankwise.model.load import quiet_transformers
from rankwise.records import BenchmarkScore, BenchmarkScores, content_hash
from rankwise.records.benchmark import Aggregation

RESAMPLES = 100_000  # lm_eval.simple_evaluate's own, of metrics whose standard error it draws
Progress = Callable[[str, int, int], None]


class Items(NamedTuple):
    """The outcome of each item, in order: `sums / weights` is its score."""

    sums: list[float]
    weights: list[float]


def load_tokenizer(folder: Path, new_tokens: Sequence[str] = (), chat_template: Path | None = None) -> Any:
    """transformers' tokenizer of a model folder, as a job trains with it.

    Raises:
        ModelError: transformers cannot read it.
    """
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a broken folder surfaces as whatever transformers or json raised
        raise ModelError(
            f"transformers could not load the tokenizer of {folder}: {type(error).__name__}: {error}",
            expected="a tokenizer of a class in this transformers, which lm-evaluation-harness needs",
            fix="download or copy the model again",
        ) from error
    tokenizer.add_tokens(list(new_tokens))
    if chat_template is not None:
        tokenizer.chat_template = chat_template.read_text(encoding="utf-8")
    return tokenizer


def score(
    model: nn.Module,
    tokenizer: Any,
    loaded: Loaded,
    asked: Asked,
    progress: Progress = lambda what, done, total: None,
    *,
    resamples: int = RESAMPLES,
    autocast: Autocast = None,
    only: Mapping[str, Sequence[int]] | None = None,
) -> BenchmarkScores:
    """Ask a model, as it is: an adapter counts where it is on.

    The model's mode and every random generator are after it what they were.

    Args:
        progress: told (task, requests done, requests in all).
        resamples: for standard errors that the harness draws (perplexity of single tokens, F1, BLEU); 0: none at all.
        autocast: arithmetic; None: in the precision of the weights, as the harness does it.
        only: by task, the numbers of the items that are asked, ascending; None: all up to `asked.limit`.

    Raises:
        BenchmarkError: a chat template is asked for and there is none, or a number that is none came out.
    """
    from lm_eval.evaluator import evaluate

    from rankwise.evaluate.harness_model import ToldModel

    if asked.chat_template and not tokenizer.chat_template:
        raise BenchmarkError(
            "the model has no chat template to render prompts by",
            expected="chat_template.jinja, or a job with `chat_template`",
            fix="leave --chat-template out",
        )
    aloud = sys.stderr

    def told(done: int, total: int) -> None:
        progress(loaded.name, done, total)

    with seeded(asked.seed), evaluating(model), quiet_harness() as heard:
        for task in loaded.content["tasks"].values():
            task.set_fewshot_seed(seed=asked.seed)  # each model gets the same examples
        asked_of = ToldModel(model, tokenizer, asked.batch_size, autocast, told=told, aloud=aloud)
        heard.seen.clear()  # it warns of every model in memory
        found = evaluate(
            lm=asked_of,
            task_dict=loaded.content,
            limit=asked.limit if only is None else None,
            samples=only,
            bootstrap_iters=resamples,
            apply_chat_template=asked.chat_template,
            fewshot_as_multiturn=True,
        )
    return BenchmarkScores(scores=tuple(_scores(found, loaded, asked)), notes=tuple(heard.notes()))


# -- from the harness's results to ours ----------------------------------------------------------------


def _scores(found: Mapping[str, Any], loaded: Loaded, asked: Asked) -> Iterator[BenchmarkScore]:
    tasks = {
        (name, metric, kind): _task_score(found, loaded, asked, name, metric, kind)
        for name in loaded.content["tasks"]
        for metric, kind in _metrics(found["results"][name])
    }
    for name, group in loaded.content.get("groups", {}).items():
        for metric, kind in _metrics(found.get("groups", {}).get(name, {})):
            yield _group_score(found, loaded, asked, group, tasks, metric, kind)
    yield from tasks.values()


def _metrics(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(metric, filter) of each value that a task or group has."""
    named = [key.split(",", 1) for key in results if "," in key]
    return [(metric, kind) for metric, kind in named if not metric.endswith("_stderr")]


def _task_score(
    found: Mapping[str, Any], loaded: Loaded, asked: Asked, name: str, metric: str, kind: str
) -> BenchmarkScore:
    task = loaded.content["tasks"][name]
    raw = [sample[metric] for sample in found["samples"][name] if sample["filter"] == kind and metric in sample]
    aggregation, items = _outcomes(task.aggregation().get(metric), raw)
    value, stderr = _number(found["results"][name], name, metric, kind)
    return BenchmarkScore(
        task=name,
        metric=metric,
        filter=kind,
        unit=_unit(aggregation, items.sums),
        value=value,
        stderr=stderr,
        interval=interval_of(aggregation, items.sums, items.weights, value, stderr),
        items=len(raw),
        num_fewshot=task.get_config("num_fewshot"),
        version=_version(task.VERSION),
        data_hash=loaded.hashes[name],
        aggregation=aggregation,
        outcomes=tuple(items.sums),
        weights=tuple(items.weights),
        subtasks={},
        **_common(found, asked, name, metric),
    )


def _group_score(
    found: Mapping[str, Any],
    loaded: Loaded,
    asked: Asked,
    group: Any,
    tasks: Mapping[tuple[str, str, str], BenchmarkScore],
    metric: str,
    kind: str,
) -> BenchmarkScore:
    """A group's value is the mean of its tasks', by their items unless it says otherwise (`weight_by_size`)."""
    names = [task.task_name for task in group.get_all_tasks()]
    parts = [tasks[name, metric, kind] for name in names if (name, metric, kind) in tasks]
    by_size = next(a.weight_by_size for a in group.aggregate_metric_list if a.metric == metric)
    sizes = [part.items if by_size else 1 for part in parts]
    value, stderr = _number(found["results"][group.name], group.name, metric, kind)
    return BenchmarkScore(
        task=group.name,
        metric=metric,
        filter=kind,
        unit=parts[0].unit,
        value=value,
        stderr=stderr,
        interval=interval_of("subtasks", (), (), value, stderr),
        items=sum(part.items for part in parts),
        num_fewshot=found["n-shot"].get(group.name),
        version=_version(group.version),
        data_hash=content_hash([part.data_hash for part in parts]),
        aggregation="subtasks",
        outcomes=(),
        weights=(),
        subtasks={part.task: size / sum(sizes) for part, size in zip(parts, sizes, strict=True)},
        **_common(found, asked, group.name, metric),
    )


def _common(found: Mapping[str, Any], asked: Asked, name: str, metric: str) -> dict[str, Any]:
    return {
        "higher_is_better": found["higher_is_better"].get(name, {}).get(metric),
        "limit": asked.limit,
        "chat_template": asked.chat_template,
        "seed": asked.seed,
        "harness": version("lm-eval"),
    }


def _number(results: Mapping[str, Any], name: str, metric: str, kind: str) -> tuple[float, float | None]:
    value, stderr = results[f"{metric},{kind}"], results.get(f"{metric}_stderr,{kind}")
    if not isfinite(value):
        raise BenchmarkError(f"{name}: {metric} is {value}", expected="a finite number", fix="leave the task out")
    return float(value), float(stderr) if isinstance(stderr, (int, float)) and isfinite(stderr) else None


def _version(said: Any) -> str | None:
    return None if said in (None, "Yaml", "N/A") else str(said)


def _unit(aggregation: Aggregation, outcomes: Sequence[float]) -> str:
    if right_or_wrong(aggregation, outcomes):
        return "share"
    return {"perplexity": "perplexity", "bits_per_byte": "bits per byte"}.get(aggregation, "score")


def _outcomes(aggregate: Any, raw: Sequence[Any]) -> tuple[Aggregation, Items]:
    """A number for each item where the harness takes their mean, or a function of it; else nothing."""
    from lm_eval.api import metrics

    none = Items([], [])
    if aggregate in (None, metrics.mean):
        numbers = [_float(value) for value in raw]
        known = [number for number in numbers if number is not None]
        return ("mean", Items(known, [1.0] * len(known))) if len(known) == len(raw) else ("other", none)
    if aggregate is metrics.perplexity:
        return "perplexity", Items([float(value) for value in raw], [1.0] * len(raw))
    if aggregate in (metrics.weighted_perplexity, metrics.bits_per_byte):
        kind: Aggregation = "bits_per_byte" if aggregate is metrics.bits_per_byte else "perplexity"
        return kind, Items([float(total) for total, _ in raw], [float(count) for _, count in raw])
    return "other", none


def _float(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if isfinite(number) else None
