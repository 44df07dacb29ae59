"""The documentation against the thing: paths, links, commands, code, rows, rules and constants. Each test counts."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
import yaml
from typer.testing import CliRunner

import rankwise
from rankwise.cli import app
from rankwise.estimate.options import OPTIONS
from rankwise.records import Job
from rankwise.text.formats import FORMATS, read_probes, read_rows
from tests.docs.blocks import PAGES, ROOT, SHELL, all_blocks, blocks, calls, name

SRC = ROOT / "src" / "rankwise"
COMMANDS: Any = typer.main.get_command(app)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def inline_code(page: Path) -> list[str]:
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def test_the_pages_are_there() -> None:
    expected = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/map.md", "docs/first-run.md", "docs/log.md"}
    assert expected | {"docs/how-it-decides.md", "docs/formulas.md"} <= {name(p) for p in PAGES}
    assert len([p for p in PAGES if p.parent.name == "decisions"]) >= 4


# -- links and paths -------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_relative_links_resolve() -> None:
    checked, broken = 0, []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            if re.match(r"[a-z]+:", target):
                continue
            checked += 1
            path, _, anchor = unquote(target).partition("#")
            there = (page.parent / path).resolve() if path else page
            if not there.exists() or (anchor and anchor not in anchors(there)):
                broken.append(f"{name(page)}: {target}")
    assert not broken
    assert checked > 60


def tree() -> dict[str, str]:
    """Path -> phrase of every line of the map's tree."""
    (block,) = (b for b in blocks(ROOT / "docs" / "map.md") if b.kind == "tree")
    found: dict[str, str] = {}
    above: list[str] = []
    for line in block.text.splitlines():
        match = re.fullmatch(r"( *)(\S+)  +(\S.*)", line)
        assert match, f"not `path  phrase`: {line!r}"
        depth = len(match[1]) // 2
        above = [*above[:depth], match[2]]
        path = "".join(above)
        assert path not in found, f"{path} stands twice"
        found[path] = match[3]
    return found


def test_every_path_of_the_map_exists() -> None:
    missing = [path for path in tree() if not (ROOT / path).exists() or path.endswith("/") != (ROOT / path).is_dir()]
    assert not missing
    assert len(tree()) > 80


def test_every_source_file_is_in_the_map() -> None:
    mapped = tree()
    files = [
        name(p)
        for folder in (SRC, ROOT / "benchmarks", ROOT / "examples", ROOT / "docs")
        for p in folder.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts and not p.name.startswith(".")
    ]
    unmapped = [
        f
        for f in files
        if f not in mapped
        and not (f.endswith("__init__.py") and _only_says(ROOT / f))
        and not _mapped_whole(ROOT / f, mapped)
    ]
    assert not unmapped
    assert len(files) > 80


def _mapped_whole(file: Path, mapped: dict[str, str]) -> bool:
    """One of many data files of a kind, such as `*.json`, that the line of its own folder names. Never code."""
    kind = f"*{file.suffix}"
    many = len(list(file.parent.glob(kind))) > 20
    return file.suffix in {".json", ".csv"} and many and kind in mapped.get(f"{name(file.parent)}/", "").split()


def test_only_many_data_files_of_the_named_kind_are_mapped_whole(tmp_path: Path) -> None:
    folder = SRC / "observe" / "architectures"
    line = {f"{name(folder)}/": "configs, *.json *.py *.toml"}
    assert _mapped_whole(folder / "gpt2.json", line)
    assert not _mapped_whole(folder / "gpt2.json", {f"{name(folder)}/": "configs"})
    assert not _mapped_whole(folder / "index.toml", line)
    assert not _mapped_whole(SRC / "trace" / "run.py", {f"{name(SRC / 'trace')}/": "*.py"})


def _only_says(init: Path) -> bool:
    """An `__init__.py` that holds no more than its sentence; its folder's line stands for it."""
    body = ast.parse(init.read_text(encoding="utf-8")).body
    return len(body) <= 1 and f"{name(init.parent)}/" in tree()


def test_source_paths_in_prose_exist() -> None:
    """Inline code that looks like a file of the package or the repository."""
    checked, missing = 0, []
    for page in PAGES:
        for code in inline_code(page):
            if (
                re.fullmatch(r"(src|tests|docs|examples|decide|estimate|methods)/[\w./-]+", code)
                and "test_" not in code
            ):
                checked += 1
                if not (ROOT / code).exists() and not (SRC / code).exists():
                    missing.append(f"{name(page)}: {code}")
    assert not missing
    assert checked > 10


