"""Reads a job: YAML plus options from the command line -> Job, or one error with the line and the nearest valid key."""

import difflib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from rankwise.errors import Fault, JobError
from rankwise.hub import dataset_id, split_of
from rankwise.records import Job
from rankwise.unsupported import other_objective

Lines = dict[tuple[str, ...], int]
SHORT_FORMS = {"hardware": "gpu", "method": "name"}  # `hardware: cpu`, `method: lora`


def read_job(path: Path | None, options: Mapping[str, Any], methods: Collection[str]) -> Job:
    """Read `path` (may be None when the options say everything) and lay `options` over it.

    Args:
        path: a YAML file; relative data paths in it are taken from its folder, then from the working folder; ids of
            datasets on the hub stay.
        options: dotted job keys such as `hardware.count` -> value; None values are skipped.
        methods: the method names that exist.

    Raises:
        JobError: missing file, bad YAML, unknown key, wrong value, unknown method. Exit code 2.
    """
    content, lines = _load_yaml(path) if path else ({}, {})
    for key, value in options.items():
        if value is not None:
            _lay_over(content, key.split("."), value)
    _read_new_tokens(content, path.resolve().parent if path else Path.cwd())
    where = _Where(path, lines, {key for key, value in options.items() if value is not None})
    _check_method_name(content.get("method"), methods, where)
    try:
        job = Job.model_validate(content)
    except ValidationError as error:
        raise _job_error(error, where) from None
    base = path.resolve().parent if path else Path.cwd()
    return _absolute_paths(job, base, where).model_copy(update={"name": job.name or _name(path)})


def _read_new_tokens(content: dict[str, Any], base: Path) -> None:
    """`data.new_tokens` that names a file becomes the tokens in it, one a line. Raises JobError."""
    data = content.get("data")
    if not isinstance(data, dict):
        return
    said = data.get("new_tokens")
    if not isinstance(said, str) or said.isdigit():
        return
    found = next((folder / said for folder in (base, Path.cwd()) if (folder / said).is_file()), None)
    if found is None:
        raise JobError(
            f"data.new_tokens: no such file: {said}", expected="a number, a list of tokens, or a file with one a line"
        )
    try:
        lines = found.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise JobError(f"{found}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    content["data"] = {**data, "new_tokens": [line.strip() for line in lines if line.strip()]}


def _name(path: Path | None) -> str:
    if path is None:
        return "job"
    name = path.resolve().parent.name if path.stem == "job" else path.stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-") or "job"


def _load_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], 1)
        hint = f"did you mean {path.parent / near[0]}?" if near else "give the path of a job file (YAML)"
        raise JobError(f"{path}: no such job file", fix=hint)
    try:
        text = path.read_text(encoding="utf-8-sig")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise JobError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise JobError(f"{path}: a job is a mapping of keys", expected="lines such as `goal: instruction`")
    lines: Lines = {}
    try:
        _walk(root, (), lines, path)
    except RecursionError:
        raise JobError(f"{path}: its keys are nested without end (an anchor that holds itself)") from None
    return content, lines


