"""How the rows of new tokens are trained (rule `new_tokens`)."""

from rankwise.decide.compatibility import refused
from rankwise.decide.rulebook import threshold
from rankwise.errors import JobError
from rankwise.records import Facts, Job
from rankwise.records.job import NewTokenRows


def new_token_rows(job: Job, facts: Facts, method: str) -> NewTokenRows | None:
    """The field of PEFT's configuration that trains them; None without new tokens, or where every weight trains."""
    if facts.new_tokens is None or method == "full" or refused(method, "new tokens"):
        return None
    if job.train.new_token_rows is not None:
        return job.train.new_token_rows
    if len(facts.new_tokens.ids) / facts.model.vocab_size <= threshold("new_tokens", "share"):
        return "trainable_token_indices"
    return "modules_to_save" if facts.model.tie_word_embeddings else "target_modules"


def require_trainable_tokens(job: Job, facts: Facts) -> None:
    """Raises JobError where the new tokens of a job cannot be trained as it asks."""
    way = job.train.new_token_rows
    if way is not None and not job.data.named_tokens:
        raise JobError(
            f"train.new_token_rows is {way}, and data.new_tokens names no token",
            expected="a list of tokens, or a file with one a line",
        )
    if not job.data.named_tokens:
        return
    if job.method is not None and (never := refused(job.method.name, "new tokens")):
        raise JobError(
            f"data.new_tokens does not go with {job.method.name}: {never.why}",
            expected="full, lora, qlora, lora-8bit, rslora or dora",
        )
    if job.method is not None and job.method.adapter is not None:
        raise JobError(
            "data.new_tokens does not go with method.adapter: the adapter has no rows for them",
            fix="merge the adapter, and train the merged model with the new tokens",
        )
    if way is not None and job.method is not None and job.method.name == "full":
        raise JobError("train.new_token_rows is for adapters: full trains every row", fix="leave it out")
    if way == "target_modules" and facts.model.tie_word_embeddings:
        raise JobError(
            f"train.new_token_rows: target_modules puts LoRA on the embedding, and the head of {facts.model.name} is "
            "tied to it: PEFT 0.21 merges the update twice into the one matrix",
            expected="trainable_token_indices or modules_to_save",
        )
