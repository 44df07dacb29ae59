"""A job that goes on from an adapter: the method and its sizes are the adapter's."""

from typing import Any

from rankwise.decide.compatibility import refused
from rankwise.errors import JobError
from rankwise.methods import targeted
from rankwise.records import AdapterFacts, Facts, Job

# An adapter of LoRA is the same file whatever its base is stored as.
SAME_FILE = {"qlora": "lora", "lora-8bit": "lora"}
SIZES = ("r", "lora_alpha", "num_virtual_tokens", "bottleneck_size")


def with_adapter(job: Job, facts: Facts) -> Job:
    """The job with the sizes of the adapter that it goes on from; itself where it begins anew."""
    if facts.adapter is None or job.method is None:
        return job
    taken: dict[str, Any] = {name: getattr(facts.adapter, name) for name in SIZES}
    if facts.adapter.r is not None:
        taken["target_modules"] = facts.adapter.target_modules
    return job.model_copy(update={"method": job.method.model_copy(update=taken)})


def require_same_adapter(job: Job, facts: Facts) -> None:
    """Raises JobError where the job's method, or a size that it says, is not the adapter's."""
    if facts.adapter is None or job.method is None:
        return
    adapter, name = facts.adapter, job.method.name
    if never := refused(name, "continuing an adapter"):
        raise JobError(f"method.adapter does not go with {name}: {never.why}", fix="begin a new adapter")
    if SAME_FILE.get(name, name) != adapter.method:
        raise JobError(
            f"method.name is {name}, and the adapter {adapter.folder} is one of {adapter.method}",
            expected="the method that the adapter was trained with",
            fix=f"method.name: {adapter.method}",
        )
    for size in SIZES:
        said, found = getattr(job.method, size), getattr(adapter, size)
        if said is not None and said != found:
            raise _differs(size, said, found, adapter)
    said = job.method.target_modules
    if said is not None and _names(facts, said) != _names(facts, adapter.target_modules):
        raise _differs("target_modules", said, ", ".join(sorted(_names(facts, adapter.target_modules))), adapter)


def _names(facts: Facts, targets: str | tuple[str, ...] | None) -> set[str]:
    return {shape.name for shape in targeted(facts.model, targets)}


def _differs(size: str, said: object, found: object, adapter: AdapterFacts) -> JobError:
    return JobError(
        f"method.{size} is {said}, and the adapter {adapter.folder} has {found}",
        expected="the sizes of the adapter, which cannot change while it is trained on",
        fix=f"leave method.{size} out, or begin a new adapter without method.adapter",
    )