def _walk(node: yaml.Node | None, at: tuple[str, ...], lines: Lines, path: Path) -> None:
    """Fill `lines` with the line of every key; a key given twice would silently lose one value, so it is refused."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = (*at, str(key.value))
        if here in lines:
            raise JobError(f"{path}:{key.start_mark.line + 1}: {'.'.join(here)} is given twice", fix="keep one")
        lines[here] = key.start_mark.line + 1
        _walk(value, here, lines, path)


def _lay_over(content: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = content.get(key)
        if isinstance(inner, str):
            inner = {SHORT_FORMS[key]: inner} if key in SHORT_FORMS else inner
        if inner is not None and not isinstance(inner, dict):
            return  # the file's own value is refused with its line
        content[key] = inner = dict(inner or {})
        content = inner
    content[keys[-1]] = value


class _Where:
    """Says where a key came from: a line of the file, or an option."""

    def __init__(self, path: Path | None, lines: Lines, options: Collection[str]):
        self.path, self.lines, self.options = path, lines, options

    def __call__(self, loc: tuple[str, ...]) -> str:
        for end in range(len(loc), 0, -1):
            if ".".join(loc[:end]) in self.options:
                return f"option {'.'.join(loc[:end])}"
            if loc[:end] in self.lines:
                return f"{self.path}:{self.lines[loc[:end]]}"
        return str(self.path) if self.path else "options"


def _check_method_name(method: Any, methods: Collection[str], where: _Where) -> None:
    name = method.get("name") if isinstance(method, dict) else method
    if name is None or not isinstance(name, str) or name in methods:
        return
    if why := other_objective(name):
        raise JobError(
            f"{where(('method', 'name'))}: {why}",
            expected=f"a method of supervised fine-tuning: one of {', '.join(sorted(methods))}",
            fix="train it with a tool for that objective, such as TRL, from the model that Rankwise leaves",
        )
    near = difflib.get_close_matches(name, methods, 1)
    raise JobError(
        f"{where(('method', 'name'))}: there is no method {name!r}",
        expected=f"one of {', '.join(sorted(methods))}",
        fix=f"did you mean {near[0]}?" if near else "",
    )


def _job_error(error: ValidationError, where: _Where) -> JobError:
    errors = error.errors(include_url=False)
    errors.sort(key=lambda e: e["type"] != "extra_forbidden")  # a mistyped key explains what is missing
    faults = list({_key(e): (_fault(e), where(_loc(e))) for e in reversed(errors)}.values())[::-1]
    (first, at), *others = faults
    what = f"{at}: {first.what}"
    for more, there in others:
        what += f"\nalso: {there}: {more.what}" + (f" ({more.fix})" if more.fix else "")
    return JobError(what, expected=first.expected, fix=first.fix, faults=[fault for fault, _ in faults])


def _loc(error: Any) -> tuple[str, ...]:
    return tuple(str(part) for part in error["loc"])


def _key(error: Any) -> str:
    """The dotted key of a fault; the parts that pydantic adds for the alternatives of a union are left out."""
    parts = [str(part) for part in error["loc"]]
    known = [part for end, part in enumerate(parts) if part in _valid_keys(tuple(parts[:end]))]
    return ".".join(parts if error["type"] == "extra_forbidden" else known or parts[:1])


def _fault(error: Any) -> Fault:
    loc, key = _loc(error), _key(error)
    valid = _valid_keys(loc[:-1])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(loc[-1], valid, 1, cutoff=0.5)
        fix = f"did you mean {near[0]}?" if near else "remove it"
        return Fault(key, f"unknown key {key}", f"one of {', '.join(valid)}", fix)
    if error["type"] == "missing":
        return Fault(key, f"{key} is missing", f"a value for {key}", f"add `{loc[-1]}: …`")
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "literal_error":
        choices = [c.strip("'") for c in error["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        near = difflib.get_close_matches(str(error["input"]), choices, 1)
        fix = f"did you mean {near[0]}?" if near else ""
        return Fault(key, f"{key} is {error['input']!r}", f"one of {', '.join(choices)}", fix)
    return Fault(key, f"{key or 'the job'} is {_short(error['input'])}: {message}", "", "")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _valid_keys(loc: tuple[str, ...]) -> list[str]:
    model: type[BaseModel] = Job
    for part in loc:
        field = model.model_fields.get(part)
        if field is None:
            break
        inner = [a for a in (field.annotation, *get_args(field.annotation)) if _is_model(a)]
        if inner:
            model = inner[0]
    return sorted(model.model_fields)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _absolute_paths(job: Job, base: Path, where: _Where) -> Job:
    data = job.data
    general = data.general
    if general and general.path:
        found = _resolve_data(general.path, base, where, ("data", "general", "path"))
        general = general.model_copy(update={"path": found})
    validation = data.validation
    if isinstance(validation, Path):
        validation = _resolve_data(validation, base, where, ("data", "validation"))
    changes: dict[str, Any] = {"general": general, "validation": validation}
    for key in ("train", "facts"):
        path = getattr(data, key)
        changes[key] = path and _resolve_data(path, base, where, ("data", key))
    answer = job.format
    if answer and answer.json_schema:
        schema = _resolve(answer.json_schema, base, where, ("format", "json_schema"))
        answer = answer.model_copy(update={"json_schema": schema})
    method = job.method
    if method and method.adapter:
        expected = "a run, or a folder that PEFT's save_pretrained wrote"
        adapter = _resolve_folder(method.adapter, base, where, ("method", "adapter"), expected)
        method = method.model_copy(update={"adapter": adapter})
    costs = job.costs
    if costs.prices:
        costs = costs.model_copy(update={"prices": _resolve(costs.prices, base, where, ("costs", "prices"))})
    train = job.train
    if train.deepspeed:
        found = _resolve(train.deepspeed, base, where, ("train", "deepspeed"))
        train = train.model_copy(update={"deepspeed": found})
    metrics = tuple(_resolve_metric(said, base, where) for said in job.eval.metrics)
    forgetting = job.forgetting
    for key in ("general", "questions"):
        if path := getattr(forgetting, key):
            found = _resolve_data(path, base, where, ("forgetting", key))
            forgetting = forgetting.model_copy(update={key: found})
    if path := forgetting.tasks_path:
        found = _resolve_folder(path, base, where, ("forgetting", "tasks_path"), "a folder with YAML files of tasks")
        forgetting = forgetting.model_copy(update={"tasks_path": found})
    template = job.chat_template and _resolve(job.chat_template, base, where, ("chat_template",))
    model = job.model
    for folder in (Path.cwd(), base):
        if (folder / job.model / "config.json").is_file():
            model = str((folder / job.model).resolve())
    return job.model_copy(
        update={
            "data": data.model_copy(update=changes),
            "format": answer,
            "eval": job.eval.model_copy(update={"metrics": metrics}),
            "costs": costs,
            "model": model,
            "train": train,
            "method": method,
            "forgetting": forgetting,
            "chat_template": template,
        }
    )


def _resolve(path: Path, base: Path, where: _Where, loc: tuple[str, ...]) -> Path:
    """Taken from the job's folder, then from the working folder; a file that is nowhere is an error with its line."""
    for folder in (base, Path.cwd()):
        if (folder / path).is_file():
            return (folder / path).resolve()
    raise _no_such_file(path, base, where, loc, "a file that exists")


