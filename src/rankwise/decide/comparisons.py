"""What the owner's own comparisons say to this job (rule `own_comparison`): a measured rate in the place of a prior,
and a method that was shown to be better on the side that the goal asks for. "Cannot tell" says nothing.

A comparison speaks to jobs on the same base weights, with the same goal and the same domain."""

from collections.abc import Iterator

from rankwise.decide.rulebook import threshold
from rankwise.records import Facts, Job, Past, PastArm, PastComparison, PastContrast

RULE = "own_comparison"
SIDE_OF_GOAL = {"instruction": "style", "knowledge": "facts", "task": "task"}
# Its quantised forms stand or fall with LoRA where they were not compared themselves.
LIKE_LORA = ("qlora", "lora-8bit")
CITED = 3  # comparisons that a plan tells of


def relevant(job: Job, facts: Facts) -> tuple[PastComparison, ...]:
    """Those that speak to this job, newest first."""
    past = facts.past.here if facts.past else ()
    return tuple(entry for entry in past if (entry.goal, entry.domain) == (job.goal, job.data.domain))


def swept_rate(job: Job, facts: Facts, method: str) -> tuple[PastComparison, PastArm] | None:
    """The newest sweep of a method; of several arms of it the one with the job's rank, else the first."""
    wanted = job.method.r if job.method else None
    for entry in relevant(job, facts):
        arms = [a for a in entry.arms if a.method == method and a.tried > 1 and a.learning_rate is not None]
        if arms:
            return entry, next((a for a in arms if a.r == wanted), arms[0])
    return None


def shown_better(job: Job, facts: Facts, method: str) -> tuple[PastComparison, PastContrast] | None:
    """The newest comparison in which an arm of another method beats every arm of this one on what the goal asks for."""
    for entry in relevant(job, facts):
        name = method
        if method in LIKE_LORA and not _arms(entry, method):
            name = "lora"
        if not _arms(entry, name):
            continue
        return next(((entry, found) for found in _beaten(job, entry, name)), None)
    return None


def prefers(job: Job, facts: Facts, method: str) -> bool:
    """Does the newest comparison of some other method show this one to be better?"""
    others = dict.fromkeys(a.method for entry in relevant(job, facts) for a in entry.arms if a.method)
    found = (shown_better(job, facts, other) for other in others if other != method)
    return any(shown is not None and method_of(shown[0], shown[1].winner) == method for shown in found)


def method_of(entry: PastComparison, arm: str | None) -> str | None:
    """The method of an arm; None: untrained."""
    return next((a.method for a in entry.arms if a.name == arm), None)


def earned(job: Job, facts: Facts, method: str) -> bool:
    """Was a variant shown to be better than plain LoRA, with as many seeds as rule `own_comparison` asks for?"""
    seeds = threshold(RULE, "variant_seeds")
    for entry in relevant(job, facts):
        if _arms(entry, method) and _arms(entry, "lora"):
            return any(method_of(entry, c.winner) == method and c.seeds >= seeds for c in _beaten(job, entry, "lora"))
    return False


def _arms(entry: PastComparison, method: str) -> list[str]:
    return [a.name for a in entry.arms if a.method == method]


def _beaten(job: Job, entry: PastComparison, method: str) -> Iterator[PastContrast]:
    """A contrast for each arm of another method that beats all arms of this one, with seeds enough."""
    side, seeds = SIDE_OF_GOAL.get(job.goal), threshold(RULE, "seeds")
    lost = [c for c in entry.contrasts if c.side == side and c.seeds >= seeds and method_of(entry, c.loser) == method]
    arms = _arms(entry, method)
    for arm in entry.arms:
        won = [c for c in lost if c.winner == arm.name]
        if arm.method not in (None, method) and {c.loser for c in won} == set(arms):
            yield min(won, key=lambda c: abs(c.difference))


def finding(entry: PastComparison) -> str:
    """on style nobody is shown to beat lora:r=8 and full (cannot tell between them); on facts ..."""
    said = []
    for side in dict.fromkeys(c.side for c in entry.contrasts):
        contrasts = [c for c in entry.contrasts if c.side == side]
        arms = dict.fromkeys(name for c in contrasts for name in (c.first, c.second))
        losers = {c.loser for c in contrasts}
        best = [name for name in arms if name not in losers]
        if len(best) == len(arms):
            said.append(f"on {side} it cannot tell them apart")
        else:
            among = " (cannot tell between them)" if len(best) > 1 else ""
            said.append(f"on {side} nobody is shown to beat {' and '.join(best)}{among}")
    return "; ".join(said)


def widest(job: Job, entry: PastComparison) -> str | None:
    """The largest difference of two trained arms on the side of the goal, else of any two, with what was told of it."""
    contrasts = [c for c in entry.contrasts if c.side == SIDE_OF_GOAL.get(job.goal, c.side)]
    trained = [c for c in contrasts if method_of(entry, c.first) and method_of(entry, c.second)]
    if not contrasts:
        return None
    most = max(trained or contrasts, key=lambda c: abs(c.difference))
    return f"{most.gap()}{', cannot tell' if most.winner is None else ''}"


def ignored(job: Job, past: Past) -> list[str]:
    """Comparisons on file that say nothing to this job, and why."""
    found = []
    if past.elsewhere:
        bases = ", ".join(dict.fromkeys(past.elsewhere))
        found.append(f"{_were(len(past.elsewhere), '')} not used: made on other base weights ({bases})")
    unlike = [e for e in past.here if (e.goal, e.domain) != (job.goal, job.data.domain)]
    if unlike:
        kinds = ", ".join(dict.fromkeys(f"goal: {e.goal}" + (f", {e.domain}" if e.domain else "") for e in unlike))
        found.append(f"{_were(len(unlike), ' on this base')} not used: of another kind of data ({kinds})")
    if past.unreadable:
        found.append(f"{past.unreadable} lines of the file of comparisons cannot be read")
    return found


def _were(count: int, where: str) -> str:
    return f"an earlier comparison{where} was" if count == 1 else f"{count} earlier comparisons{where} were"