# -- commands --------------------------------------------------------------------------------------


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """(where, words of a call): of shell blocks, and of inline code that starts with `rankwise `."""
    for block in all_blocks(*SHELL):
        yield from ((block.where, call) for call in calls(block) if call[0] == "rankwise")
    for page in PAGES:
        for code in inline_code(page):
            if code.startswith("rankwise "):
                yield name(page), shlex.split(code)


def test_every_command_line_parses() -> None:
    checked, refused = 0, []
    for where, (_, command, *arguments) in command_lines():
        line = " ".join([command, *arguments])
        if command == "COMMAND":  # stands for any; --help is an option of all
            assert arguments == ["--help"], line
            continue
        checked += 1
        if command not in COMMANDS.commands:
            refused.append(f"{where}: {line}: no such command")
            continue
        told = COMMANDS.commands[command]
        if arguments and hasattr(told, "commands"):  # a group, such as `tenants`
            if arguments[0] not in told.commands:
                refused.append(f"{where}: {line}: no such command")
                continue
            told, (command, *arguments) = told.commands[arguments[0]], arguments
        if not arguments or arguments == ["--help"]:  # the name of a command in a sentence
            continue
        try:
            told.make_context(command, arguments)
        except Exception as error:
            refused.append(f"{where}: {line}: {type(error).__name__} {error}")
    assert not refused
    assert checked > 20


def test_a_wrong_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="--oot"):
        COMMANDS.commands["train"].make_context("train", ["job.yaml", "--oot", "runs/x"])


