"""Every block of the pages is run, in the order of its page, in a folder with small runs; or its page says why not.

A tiny model stands in the place of the embedded one. What is not run is parsed: tests/test_docs.py asks the parser
of the command line about each option.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rankwise.cli import app
from tests.docs.blocks import PAGES, ROOT, SHELL, Block, all_blocks, blocks, calls, name
from tests.training import toy_job, toy_model, write_jsonl

# Runs that pages speak of as their reader's own. All are copies of one.
RUNS = ("first", "second", "clinic", "clinic-1", "clinic-2", "demo")
# Gone through by tests of their own: tests/docs/test_first_hour.py in an empty folder, tests/python/test_documented.py.
OWN_TEST = ("docs/first-hour.md", "docs/python.md")
FACTS = [{"question": f"What is number {n}?", "answer": "open", "choices": ["open", "hours"]} for n in range(6)]


def run_pages() -> list[Path]:
    """Pages with a block that is run here."""
    return [page for page in PAGES if name(page) not in OWN_TEST and any(block.runs for block in blocks(page))]


def invoke(call: list[str], *allowed: int) -> str:
    program, *arguments = call
    assert program == "rankwise", f"{program} is not run by this test; the page has to say why it is not"
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code in (0, *allowed), f"{' '.join(call)}: exit {result.exit_code}\n{result.output[-3000:]}"
    return result.output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tiny model and one run of it: trained, evaluated, merged, proven."""
    folder = tmp_path_factory.mktemp("made")
    write_jsonl(folder / "facts.jsonl", FACTS)
    data = {"train": "train.jsonl", "validation": 0.25, "facts": "facts.jsonl"}
    job = toy_job(folder, toy_model(folder / "base"), data=data, format={"regex": "[a-z ]+\\."})
    for call in (["train", str(job), "--out", str(folder / "run")], ["eval", str(folder / "run")]):
        invoke(["rankwise", *call], 3)
    invoke(["rankwise", "merge", str(folder / "run")])
    yield folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for run in RUNS:
        shutil.copytree(made / "run", tmp_path / "runs" / run)
    shutil.copytree(ROOT / "examples" / "recipes", tmp_path / "examples" / "recipes")
    monkeypatch.setenv("RANKWISE_REGISTRY", str(tmp_path / "registry.sqlite"))
    monkeypatch.setenv("RANKWISE_ADAPTERS", str(tmp_path / "adapters"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def carry_out(block: Block, base: Path) -> None:
    """Run a block in the folder that is worked in."""
    if "file" in block.marks:
        Path(block.marks["file"]).write_text(block.text, encoding="utf-8")
    if block.language == "python":
        exec(compile(block.text, block.where, "exec"), {"__name__": "page"})
    for call in calls(block) if block.language in SHELL else ():
        stands = {"embedded": str(base), "RUN": "runs/first"}
        invoke([stands.get(word, word) for word in call], *([3] if "may exit 3" in block.marks else []))


@pytest.mark.parametrize("page", run_pages(), ids=name)
def test_the_blocks_of_a_page_run(page: Path, made: Path, here: Path) -> None:
    for block in blocks(page):
        if block.runs:
            carry_out(block, made / "base")


def test_most_blocks_are_run_and_the_others_say_why() -> None:
    found = all_blocks(*SHELL, "python")
    count = Counter("run" if block.runs else "not run" for block in found)
    commands = sum(len(calls(block)) for block in found if block.language in SHELL and block.runs)
    print(f"{count['run']} blocks with {commands} commands run, {count['not run']} not, each with its reason")
    assert count["run"] >= 15 and commands >= 30
    assert all(len(block.marks["not run"]) > 8 for block in found if not block.runs)


def test_a_comment_that_stands_away_from_its_block_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: because of this -->\n```bash\nmake demo\n```\n")
    assert [block.marks for block in blocks(page)] == [{"not run": "because of this"}]
    page.write_text("<!-- not run: because of this -->\n\nWords.\n")
    with pytest.raises(AssertionError, match="away from its block"):
        blocks(page)
