"""DataFacts: the job's rows counted with the model's own tokenizer, template and split, or taken from a description."""

from collections.abc import Sequence
from pathlib import Path

from rankwise.records import DataFacts, Job
from rankwise.records.job import OnLong
from rankwise.text.ability import ability_sets, described_facts, watched_facts
from rankwise.text.dataset import load_dataset
from rankwise.text.fitting import lengths_of, supervised_of
from rankwise.text.formats import read_probes
from rankwise.text.general import TOKENS_EXPECTED, replay_of
from rankwise.text.lengths import histogram
from rankwise.text.sources import files_of, hash_source
from rankwise.text.template import ChatText
from rankwise.text.tokens import Progress, quiet, tokens_of

ASSUMED_TOKENS = 512  # of a row when nobody says: instructions have 100 to 500, worked answers 500 to 2,000
SHORTEST = 8  # tokens; what a job may set max_length to


def observe_data(
    job: Job,
    chat: ChatText | None,
    max_length: int | None,
    on_long: OnLong,
    *,
    max_positions: int | None = None,
    general: Path | None = None,
    progress: Progress = quiet,
) -> DataFacts:
    """Count the job's data as training will see it.

    Args:
        chat: the model's tokenizer and template; described data needs none.
        max_length: tokens; None takes the longest row.
        max_positions: the model's own limit, which caps both.
        general: the general rows (`text.general.general_path`), which need not be there yet where the base writes them.

    Raises:
        DataError: a file that cannot be read as rows or probes, or `on_long: error` and a longer row.
    """
    if job.data.train is None:
        return _described(job, max_length)
    assert chat is not None
    seed = job.train.seed or 0
    whole = max(tokens_of(job.data.train, chat, seed, progress).whole().lengths, default=SHORTEST)
    longest = max_length or whole
    length = max(SHORTEST, min(longest, max_positions or longest))
    to_write = replay_of(job) if general and not general.exists() else None
    general = None if to_write else general
    data = load_dataset(job, chat, general=general, max_length=length, on_long=on_long, seed=seed, progress=progress)
    lengths, supervised = lengths_of(data.train), supervised_of(data.train)
    general_supervised = [*supervised_of(data.replay), *supervised_of(data.general)]
    sources = _sources(job, general)
    apart = f", {data.apart} of them in several texts" if data.apart else ""
    count = sum(len(files_of(source)) for source in sources)
    return DataFacts(
        format=data.format,
        rows=len(lengths),
        tokens=sum(lengths),
        supervised_tokens=sum(supervised),
        mean_length=sum(lengths) / len(lengths),
        longest=data.longest,
        long_rows=data.lengths.long_rows,
        dropped_rows=data.lengths.dropped_rows,
        lost_supervised_tokens=data.lengths.lost_supervised_tokens,
        length_histogram=histogram(lengths),
        validation_rows=len(data.validation),
        validation_tokens=sum(lengths_of(data.validation)),
        general_rows=to_write.rows if to_write else data.general_rows,
        general_supervised_per_row=TOKENS_EXPECTED if to_write else _mean(general_supervised),
        general_to_write=to_write.rows if to_write else 0,
        facts=len(read_probes(job.data.facts)) if job.data.facts else 0,
        watched=() if job.forgetting.watch_steps == 0 else watched_facts(ability_sets(job, chat, data.general)),
        files={str(source): hash_source(source) for source in sources},
        source=f"read from {count} files, rows of at most {length} tokens{apart}; "
        f"tokenised rows take {data.cache_bytes / 1e6:,.1f} MB in the cache",
    )


def _mean(values: Sequence[int]) -> float | None:
    return sum(values) / len(values) if values else None


def _sources(job: Job, general: Path | None) -> list[Path]:
    data = job.data
    validation = data.validation if isinstance(data.validation, Path) else None
    watched = [job.forgetting.general, job.forgetting.questions]
    given = [data.train, validation, general, data.facts, job.chat_template, *watched]
    return [path for path in given if path is not None]


def _described(job: Job, max_length: int | None) -> DataFacts:
    """What the description says, and nothing read. Labels are not described: every token is taken to carry one."""
    examples, tokens = job.data.examples, job.data.tokens_per_example or ASSUMED_TOKENS
    assert examples is not None
    share = job.data.validation
    held_out = max(1, round(share * examples)) if isinstance(share, float) and examples > 1 else 0
    mean = min(tokens, max_length or tokens)
    rows = examples - held_out
    return DataFacts(
        format="described",
        rows=rows,
        tokens=rows * mean,
        supervised_tokens=rows * mean,
        mean_length=mean,
        longest=tokens,
        long_rows=0,
        dropped_rows=0,
        lost_supervised_tokens=0,
        length_histogram=((max(16, 1 << (mean - 1).bit_length()), rows),),
        validation_rows=held_out,
        validation_tokens=held_out * mean,
        general_rows=0,
        general_supervised_per_row=None,
        facts=0,
        watched=() if job.forgetting.watch_steps == 0 else described_facts(),
        files={},
        source="described, not read; every token taken as labelled, no length known but the mean",
    )
