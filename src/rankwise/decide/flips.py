"""What would change the call: found by deciding again with one input changed, never written by hand."""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from rankwise.decide.configure import learning_rate, sizes
from rankwise.decide.exclusions import GB, first_broken
from rankwise.decide.ladder import Outcome
from rankwise.decide.preference import takeable
from rankwise.decide.priced import Price, Priced
from rankwise.decide.rungs import rungs
from rankwise.decide.verdicts import first_that_runs, winner_of
from rankwise.records import Facts, Flip, Job

World = tuple[Job, Facts]
COUNTS = (1, 2, 4, 8, 16)
MOST_VARIANTS = 1024


@dataclass(frozen=True)
class Call:
    """What a flip compares: the recipe, and what is tried before it."""

    recipe: str
    first: tuple[str, ...]

    def told(self, instead: "Call | None" = None) -> str:
        """The call; what is tried first is left out where that is the same in the call `instead` of which it comes."""
        if instead is None:
            return self._whole()
        if instead.first == self.first or "none" in (self.recipe, instead.recipe):
            return f"{self.recipe} instead of {instead.recipe}"
        return f"{self._whole()} instead of {instead._whole()}"

    def _whole(self) -> str:
        if "nothing" in self.first:
            return "the base as it is"
        return f"{self.recipe} after {' and '.join(self.first)}" if self.first else self.recipe


@dataclass(frozen=True)
class Axis:
    """One input: its name, its value now, the far ends looked at, the world at a value, and who decides there; whole
    numbers alone, or those of a grid, where there are no others.
    """

    name: str
    unit: str
    now: float
    ends: tuple[float, ...]
    world: Callable[[float], World]
    call: Callable[[Job, Facts], Hashable]
    say: Callable[[float], str]
    whole: bool = False
    grid: tuple[float, ...] = ()


