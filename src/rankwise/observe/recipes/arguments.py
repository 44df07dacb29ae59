"""Command lines and the scripts around them: `accelerate launch … train.py --learning_rate 2e-5 …`."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankwise.errors import RecipeError
from rankwise.observe.recipes.reading import Said, scalar
from rankwise.observe.recipes.secrets import is_secret
from rankwise.records.recipe import Origin

ASSIGNMENT = re.compile(r"^(?:export\s+)?([A-Za-z_]\w*)=(.*)$", re.DOTALL)
VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::?[-=]([^}]*))?\}|([A-Za-z_]\w*))")
LAUNCHERS = ("accelerate", "torchrun", "deepspeed", "python", "python3", "uv", "uvx", "srun", "nohup", "time", "env")
TRAINERS = ("llamafactory-cli", "lmf", "axolotl", "trl")
# Flags of launchers that take no value, so that the word after them is the script.
BARE = (
    "multi_gpu",
    "use_fsdp",
    "use_deepspeed",
    "standalone",
    "cpu",
    "mps",
    "tpu",
    "quiet",
    "no_python",
    "module",
    "m",
)
SCRIPT = re.compile(r"\.(py|ya?ml|json)$")


@dataclass(frozen=True)
class Word:
    """One word of a command and its line; None: it came by argument."""

    text: str
    line: int | None


@dataclass
class Command:
    """A command line, taken apart.

    Attributes:
        program: the script, module or CLI that trains, and `action` its subcommand (`train`, `sft`, `dpo`, …).
        config: the configuration file that the command names.
        launcher: options of accelerate, torchrun or deepspeed. environment: variables set before it.
        said: options of the training itself. missing: variables that nothing sets.
    """

    program: str = ""
    action: str = ""
    config: str | None = None
    launcher: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    said: dict[str, Said] = field(default_factory=dict)
    twice: list[tuple[str, int, int]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    secrets: list[tuple[str, int | None]] = field(default_factory=list)
    by_launcher: str = ""


def commands_of(text: str, path: Path | None) -> list[Command]:
    """The training commands of a shell script, in order. Raises RecipeError for quotes that do not close."""
    variables: dict[str, str] = {}
    found: list[Command] = []
    secrets: list[tuple[str, int | None]] = []
    for words in _lines(text, path):
        alone = len(words) == 1 or (len(words) == 2 and words[0].text == "export")
        if alone and (said := ASSIGNMENT.match(words[-1].text)):
            variables[said[1]] = said[2]
            if is_secret(said[1], said[2]):
                secrets.append((said[1], words[-1].line))
        elif _trains(words):
            found.append(parse(words, variables))
    if found:
        found[0].secrets += secrets
    return found


def command_of(arguments: Sequence[str]) -> Command:
    """A command given as words: a whole command line, or options alone."""
    return parse([Word(a, None) for a in arguments], {})


def _lines(text: str, path: Path | None) -> Iterator[list[Word]]:
    """Logical lines: continued ones joined, split at `&&`, `;` and `|`, comments gone."""
    words: list[Word] = []
    held, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        whole = line.rstrip()
        continued = whole.endswith("\\") and not whole.endswith("\\\\")
        held, start = (held + "\n" + whole.removesuffix("\\"), start) if held else (whole.removesuffix("\\"), number)
        try:
            parts = shlex.split(held, comments=True)
        except ValueError:
            continue  # a quote that a later line closes
        words += [Word(p, start) for p in parts]
        held = ""
        if not continued:
            yield from _split(words)
            words = []
    if held:
        raise RecipeError(f"{path}:{start}: a quote is opened here and never closed")
    yield from _split(words)


def _split(words: list[Word]) -> Iterator[list[Word]]:
    part: list[Word] = []
    for word in words:
        ends = word.text in ("&&", "||", ";", "|", "&") or word.text.endswith(";")
        if not ends or (word.text.endswith(";") and word.text != ";"):
            part.append(Word(word.text.removesuffix(";"), word.line))
        if ends and part:
            yield part
            part = []
    if part:
        yield part


def _trains(words: list[Word]) -> bool:
    """Does this line start something with a script or a CLI that could train?"""
    texts = [w.text for w in words if not ASSIGNMENT.match(w.text)]
    if not texts:
        return False
    first = Path(texts[0]).name
    if first in TRAINERS:
        return True
    runs = any(SCRIPT.search(t) for t in texts[1:]) or "-m" in texts or any(Path(t).name in TRAINERS for t in texts[1:])
    return first in LAUNCHERS and runs and "pip" not in texts


def parse(words: list[Word], variables: dict[str, str]) -> Command:
    """Words -> Command. A variable that nothing sets stays as it is and is named in `missing`."""
    command = Command()
    words = [Word(_filled(w.text, variables, command.missing), w.line) for w in words]
    while words and (said := ASSIGNMENT.match(words[0].text)):
        command.environment[said[1]] = said[2]
        if is_secret(said[1], said[2]):
            command.secrets.append((said[1], words[0].line))
        words = words[1:]
    rest = _launcher(words, command)
    _training(rest, command)
    return command


def _filled(text: str, variables: dict[str, str], missing: list[str]) -> str:
    def value(found: re.Match[str]) -> str:
        name, otherwise = found[1] or found[3], found[2]
        if name in variables:
            return variables[name]
        if otherwise is not None:
            return otherwise
        missing.append(name)
        return found[0]

    return VARIABLE.sub(value, text)


def _launcher(words: list[Word], command: Command) -> list[Word]:
    """Take what stands before the trainer; returns what stands after it."""
    at = 0
    while at < len(words):
        text = words[at].text
        name = Path(text).name
        if name in TRAINERS or SCRIPT.search(text):
            if name in TRAINERS or text.endswith(".py"):
                command.program = name if name in TRAINERS else text
                return words[at + 1 :]
            return words[at:]
        if text == "-m" and at + 1 < len(words):
            command.program = words[at + 1].text
            if command.program not in (
                "torch.distributed.run",
                "torch.distributed.launch",
                "accelerate.commands.launch",
            ):
                return words[at + 2 :]
            command.by_launcher, at = command.program, at + 2
        elif name in LAUNCHERS or text in ("launch", "run"):
            command.by_launcher = name if name in ("accelerate", "torchrun", "deepspeed") else command.by_launcher
            at += 1
        elif text.startswith("-") and command.by_launcher:
            at = _launcher_option(words, at, command)
        elif text.startswith("-") or "=" in text:
            return words[at:]
        else:
            at += 1
    return []


def _launcher_option(words: list[Word], at: int, command: Command) -> int:
    key, equals, value = words[at].text.lstrip("-").partition("=")
    key = key.replace("-", "_")
    if equals:
        command.launcher[key] = scalar(value)
        return at + 1
    following = words[at + 1].text if at + 1 < len(words) else "-"
    if key in BARE or following.startswith("-") or following.endswith(".py"):
        command.launcher[key] = True
        return at + 1
    command.launcher[key] = scalar(following)
    return at + 2


def _training(words: list[Word], command: Command) -> None:
    """Options and positional words after the trainer's name."""
    at = 0
    while at < len(words):
        word = words[at]
        if re.match(r"^--?[A-Za-z]", word.text):
            key, equals, value = word.text.lstrip("-").partition("=")
            values = [value] if equals else []
            while not equals and at + 1 < len(words) and not re.match(r"^--?[A-Za-z]", words[at + 1].text):
                at += 1
                values.append(words[at].text)
            _say(command, key.replace("-", "_"), _value(values), word.line)
        elif re.match(r"^[A-Za-z_][\w.]*=", word.text):
            key, _, value = word.text.partition("=")
            _say(command, key, scalar(value), word.line)
        elif SCRIPT.search(word.text) and command.config is None:
            command.config = word.text
        elif not command.action and re.fullmatch(r"[a-z][a-z0-9_-]*", word.text):
            command.action = word.text
        at += 1
    if isinstance(given := command.said.get("config"), Said) and isinstance(given.value, str):
        command.config = command.config or given.value
        del command.said["config"]


def _value(values: list[str]) -> Any:
    if not values:
        return True
    return scalar(values[0]) if len(values) == 1 else [scalar(v) for v in values]


def _say(command: Command, key: str, value: Any, line: int | None) -> None:
    origin: Origin = "argument" if line is None else "file"
    before = command.said.get(key)
    if before is not None and before.line is not None and line is not None:
        command.twice.append((key, before.line, line))
    command.said[key] = Said(value, line, origin)
