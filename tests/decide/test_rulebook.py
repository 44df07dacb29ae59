"""The rules as data: what code asks for stands there, what stands there is asked for, and evidence is cited."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import rankwise.decide
from rankwise.decide.rulebook import cite, evidence, rules, threshold

SOURCES = {file.stem: file.read_text() for file in sorted(Path(rankwise.decide.__path__[0]).glob("*.py"))}
TREES = {name: ast.parse(text) for name, text in SOURCES.items()}
every_rule = pytest.mark.parametrize("name", rules())
every_evidence = pytest.mark.parametrize("name", evidence())


def calls(*names: str) -> Iterator[tuple[str, ast.Call]]:
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                yield module, node


def constants(node: ast.AST) -> set[str]:
    """Strings of an expression: of both arms of a conditional one, and of the names that stand for them."""
    return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def told_rules() -> set[str]:
    """Ids given to `reject`, `reason` and `_rung`, whose evidence is printed in a plan."""
    place = {"reject": 1, "reason": 0, "_rung": 1}
    return {rule for _, call in calls(*place) for rule in constants(call.args[place[call.func.id]])}  # type: ignore[attr-defined]


def warned_rules() -> set[str]:
    """Ids in the sentences of warnings."""
    return {rule for _, call in calls("said") for rule in constants(call.args[0])}


def thresholds_read() -> set[tuple[str, str]]:
    """Every (rule, name) that some code reads, by the constants that can stand there.

    Three ways are known: `threshold("rule", "name")` with either arm of a conditional; a constant RULE of the module;
    and a name that a comprehension or a local function takes from constants beside it.
    """
    found = set()
    for module, call in calls("threshold"):
        rule, name = call.args
        module_rule = re.search(r'^RULE = "(\w+)"$', SOURCES[module], re.MULTILINE)
        ids = constants(rule) or {module_rule[1] if module_rule else ""}
        assert len(ids) == 1, f"{module}: which rule is asked for cannot be read off line {call.lineno}"
        (asked,) = ids
        names = constants(name) & set(rules()[asked].thresholds) if asked in rules() else set()
        if isinstance(name, ast.Name):
            names = {n for n in rules()[asked].thresholds if re.search(rf'"{n}"', SOURCES[module])}
        if not names:
            names = constants(name)  # a misspelled one, to be found below
        found |= {(asked, n) for n in names}
    return found


# -- code and file agree ---------------------------------------------------------------------------


def test_every_rule_that_code_tells_or_warns_of_stands_in_the_file() -> None:
    assert len(told_rules()) > 20 and told_rules() - {"forced"} <= set(rules())
    assert warned_rules() <= set(rules())


def test_every_rule_of_the_file_is_used_by_code() -> None:
    used = told_rules() | warned_rules() | {rule for rule, _ in thresholds_read()}
    told = {rule for rule in rules() for text in SOURCES.values() if re.search(rf"\brule `{rule}`", text)}
    assert set(rules()) - used - told == set()


def test_every_threshold_that_code_reads_stands_in_the_file() -> None:
    read = thresholds_read()
    assert len(read) > 25
    assert all(name in rules()[rule].thresholds for rule, name in read)


def test_every_threshold_of_the_file_is_read_by_code() -> None:
    assert {(rule, name) for rule, text in rules().items() for name in text.thresholds} - thresholds_read() == set()


def test_hard_rules_are_told_by_rejections_alone() -> None:
    rejected = {rule for _, call in calls("reject") for rule in constants(call.args[1])}
    assert {name for name, rule in rules().items() if rule.kind == "hard"} <= rejected
    assert {rules()[name].kind for name in rejected} <= {"hard", "soft"}


# -- the content -----------------------------------------------------------------------------------


@every_rule
def test_a_rule_says_what_it_needs_what_it_does_and_on_what_it_stands(name: str) -> None:
    rule = rules()[name]
    assert rule.inputs and rule.title and rule.direction.endswith(".")
    assert rule.confidence in ("high", "medium", "low")
    assert set(rule.evidence) <= set(evidence())
    assert rule.evidence or rule.step in ("feasibility", "cost")  # arithmetic on the job's own limits
    for number in rule.thresholds.values():
        assert number.unit and number.means
    assert all(line.split(":")[0] in rule.evidence for line in cite(name)) and len(cite(name)) == len(rule.evidence)


@every_evidence
def test_evidence_has_a_source_a_setup_and_numbers_and_is_cited_by_a_rule(name: str) -> None:
    found = evidence()[name]
    assert found.source and found.setup and found.confidence.split()[0] in ("high", "medium", "low")
    assert found.text.endswith("."), name
    assert any(name in rule.evidence for rule in rules().values())
    assert found.told().startswith(f"{name}: {found.source}. {found.setup}: ")
    assert (" The other side: " in found.told()) == bool(found.other_side)


def test_rules_that_sources_dispute_name_the_other_side() -> None:
    """Soft rules of capacity and risk rest on comparisons, and somebody has measured otherwise."""
    disputed = [rule for rule in rules().values() if rule.kind == "soft" and rule.step in ("capacity", "risk")]
    assert len(disputed) >= 5 and all(rule.other_side for rule in disputed)


def test_thresholds_are_numbers_of_the_file() -> None:
    assert threshold("precision_trap", "rate") == 1e-4 and threshold("capacity_suffices", "least") == 0.5
    with pytest.raises(KeyError):
        threshold("precision_trap", "height")


def test_ids_are_those_of_the_notes() -> None:
    assert {f"E{n}" for n in range(1, 31)} <= set(evidence())