class Flips:
    """Decides again along each input of one job."""

    def __init__(self, job: Job, facts: Facts, price: Price, outcomes: tuple[Outcome, ...]) -> None:
        self.job, self.facts, self.price, self.outcomes = job, facts, price, outcomes

    def find(self) -> tuple[Flip, ...]:
        """The nearest change of each input that changes the call, in both directions."""
        return tuple(flip for axis in self._axes() for flip in _along(axis))

    def worlds(self) -> Iterator[World]:
        """Where the call is traced anew: now, at the far ends, and on each number of devices."""
        yield self.job, self.facts
        for axis in (*self._device_axes(), self._data_axis()):
            yield from (axis.world(value) for value in dict.fromkeys((*axis.grid, *axis.ends)))

    # -- who decides -------------------------------------------------------------------------------

    def traced(self, job: Job, facts: Facts) -> Call:
        """By the leanest rung of each recipe, traced where it is not remembered."""
        return _call(job, facts, first_that_runs(job, facts, self.price))

    def weighed(self, job: Job, facts: Facts) -> Call:
        """Over the candidates of the plan as they are priced: for inputs that change no price of a run."""
        again = [
            Outcome(
                o.recipe, o.priced, o.rejected, next((p for p in o.priced if not first_broken(job, facts, p)), None)
            )
            for o in self.outcomes
        ]
        return _call(job, facts, winner_of(job, facts, again))

    def rate(self, job: Job, facts: Facts) -> float:
        """The learning rate of the recipe that is called."""
        called = winner_of(self.job, self.facts, self.outcomes)
        recipe = called.recipe if called is not None else takeable(job, facts)[0]
        return learning_rate(job, facts, recipe, sizes(job, facts).max_steps)

    # -- the inputs --------------------------------------------------------------------------------

    def _axes(self) -> Iterator[Axis]:
        yield from self._device_axes()
        yield self._data_axis()
        yield from self._budget_axes()
        if winner_of(self.job, self.facts, self.outcomes) is not None:
            yield self._forgetting_axis()

    def _device_axes(self) -> Iterator[Axis]:
        job, device = self.job, self.facts.device
        there = device.memory_bytes
        assert there is not None  # a plan is made for a device that is known

        def memory(value: float) -> World:
            return job, self._with_device(memory_bytes=int(value * GB))

        def said(value: float) -> str:
            return f"the device had {value:.2f} GB instead of {there / GB:.1f} GB"

        size = there / GB
        yield Axis("device.memory_bytes", "GB", size, (size / 1e3, size * 1e3), memory, self.traced, said)
        if device.kind == "gpu":
            per_node = max(1, device.count // job.hardware.nodes)

            def count(value: float) -> World:
                hardware = job.hardware.model_copy(update={"count": int(value)})
                changed = job.model_copy(update={"hardware": hardware})
                return changed, self._with_device(count=int(value) * job.hardware.nodes)

            def counted(value: float) -> str:
                return f"there were {value:.0f} of these GPUs instead of {per_node}"

            ends = tuple(float(c) for c in (COUNTS[0], max(COUNTS[-1], 2 * per_node)))
            yield Axis(
                "hardware.count", "GPUs", per_node, ends, count, self.traced, counted, grid=tuple(map(float, COUNTS))
            )

    def _data_axis(self) -> Axis:
        data = self.facts.data

        def amount(value: float) -> World:
            factor = value / data.supervised_tokens
            update = {k: max(1, round(getattr(data, k) * factor)) for k in ("rows", "tokens", "supervised_tokens")}
            return self.job, self.facts.model_copy(update={"data": data.model_copy(update=update)})

        def said(value: float) -> str:
            return f"the data had {value:,.0f} answer tokens instead of {data.supervised_tokens:,}"

        now = float(max(1, data.supervised_tokens))
        return Axis("data.supervised_tokens", "tokens", now, (now / 1e3, now * 1e6), amount, self.traced, said)

    def _budget_axes(self) -> Iterator[Axis]:
        job, facts = self.job, self.facts
        chosen = winner_of(job, facts, self.outcomes)
        if chosen is None:
            return
        budget = job.budget
        usd, seconds = chosen.estimate.money.train_usd, chosen.estimate.time.train_seconds

        def with_budget(key: str) -> Callable[[float], World]:
            def at(value: float) -> World:
                return job.model_copy(update={"budget": budget.model_copy(update={key: value})}), facts

            return at

        for key, unit, cost in (
            ("usd", "USD", usd and usd * job.variants),
            ("hours", "h", seconds and seconds / 3600),
        ):
            if cost:
                said = getattr(budget, key)
                now, given = said or cost * 1e3, f"instead of {said:,.2f}" if said else "(none is set)"

                def tell(value: float, key: str = key, given: str = given) -> str:
                    return f"budget.{key} were {value:,.2f} {given}"

                yield Axis(f"budget.{key}", unit, now, (cost / 1e3,), with_budget(key), self.weighed, tell)

        def variants(value: float) -> World:
            return job.model_copy(update={"variants": int(value)}), facts

        def tenants(value: float) -> str:
            return f"there were {value:.0f} tenants instead of {job.variants}"

        now = float(job.variants)
        yield Axis("variants", "tenants", now, (1.0, MOST_VARIANTS), variants, self.weighed, tenants, whole=True)

    def _forgetting_axis(self) -> Axis:
        job = self.job
        now = job.forgetting.budget_nats

        def at(value: float) -> World:
            forgetting = job.forgetting.model_copy(update={"budget_nats": value})
            return job.model_copy(update={"forgetting": forgetting}), self.facts

        def said(value: float) -> str:
            return f"forgetting.budget_nats were {value:.4f} instead of {now:g}"

        return Axis("forgetting.budget_nats", "nats", now, (now / 100, now * 100), at, self.rate, said)

    def _with_device(self, **update: object) -> Facts:
        return self.facts.model_copy(update={"device": self.facts.device.model_copy(update=update)})


def _call(job: Job, facts: Facts, winner: Priced | None) -> Call:
    if winner is None:
        return Call("none", ())
    return Call(winner.candidate.recipe, tuple(r.name for r in rungs(job, facts, None) if r.first))


def _along(axis: Axis) -> Iterator[Flip]:
    """The flip nearest to now towards each end, where the end's call differs."""
    here = axis.call(*axis.world(axis.now))
    for end in axis.ends:
        if end == axis.now or axis.call(*axis.world(end)) == here:
            continue
        at, there = _nearest(axis, here, end)
        if isinstance(there, Call) and isinstance(here, Call):
            then = there.told(here)
        else:
            then = f"a learning rate of {there:g} instead of {here:g}"
        yield Flip.model_validate(
            {
                "if": axis.say(at),
                "then": then,
                "axis": axis.name,
                "at": at,
                "now": axis.now,
                "unit": axis.unit,
            }
        )


def _nearest(axis: Axis, here: Hashable, end: float) -> tuple[float, Hashable]:
    """Halving the logarithm between now and the end; whole numbers until they are neighbours."""
    near, far, there = axis.now, end, axis.call(*axis.world(end))
    for _ in range(20):  # a millionth of the logarithm
        middle = (near * far) ** 0.5
        if axis.grid:
            between = [v for v in axis.grid if min(near, far) < v < max(near, far)]
            if not between:
                break
            middle = between[len(between) // 2]
        elif axis.whole:
            middle = float(round(middle))
            if middle in (near, far):
                if abs(near - far) <= 1:
                    break
                middle = near + (1 if far > near else -1)
        if (found := axis.call(*axis.world(middle))) == here:
            near = middle
        else:
            far, there = middle, found
    return far, there
