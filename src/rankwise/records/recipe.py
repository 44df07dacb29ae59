"""Recipe: another tool's configuration as it was read; Brought: what we say about it."""

from typing import Any, Literal

from pydantic import Field

from rankwise.records.base import Record
from rankwise.records.plan import Estimate, Plan

ToolName = Literal["axolotl", "llama-factory", "trl", "args"]
Level = Literal["fault", "risk", "note"]
Origin = Literal["file", "argument", "default"]


class Setting(Record):
    """One setting under its Hugging Face name."""

    name: str = Field(description="By the Hugging Face name, or the tool's own where there is none.")
    key: str = Field(description="As the tool spells it.")
    value: Any = Field(description="As it was said, or the tool's default; secrets are `(hidden)`.")
    line: int | None = Field(description="Line of the file, from 1; None: an argument or a default.")
    origin: Origin


class Risk(Record):
    """Something in the file that hurts, or may."""

    level: Level = Field(description="fault: it does not do what it says; risk: it may hurt; note: worth knowing.")
    rule: str = Field(description="Name of the check.")
    key: str | None = Field(description="The tool's key that it is about.")
    line: int | None
    text: str = Field(description="What it does.")
    number: str | None = Field(None, description="The number that shows it, with its unit.")
    evidence: tuple[str, ...] = Field((), description="Ids of decide/evidence.toml; spelled out in Brought.")
    fix: str = Field(description="What to write instead.")


class Change(Record):
    """A setting that we would choose otherwise, for the same method."""

    key: str = Field(description="Hugging Face name.")
    theirs: Any
    ours: Any
    why: str


class Dataset(Record):
    """One data set as the file names it."""

    path: str
    kind: str | None = Field(description="Its prompt format as the tool calls it.")
    local: str | None = Field(description="The file, where it is here.")
    line: int | None


class Recipe(Record):
    """Another tool's configuration, every setting that matters under its Hugging Face name."""

    version: Literal[1] = 1
    tool: ToolName
    tool_version: str = Field(description="Version whose keys and defaults are meant.")
    tool_commit: str
    tool_source: str = Field(description="Where keys and defaults were read.")
    file: str | None = Field(description="None: arguments alone.")
    model: str | None
    method: str = Field(description="A `--method` name of `rankwise estimate`.")
    settings: tuple[Setting, ...] = Field(description="Said in the file or by argument, and the defaults that matter.")
    datasets: tuple[Dataset, ...]
    options: dict[str, Any] = Field(description="Options of `rankwise estimate` that price this run.")
    job: dict[str, Any] = Field(description="The same as keys of a job; `data` only where a file is here.")
    assumptions: tuple[str, ...] = Field(description="What the file does not say and was taken.")
    not_priced: str | None = Field(description="Why no estimate of this run can be made; None: it can.")
    faults: tuple[Risk, ...] = Field(description="Found while reading: unknown keys, keys given twice, secrets.")

    def setting(self, name: str) -> Setting | None:
        """The setting of a Hugging Face name."""
        return next((s for s in self.settings if s.name == name), None)

    def value(self, name: str) -> Any:
        """Its value; None where nobody says anything."""
        found = self.setting(name)
        return None if found is None else found.value


class Brought(Record):
    """Does it fit, what will it cost, what is risky, and what would we change?"""

    version: Literal[1] = 1
    recipe: Recipe
    risks: tuple[Risk, ...] = Field(description="Faults first.")
    evidence: dict[str, str] = Field(description="Id -> the evidence that the risks cite, spelled out.")
    unknown_model: bool = Field(description="Nobody here knows its architecture, so nothing is priced.")
    given: Estimate | None = Field(description="Their run priced; None where it cannot be, as `not_priced` says.")
    not_priced: str | None
    plan: Plan | None = Field(description="Our call for the same job; None where something is missing.")
    not_planned: str | None
    changes: tuple[Change, ...]
    questions: tuple[str, ...] = Field(description="What we would have to know to say more.")

    @property
    def fits(self) -> bool | None:
        """Does their run fit its hardware? None where nobody knows."""
        return None if self.given is None else self.given.memory.fits

    def contract(self) -> dict[str, Any]:
        """What `plan --from --json` prints: the plan's own keys (null without a plan), and the rest below `from`."""
        plan = self.plan.contract() if self.plan else dict.fromkeys(field for field in Plan.model_fields)
        return plan | {"from": self.model_dump(mode="json", exclude={"plan"})}
