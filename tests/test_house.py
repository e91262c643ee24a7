"""The rules of the house that a reader could check by eye, checked by machine: words, names, lengths, patience."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.imports import ROOT

CODE = sorted(path for folder in ("cbir", "stages") for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
# words that say nothing of what a variable holds; a message's "expected X, found Y" is no identifier
NOT_NAMES = {"asked", "asker", "askers", "found", "made", "mine", "one", "shown", "tell", "theirs", "told"}
PHRASES = ("one_line", "at_least_one", "found_by")  # the number, and a column of duplicates.parquet
OUTPUT = "# a key of"  # of JSON that users read: it keeps its name
MAX_TEST_WORDS = 10
MIN_PATIENCE_S = 600  # the suite runs on busy machines
TIME_IS_THE_SUBJECT = "# time is the subject"
TIME_LIMIT = re.compile(r"\b(?:timeout|default_timeout)\s*=\s*(\d+)")


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name that the code gives: of variables, arguments, attributes, functions and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def words_of(name: str) -> set[str]:
    for phrase in PHRASES:
        name = name.replace(phrase, "")
    return set(name.lower().split("_"))


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_say_what_they_hold(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    names = {(line, name) for line, name in identifiers(ast.parse(text)) if NOT_NAMES & words_of(name)}
    lines = text.splitlines()
    vague = sorted((line, name) for line, name in names if OUTPUT not in lines[line - 1])
    assert vague == []


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_test_name_has_at_most_ten_words(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    long = [name for name in names if name.startswith("test_") and name.count("_") > MAX_TEST_WORDS]
    assert long == []


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_wait_can_fail_on_a_busy_machine(path: Path) -> None:
    impatient = [
        line.strip()
        for line in path.read_text(encoding="utf-8").splitlines()
        if TIME_IS_THE_SUBJECT not in line and any(int(limit) < MIN_PATIENCE_S for limit in TIME_LIMIT.findall(line))
    ]
    assert impatient == []


def test_every_pinned_package_has_hashes() -> None:
    pins = [line for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines() if "==" in line[:80]]
    pins = [line for line in pins if not line.startswith((" ", "#"))]
    assert len(pins) > 150
    assert [line for line in pins if not line.endswith("\\")] == []  # a hash follows in the next line
