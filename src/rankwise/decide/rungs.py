"""The ways below fine-tuning: doing nothing, examples in the prompt, retrieval. They never hide the verdict."""

from rankwise.decide.rulebook import cite, threshold
from rankwise.records import Estimate, Facts, Job, Rung


def rungs(job: Job, facts: Facts, served: Estimate | None) -> tuple[Rung, ...]:
    """Nothing, prompting and retrieval, each with what speaks for or against trying it first.

    Args:
        served: any priced candidate, for the bytes that longer prompts take in the server.
    """
    return _nothing(job, facts), _prompting(job, facts, served), _retrieval(job, facts, served)


def first_try(found: tuple[Rung, ...]) -> tuple[str, ...]:
    """The rungs to try before training, retrieval before prompting where facts are wanted, as sentences."""
    order = {"nothing": 0, "retrieval": 1, "prompting": 2}
    return tuple(f"{r.name}: {r.text}" for r in sorted(found, key=lambda r: order[r.name]) if r.first)


def _nothing(job: Job, facts: Facts) -> Rung:
    loss = job.data.base_loss or (facts.diagnosis.base_loss.value if facts.diagnosis else None)
    known = threshold("nothing_to_do", "known")
    first = loss is not None and loss < known
    if loss is None:
        text, number = "what the base already knows of these answers is not measured", None
    elif first:
        text, number = "the base already predicts these answers; leave it as it is", f"{loss:.3f} nats per answer token"
    else:
        text, number = "the base does not yet give these answers", f"{loss:.3f} nats per answer token"
    return _rung("nothing", "nothing_to_do", text, number, first, 0.0, 0)


def _prompting(job: Job, facts: Facts, served: Estimate | None) -> Rung:
    count = threshold("prompting_first", "examples")
    tokens = count * facts.data.mean_length
    few = facts.data.rows < threshold("prompting_first", "few_rows")
    diagnosis = facts.diagnosis
    number: str | None
    if diagnosis is not None and diagnosis.prompting is not None:
        share = diagnosis.prompting
        first = diagnosis.conclusion == "prompting" or share.value >= threshold("prompting_first", "closes")
        number = f"{share.value:.0%} of the gap closed ({share.interval[0]:.0%} to {share.interval[1]:.0%})"
        text = "a few worked examples in the prompt" if first else "examples in the prompt close too little of the gap"
    else:
        first = few or job.goal in ("knowledge", "unsure", "task")
        number = f"{facts.data.rows:,} rows" if few else None
        text = "a few worked examples in the prompt"
    return _rung("prompting", "prompting_first", text, number, first, tokens, _cache_bytes(served, tokens))


def _retrieval(job: Job, facts: Facts, served: Estimate | None) -> Rung:
    tokens = threshold("prompting_first", "examples") * facts.data.mean_length
    if job.retrieval is None:
        text, first = "the job does not say whether answers could be looked up at run time", False
    elif job.retrieval == "no":
        text, first = "the job says that answers cannot be looked up at run time", False
    elif job.goal in ("knowledge", "unsure"):
        text, first = "put the source of each answer into the prompt", True
    else:
        text, first = "looking answers up changes what is known, not how the model talks", False
    return _rung("retrieval", "retrieval_first", text, None, first, tokens, _cache_bytes(served, tokens))


def _rung(name: str, rule: str, text: str, number: str | None, first: bool, tokens: float, cache: int | None) -> Rung:
    return Rung.model_validate(
        {
            "name": name,
            "first": first,
            "rule": rule,
            "text": text,
            "number": number,
            "tokens_per_request": tokens,
            "kv_cache_bytes": cache,
            "evidence": cite(rule),
        }
    )


def _cache_bytes(served: Estimate | None, tokens: float) -> int | None:
    """Key-value cache that the longer prompt takes, a conversation."""
    per_token = served.serving.kv_cache_bytes_per_token if served is not None else None
    return None if per_token is None else round(per_token * tokens)