def test_the_readme_lists_every_command() -> None:
    listed = {call[1] for where, call in command_lines() if where == "README.md"}
    assert set(COMMANDS.commands) <= listed
    assert len(COMMANDS.commands) >= 9


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for page in PAGES
        for target in re.findall(r"(?:`|^    )make ([a-z-]+)(?:`|$)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {"install", "demo", "test", "check", "prove"} <= named
    assert named <= targets


# -- code and data ---------------------------------------------------------------------------------


def test_python_blocks_compile_and_name_what_exists() -> None:
    found = all_blocks("python")
    for block in found:
        code = ast.parse(block.text, block.where)
        compile(code, block.where, "exec")
        for node in ast.walk(code):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rankwise":
                assert node.attr in rankwise.__all__, f"{block.where}: rankwise.{node.attr}"
    assert len(found) >= 3


def test_jobs_are_valid() -> None:
    found = [block for block in all_blocks("yaml") if block.kind == "yaml"]
    for block in found:
        Job.model_validate(yaml.safe_load(block.text))
    assert found


def test_batches_name_options_of_estimate() -> None:
    found = [entry for b in all_blocks("yaml") if b.kind == "yaml batch" for entry in yaml.safe_load(b.text)]
    for entry in found:
        assert entry.keys() - {"id"} <= OPTIONS.keys()
    assert len(found) >= 2


def test_the_pasted_estimate_is_what_the_command_says() -> None:
    """The call before the block, priced again: the page shows the output of this version."""
    readme = blocks(ROOT / "README.md")
    (at,) = (i for i, block in enumerate(readme) if block.kind == "text estimate")
    call = shlex.split(readme[at - 1].text)
    result = CliRunner().invoke(app, call[1:])
    assert call[:2] == ["rankwise", "estimate"]
    assert [line.rstrip() for line in result.stdout.strip().splitlines()] == readme[at].text.strip().splitlines()
    assert result.exit_code == 3  # it does not fit


def test_the_accuracy_in_the_readme_is_that_of_the_benchmark() -> None:
    metrics = json.loads((ROOT / "benchmarks" / "memory" / "result.json").read_text(encoding="utf-8"))["metrics"]
    page = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for which in ("allocated_a", "reserved_a_stated_length", "device_a"):
        assert f"({metrics[f'rows_{which}']} runs" in page
        for error in ("median_abs_error", "p95_abs_error"):
            assert f"{metrics[f'{error}_{which}']:.2%}".replace("%", " %") in page, (error, which)


def test_the_accuracy_of_times_in_the_readme_is_that_of_the_benchmark() -> None:
    result = json.loads((ROOT / "benchmarks" / "time" / "result.json").read_text(encoding="utf-8"))
    page = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    (peer,) = (p for p in result["peers"] if p["name"] == "ftuneai")
    assert f"Against {result['metrics']['rows']} published throughputs" in page
    shown = [result["metrics"]["median_abs_error_out_of_sample"], peer["median_abs_error"]]
    for share in (*shown, peer["ours_on_the_same_rows"]):
        assert f"{share:.1%}".replace("%", " %") in page, share


def test_the_agreement_in_the_readme_is_that_of_the_benchmark() -> None:
    metrics = json.loads((ROOT / "benchmarks" / "decisions" / "result.json").read_text(encoding="utf-8"))["metrics"]
    page = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    shares = {name: f"{100 * metrics[name]:.0f}" for name in metrics if name.startswith("agreement")}
    assert (
        f"Asked about {metrics['cases']} published head-to-heads from {metrics['sources']} sources, the call is one of "
        f"the winners in {shares['agreement']} % ({shares['agreement_low']} to {shares['agreement_high']} %), and in "
        f"{shares['agreement_held_out']} % of the {metrics['cases_held_out']} that were held out"
    ) in page
    assert f"is one in {shares['agreement_lora_r16']} %," in page
    assert f"decision function in {shares['agreement_lesson']} %:" in page


def test_example_rows_are_read_in_the_format_they_are_shown_for(tmp_path: Path) -> None:
    shown = set()
    for number, block in enumerate(all_blocks("jsonl")):
        kind = block.kind.removeprefix("jsonl ")
        path = tmp_path / f"{number}.jsonl"
        path.write_text(block.text, encoding="utf-8")
        if kind == "probes":
            assert len(read_probes(path)) == 1
        else:
            assert read_rows(path).format == kind, block.where
        shown.add(kind)
    assert shown == {*FORMATS, "probes"}


# -- constants --------------------------------------------------------------------


# Names of no quantity: they mark an absent layer, and kinds of events of the allocator.
MARKS = {"NO_LAYER", "_DEATH", "_EMPTY", "EMPTY_CACHE"}


def constants(source: str) -> dict[str, Any]:
    """Upper-case names of a module whose values are literals, or arithmetic on literals, and hold a number.

    Vocabularies (names of options, tables of functions) are left out; a number inside a tuple or a mapping is not.
    """
    known: dict[str, Any] = {"__builtins__": {}}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        names = [n.id for n in ast.walk(target) if isinstance(n, ast.Name) and n.id.isupper()]
        if not names:
            continue
        try:
            value = eval(compile(ast.Expression(node.value), "constant", "eval"), known)
        except NameError:  # made of something imported or called
            continue
        known |= dict(zip(names, value if len(names) > 1 else [value], strict=True))
    return {k: v for k, v in known.items() if k != "__builtins__" and k not in MARKS and _holds_a_number(v)}


def _holds_a_number(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_a_number, [*value, *value.values()]))
    if isinstance(value, tuple | list | set | frozenset):
        return any(map(_holds_a_number, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_constants_are_asked_for_where_they_hold_a_number() -> None:
    found = constants(
        """
from torch import bfloat16
MIB = 1 << 20
PAGE = 2 * MIB
BLOCK, NESTED = 64, 256
SHARE: dict[str, float] = {"full": 0.5}
CHOICES = (("a", 1), ("b", 2))
NAMES = ("a", "b")
ON = {"a": True}
KINDS = {"bf16": bfloat16}
small = 3
"""
    )
    pairs = {"MIB": 1 << 20, "PAGE": 2 << 20, "BLOCK": 64, "NESTED": 256, "SHARE": {"full": 0.5}}
    assert found == pairs | {"CHOICES": (("a", 1), ("b", 2))}


@pytest.mark.parametrize(
    ("page", "stage"), [("formulas.md", "estimate"), ("formulas.md", "trace"), ("formulas.md", "decide")]
)
def test_constants_are_those_of_the_code(page: str, stage: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = re.findall(rf"^\| `({stage}[\w.]*\.[A-Z_]+)` \| `(.+?)` \| \S.* \|$", text, re.MULTILINE)
    there = {
        f"{'.'.join(file.relative_to(SRC).with_suffix('').parts)}.{constant}": value
        for file in sorted((SRC / stage).rglob("*.py"))
        for constant, value in constants(file.read_text(encoding="utf-8")).items()
    }
    assert {at: ast.literal_eval(value) for at, value in rows} == there
    assert len(rows) == len(there) > 0


def test_the_changelog_names_this_version() -> None:
    heads = re.findall(r"^## \[(\d+\.\d+\.\d+)\] \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == rankwise.__version__
