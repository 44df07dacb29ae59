"""What would change the call: found by deciding again with one input changed, never written by hand."""

from collections.abc import Callable

from rankwise.records import Facts, Flip, Job

World = tuple[Job, Facts]


def find_flips(job: Job, facts: Facts, verdict: Callable[[Job, Facts], str]) -> list[Flip]:
    """The nearest change of one input that changes `verdict`, along each axis that can change it."""
    now = verdict(job, facts)
    flips = []
    for say, at, far in _axes(job, facts):
        outcome = verdict(*at(far))
        if outcome == now:
            continue
        near, far = 1.0, far
        for _ in range(20):  # halving the logarithm of the factor 20 times is exact to a millionth
            middle = (near * far) ** 0.5
            if (found := verdict(*at(middle))) == now:
                near = middle
            else:
                far, outcome = middle, found
        flips.append(Flip(**{"if": say(far), "then": f"{outcome} instead of {now}"}))
    return flips


def _axes(job: Job, facts: Facts) -> list[tuple[Callable[[float], str], Callable[[float], World], float]]:
    """(how to say a factor, the world at that factor, the furthest factor looked at)."""
    device, data = facts.device, facts.data
    there = device.memory_bytes
    assert there is not None  # a plan is made for a device that is known

    def memory(factor: float) -> World:
        changed = device.model_copy(update={"memory_bytes": int(there * factor)})
        return job, facts.model_copy(update={"device": changed})

    def amount(factor: float) -> World:
        update = {k: round(getattr(data, k) * factor) for k in ("rows", "tokens", "supervised_tokens")}
        return job, facts.model_copy(update={"data": data.model_copy(update=update)})

    def say_memory(factor: float) -> str:
        return f"the device had {there * factor / 1e9:.2f} GB instead of {there / 1e9:.1f} GB"

    def say_amount(factor: float) -> str:
        return (
            f"the data had {data.supervised_tokens * factor:,.0f} answer tokens instead of {data.supervised_tokens:,}"
        )

    return [(say_memory, memory, 1e-3), (say_memory, memory, 1e3), (say_amount, amount, 1e6)]
