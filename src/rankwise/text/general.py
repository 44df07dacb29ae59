"""Where a job's general rows lie: in the file that it names, or in the cache, where the base has written them."""

from dataclasses import asdict, dataclass
from pathlib import Path

from rankwise.files import cache_folder
from rankwise.records import Job, ModelFacts, content_hash

TOKENS_EXPECTED = 128  # labelled tokens of a row that the base has yet to write; half of what it may write


@dataclass(frozen=True)
class Replay:
    """What self-generated rows follow from, beside the base.

    Attributes:
        rows: wanted, those that measure forgetting among them.
        seed: of the sampling.
        question_tokens, answer_tokens: a turn that has not ended by then is dropped.
        way: of generating; a new number makes all rows anew.
    """

    rows: int
    seed: int
    question_tokens: int = 128
    answer_tokens: int = 256
    way: int = 1


def replay_of(job: Job) -> Replay | None:
    """What the base shall write for this job; None where the job gives its general rows, or none."""
    general = job.data.general
    if general is None or general.self_generated is None:
        return None
    return Replay(general.self_generated, job.train.seed or 0)


def general_path(job: Job, model: ModelFacts) -> Path | None:
    """The file of general rows, which need not be there yet where the base writes it; None: the job has none."""
    if (replay := replay_of(job)) is None:
        return job.data.general.path if job.data.general else None
    key = content_hash([model.weights_hash, model.template_hash, asdict(replay)])
    return cache_folder() / "replay" / f"{key[:32]}.jsonl"
