"""Another tool's configuration -> Recipe."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from rankwise.errors import RecipeError, UsageError
from rankwise.observe.recipes import axolotl, llamafactory, llamafactory_v1, trl
from rankwise.observe.recipes.arguments import Command, command_of, commands_of
from rankwise.observe.recipes.detect import TOOLS, of_command, of_keys, refuse_vision
from rankwise.observe.recipes.keys import key_faults
from rankwise.observe.recipes.launch import find, merged
from rankwise.observe.recipes.launch import of_command as launch_of
from rankwise.observe.recipes.options import estimate_options, job_keys, method_of
from rankwise.observe.recipes.reading import Source, read_mapping, read_text
from rankwise.observe.recipes.schema import schema
from rankwise.observe.recipes.secrets import hide
from rankwise.observe.recipes.translation import Translation
from rankwise.records.recipe import Recipe, Setting, ToolName

MAPPINGS = (".yaml", ".yml", ".json")
READERS: dict[str, Callable[[Translation], None]] = {
    "axolotl": axolotl.translate,
    "llamafactory": llamafactory.translate,
    "llamafactory_v1": llamafactory_v1.translate,
    "trl": trl.translate,
    "trainer": trl.translate_arguments,
}


def read_recipe(path: Path | None, arguments: Sequence[str] = (), tool: str | None = None) -> Recipe:
    """Read a configuration of Axolotl, LLaMA-Factory or TRL, or the command line of a training script.

    Args:
        path: YAML, JSON, or a shell script; None: the arguments say everything.
        arguments: a command line, or options that win over the file's.
        tool: axolotl, llama-factory, trl or args; None: found from the command or the keys.

    Raises:
        UsageError: no such tool, or neither file nor arguments.
        RecipeError: a file that cannot be read, a value of another kind, or training that is no SFT on text.
    """
    if tool is not None and tool not in TOOLS:
        raise UsageError(f"there is no tool {tool!r}", expected=f"one of {', '.join(TOOLS)}")
    if path is None and not arguments:
        raise UsageError("nothing to read", fix="give a file with --from, or the command line after --")
    source, found = _source(path, arguments, tool)
    name = tool or found or of_keys(source)
    table = TOOLS[name]
    if name == "llama-factory" and "model_name_or_path" not in source.said and "model" in source.said:
        table = "llamafactory_v1"
    return _recipe(source, name, table)


def _recipe(source: Source, tool: str, table: str) -> Recipe:
    known = schema(table)
    t = Translation(source, known)
    READERS[table](t)
    model = t.value("model_name_or_path")
    if not model:
        raise RecipeError(f"{source.path or 'arguments'} names no model", fix="give base_model or model_name_or_path")
    refuse_vision(source, str(model))
    if t.step.launch.recomputes and not t.value("gradient_checkpointing"):
        t.put("gradient_checkpointing", True, key="fsdp_config", inner="activation_checkpointing")
    method = method_of(t)
    options = estimate_options(t, method)
    if source.commands > 1:
        t.step.assumptions.append(f"the script starts {source.commands} trainings; the first is read")
    if t.step.goal is None:
        t.step.assumptions.append("the goal stands in no such file: instruction is assumed (--goal says another)")
    return Recipe(
        tool=cast(ToolName, tool),
        tool_version=known.version,
        tool_commit=known.commit,
        tool_source=known.source,
        file=str(source.path) if source.path else None,
        model=str(model),
        method=method,
        settings=(*t.settings.values(), *_facts(t), *_others(t)),
        datasets=tuple(d.model_copy(update={"path": hide("path", d.path)}) for d in t.step.datasets),
        options=options,
        job=job_keys(t, method),
        assumptions=(*t.step.launch.notes, *t.step.assumptions),
        not_priced="; ".join(t.step.not_priced) or None,
        faults=key_faults(source, known, tool),
    )


def _facts(t: Translation) -> list[Setting]:
    """What the tool makes of several keys together; the checks ask for these."""
    step = t.step
    found = {
        "weights_dtype": step.weights,
        "autocast": step.autocast,
        "packing_isolated": step.isolated,
        "prompt_trained": step.prompt_trained,
        "on_long": step.cut,
        "parallel": step.launch.parallel,
    }
    return [
        Setting(name=name, key=name, value=value, line=None, origin="default")
        for name, value in found.items()
        if value is not None and name not in t.settings
    ]


def _others(t: Translation) -> list[Setting]:
    """Keys that were said and have no place in the translation, under the tool's own name."""
    read = {s.key.partition(".")[0] for s in t.settings.values()}
    return [
        Setting(name=key, key=key, value=hide(key, said.value), line=said.line, origin=said.origin)
        for key, said in t.source.said.items()
        if key not in read and key not in t.settings and said.value is not None
    ]


def _source(path: Path | None, arguments: Sequence[str], tool: str | None) -> tuple[Source, str | None]:
    """(the keys, the tool that the command names)."""
    given = command_of(arguments) if arguments else None
    if path is None:
        assert given is not None
        return _of_command(given, None, tool)
    if path.is_dir() or not path.exists():
        raise RecipeError(f"{path}: no such file", fix="give the path of a configuration file (YAML, JSON) or a script")
    text = read_text(path)
    if path.suffix.lower() in MAPPINGS:
        source, found = read_mapping(path, text), None
    elif path.suffix.lower() == ".py":
        raise RecipeError(
            f"{path} is a Python script: what it trains stands in code",
            expected="its command line, or a YAML, JSON or shell file",
            fix=f"`rankwise plan --tool args -- python {path.name} --learning_rate …`",
        )
    else:
        commands = commands_of(text, path)
        if not commands:
            raise RecipeError(
                f"{path} starts no training that we know",
                expected="a line with accelerate launch, torchrun, deepspeed, python, trl, axolotl or llamafactory-cli",
            )
        source, found = _of_command(commands[0], path, tool)
        secrets = tuple(s for c in commands for s in c.secrets)
        source = dataclasses.replace(source, commands=len(commands), secrets=secrets)
    if given is not None:
        over, named = _of_command(given, None, tool)
        source = _laid_over(source, over)
        found = found or (named if given.program else None)
    return source, found


def _of_command(command: Command, path: Path | None, tool: str | None) -> tuple[Source, str | None]:
    """A command's own options over those of the file that it names."""
    found = tool or (of_command(command) if command.program else None)
    folder = path.resolve().parent if path else Path.cwd()
    own = Source(
        path=path,
        said=dict(command.said),
        twice=tuple(command.twice),
        launch=launch_of(command.launcher, command.environment, folder),
        missing=tuple(command.missing),
        secrets=tuple(command.secrets),
    )
    if command.config is None:
        return own, found if found != "args" or command.program or tool else None
    config = find(command.config, folder)
    if config is None:
        raise RecipeError(
            f"{path or 'the command'} names {command.config}, which is not here",
            fix="run this beside the file, or give the file itself with --from",
        )
    inner = read_mapping(config, read_text(config))
    if found == "args":
        found = None  # a script that reads a YAML file: its keys say whose it is
    return _laid_over(inner, own), found


def _laid_over(below: Source, above: Source) -> Source:
    """The settings of both; those above win, and what stands in another file has no line of this one."""
    said = below.said | {
        key: dataclasses.replace(value, line=value.line if above.path == below.path else None, origin="argument")
        for key, value in above.said.items()
    }
    return dataclasses.replace(
        below,
        said=said,
        twice=(*below.twice, *(above.twice if above.path == below.path else ())),
        launch=merged(above.launch, below.launch),
        missing=(*below.missing, *above.missing),
        secrets=(*below.secrets, *above.secrets),
    )
