"""The spectra of a run in a few numbers; part of Evidence."""

from pydantic import Field

from rankwise.records.base import Record


class SpectrumPoint(Record):
    """All matrices at one step."""

    step: int
    norm: float = Field(description="Of all updates together: root of the sum of squared Frobenius norms.")
    norm_ratio: float | None = Field(description="Median over matrices, to the base's; None: the base was not read.")
    effective_rank: float | None = Field(description="Median over matrices that changed; None: none did.")
    first_energy: float | None = Field(description="Median over the same.")
    intruders: int | None = Field(description="Over all matrices; None: the base was not read.")
    dead: int = Field(description="Matrices whose update is zero.")


class SpectrumSummary(Record):
    """The last spectra of a run, and how they grew."""

    matrices: int
    rank: int = Field(description="Largest that an update can have.")
    last: SpectrumPoint
    dead_modules: tuple[str, ...] = Field(description="Names of those whose update is zero at the end.")
    largest_ratio: float | None = Field(description="The largest norm ratio of a matrix.")
    largest_ratio_module: str | None
    growth: tuple[SpectrumPoint, ...] = Field(description="Each time that the spectra were taken, the last included.")
    seconds: float = Field(description="That it took to take them, in the run and after it.")
    source: str