def _resolve_metric(said: str, base: Path, where: _Where) -> str:
    """FILE.py:FUNCTION with the file's whole path; whether the function is there shows when it is loaded."""
    file, _, name = said.rpartition(":")
    return f"{_resolve(Path(file), base, where, ('eval', 'metrics'))}:{name}"


def _resolve_folder(path: Path, base: Path, where: _Where, loc: tuple[str, ...], expected: str) -> Path:
    for folder in (base, Path.cwd()):
        if (folder / path).is_dir():
            return (folder / path).resolve()
    raise _no_such_file(path, base, where, loc, expected)


def _resolve_data(path: Path, base: Path, where: _Where, loc: tuple[str, ...]) -> Path:
    """As `_resolve`, and a folder or a split of one will do, too. What is neither, and could be the id of a dataset on
    the hub, stays as it is written; whether there is one shows when it is read.
    """
    name, split = split_of(path)
    for folder in (base, Path.cwd()):
        if (folder / path).exists():
            return (folder / path).resolve()
        if split and (folder / name).is_dir():
            return Path(f"{(folder / name).resolve()}:{split}")
    if dataset_id(path) and not _near(path, base):
        return path
    expected = "a file or folder that exists, or a dataset of the hub as org/name or org/name:split"
    raise _no_such_file(path, base, where, loc, expected)


def _no_such_file(path: Path, base: Path, where: _Where, loc: tuple[str, ...], expected: str) -> JobError:
    near = _near(path, base)
    fix = f"did you mean {path.with_name(near[0])}?" if near else f"paths are taken from {base}"
    return JobError(f"{where(loc)}: {'.'.join(loc)}: no such file: {path}", expected=expected, fix=fix)


def _near(path: Path, base: Path) -> list[str]:
    return difflib.get_close_matches(path.name, [p.name for p in (base / path).parent.glob("*")], 1)
