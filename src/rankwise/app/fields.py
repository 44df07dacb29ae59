"""The form of *Decide*: the keys of a job that move the verdict, what they are called, what is expected."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from rankwise import api
from rankwise.app.root import data_names, model_named
from rankwise.errors import DataError, Fault, JobError, ModelError, RankwiseError
from rankwise.records import Job

Kind = Literal["whole", "number", "text", "choice", "file"]
EXPECTED = {"whole": "a whole number", "number": "a number", "text": "a name"}


@dataclass(frozen=True)
class Field:
    """One key of a job.

    Attributes:
        key: dotted; also the name of the field in the form.
        hint: one line for somebody who does not know the word.
        example: a value that would do.
        choices: value and what it means; of `choice`.
        first: what the form opens with.
    """

    key: str
    label: str
    hint: str
    kind: Kind
    example: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    first: str = ""
    suggestions: str = ""


@dataclass(frozen=True)
class Group:
    name: str
    fields: tuple[Field, ...]
    folded: bool = False


GROUPS = (
    Group(
        "What it shall learn",
        (
            Field(
                "goal",
                "Goal",
                "Style and format, new facts, or one narrow task.",
                "choice",
                choices=(
                    ("instruction", "instruction: how to answer"),
                    ("knowledge", "knowledge: new facts"),
                    ("task", "task: one narrow job"),
                    ("unsure", "unsure: have it measured"),
                ),
                first="instruction",
            ),
            Field(
                "model",
                "Model",
                "A name from the list, a Hub id, or `embedded`.",
                "text",
                "llama-3-8b",
                first="llama-3-8b",
                suggestions="models",
            ),
            Field(
                "retrieval",
                "Could answers be looked up?",
                "When it answers, not when it is trained.",
                "choice",
                choices=(("", "not said"), ("possible", "yes"), ("no", "no")),
            ),
        ),
    ),
    Group(
        "Data",
        (
            Field("data.train", "File", "Of the folder that is shown; empty: described by its size.", "file"),
            Field("data.examples", "Rows", "Of training, where there is no file yet.", "whole", "20000", first="20000"),
            Field(
                "data.tokens_per_example",
                "Tokens a row",
                "On average; a word has about 1.3.",
                "whole",
                "512",
                first="512",
            ),
        ),
    ),
    Group(
        "Hardware",
        (
            Field(
                "hardware.gpu",
                "GPU",
                "A name from the list, `cpu`, or empty for this machine.",
                "text",
                "A100-80GB",
                first="A100-80GB",
                suggestions="gpus",
            ),
            Field("hardware.count", "GPUs", "On each machine.", "whole", "2", first="1"),
        ),
    ),
    Group(
        "Limits",
        (
            Field("variants", "Tenants", "Who each get a model of their own.", "whole", "5", first="1"),
            Field("budget.usd", "Budget, USD", "Of training; empty: not limited.", "number", "500"),
            Field("budget.hours", "Budget, hours", "By the clock; empty: not limited.", "number", "24"),
            Field(
                "forgetting.budget_nats",
                "Forgetting, nats",
                "Allowed rise of loss on everyday text; empty: 0.03.",
                "number",
                "0.05",
            ),
        ),
    ),
    Group(
        "More",
        (
            Field("method.name", "Force a method", "Empty: the plan chooses.", "text", "lora", suggestions="methods"),
            Field("hardware.nodes", "Machines", "Each with these GPUs; empty: one.", "whole", "2"),
            Field(
                "data.domain",
                "How far from what it knows",
                "Of the rows.",
                "choice",
                choices=(
                    ("", "not said"),
                    ("general", "general text"),
                    ("code", "code"),
                    ("math", "mathematics"),
                    ("language", "a language that is new to it"),
                ),
            ),
            Field("data.new_tokens", "New tokens", "Words that the vocabulary lacks; their number.", "whole", "40"),
            Field(
                "forgetting.replay_allowed",
                "May general rows be mixed in?",
                "Replay keeps what it could do before.",
                "choice",
                choices=(("", "yes"), ("false", "no")),
            ),
            Field(
                "serving.engine",
                "Server",
                "Its limits enter the choice of method.",
                "choice",
                choices=(("", "embedded"), ("vllm", "vLLM")),
            ),
            Field("serving.context", "Served context", "Tokens of one conversation; empty: 4,096.", "whole", "8192"),
            Field("serving.concurrency", "Conversations at once", "Over all tenants; empty: 8.", "whole", "32"),
            Field(
                "costs.pricing",
                "Price of a GPU",
                "Spot ones are cheaper, and can be taken away.",
                "choice",
                choices=(("", "on demand"), ("spot", "spot")),
            ),
            Field("costs.runs", "Runs until it is right", "Empty: 10 to 20.", "whole", "12"),
            Field("train.num_train_epochs", "Epochs", "Passes over the rows; empty: planned.", "number", "2"),
            Field("train.max_length", "Longest row, tokens", "Empty: planned.", "whole", "4096"),
            Field("train.per_device_train_batch_size", "Rows at a time", "On one GPU; empty: planned.", "whole", "4"),
        ),
        folded=True,
    ),
)
FIELDS = {f.key: f for group in GROUPS for f in group.fields}
FIRST = {f.key: f.first for f in FIELDS.values() if f.first}
PLACES: tuple[tuple[type[RankwiseError], str], ...] = ((ModelError, "model"), (DataError, "data.train"))


def suggestions() -> dict[str, Sequence[str]]:
    """Names that are known, for the fields that have a list."""
    methods = ("full", "lora", "qlora", "lora-8bit", "rslora", "dora", "pissa", "ia3", "prompt", "prefix", "p_tuning")
    models = ("embedded", *(row["name"] for row in api.models()))
    gpus = ("cpu", *(row["name"] for row in api.gpus()))
    return {"models": models, "gpus": gpus, "methods": (*methods, "bottleneck")}


def read_form(form: Mapping[str, str], root: Path) -> Job:
    """The job that a form says.

    Raises:
        JobError: with a fault for each field that cannot be meant.
    """
    given = {key: text for key in FIELDS if (text := form.get(key, "").strip())}
    options, faults = dict[str, Any](), list[Fault]()
    if "data.train" in given:
        for described in ("data.examples", "data.tokens_per_example"):
            given.pop(described, None)  # a file says it itself
    elif "data.examples" not in given:
        faults.append(Fault("data.examples", "There is no file and no number of rows", "one of the two", ""))
    for key, text in given.items():
        try:
            options[key] = _value(FIELDS[key], text, root)
        except JobError as error:
            faults += error.faults
    try:
        job = api.load_job(None, options)
    except JobError as error:
        known = {fault.key for fault in faults}
        blocks = {key.split(".")[0] for key in known}  # `data` is missing where its only key is refused already
        faults += [f for f in error.faults or [_one(error)] if f.key not in known | blocks]
        raise JobError(faults[0].what, faults=faults) from None
    if faults:
        raise JobError(faults[0].what, faults=faults)
    return job


def _value(field: Field, text: str, root: Path) -> Any:
    """As the job has it. Text goes where text is meant alone: `data.new_tokens` would take the name of a file."""
    if field.kind == "whole":
        digits = text.replace(",", "")
        whole = re.fullmatch(r"[+-]?[0-9]{1,15}", digits)
        return int(digits) if whole else _refuse(field.key, f"{text!r} is no whole number")
    if field.kind == "number":
        number = re.fullmatch(r"[+-]?([0-9]+\.?|[0-9]*\.[0-9]+)(e[+-]?[0-9]{1,3})?", text, re.IGNORECASE)
        return float(text) if number else _refuse(field.key, f"{text!r} is no number")
    if field.kind == "file":
        return str(data_names(root).get(text) or _refuse(field.key, f"{text} is not in this folder", "one of the list"))
    return _model(text, root) if field.key == "model" else {"false": False}.get(text, text)


def _model(name: str, root: Path) -> str:
    expected = "a name from the list, a Hub id as org/name, or a folder below the one that is shown"
    return model_named(root, name) or _refuse("model", f"{name} is no model that this app may read", expected)


def _refuse(key: str, what: str, expected: str = "") -> NoReturn:
    raise JobError(what, faults=[Fault(key, what, expected, "")])


def placed(error: RankwiseError) -> dict[str, Fault]:
    """Each fault at its field. One that no field is known for stands under ''."""
    faults = error.faults if isinstance(error, JobError) and error.faults else [_one(error)]
    found: dict[str, Fault] = {}
    for fault in faults:
        key = _field_of(fault.key)
        found[key] = _completed(fault, FIELDS.get(key))
    return found


def _one(error: RankwiseError) -> Fault:
    """By the key that the sentence begins with, or by the kind of error."""
    said = re.match(r"(?:option )?([a-z_]+(?:\.[a-z_]+)*)\b", error.what)
    key = said[1] if said and _field_of(said[1]) else next((k for kind, k in PLACES if isinstance(error, kind)), "")
    return Fault(key, error.what, error.expected, error.fix)


def _field_of(key: str) -> str:
    """The field of a key, or the first one of its block: `data` -> data.train."""
    if key in FIELDS:
        return key
    return next((name for name in FIELDS if key and name.startswith(key + ".")), "")


def _completed(fault: Fault, field: Field | None) -> Fault:
    """In the words of a form, with what was expected and an example."""
    if field is None:
        return fault
    what = fault.what.removeprefix(f"{field.key} ").removeprefix("is ")
    what = re.sub(r": Input should be ([^,]*).*", r" should be \1", what)
    expected = fault.expected or EXPECTED.get(field.kind, "")
    fix = fault.fix or (f"write it as in {field.example}" if field.example else "choose another one")
    return Fault(field.key, what[:1].upper() + what[1:], expected, fix)


def job_file(job: Job, root: Path, given: Mapping[str, str]) -> str:
    """job.yaml of what was said in the form: `rankwise plan` of it, in the root folder, is the same plan."""
    import yaml

    dumped, content = job.model_dump(mode="json"), dict[str, Any]()
    for key in FIELDS:
        value: Any = dumped
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not given.get(key, "").strip() or value is None:
            continue
        if key in ("data.train", "model") and Path(str(value)).is_absolute():
            value = Path(str(value)).relative_to(root).as_posix()
        *blocks, last = key.split(".")
        inner = content
        for block in blocks:
            inner = inner.setdefault(block, {})
        inner[last] = value
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
