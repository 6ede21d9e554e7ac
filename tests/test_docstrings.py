"""Docstrings are sentences: every file has one, and none begins with a question word."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.programs import ROOT

CODE = ("imgsearch", "controller", "images", "bench", "demo", "docs")
QUESTIONS = ("What", "Which", "Whose", "Who", "Where")


def test_every_file_says_what_it_is_for() -> None:
    undocumented = [
        str(file.relative_to(ROOT)) for file in _files() if not ast.get_docstring(ast.parse(file.read_text()))
    ]
    assert undocumented == []


def test_no_docstring_begins_with_a_question_word() -> None:
    questions = [
        f"{file.relative_to(ROOT)}:{line}: {text}"
        for file in _files()
        for line, text in _docstrings(ast.parse(file.read_text()))
        if text.split()[0] in QUESTIONS
    ]
    assert questions == []


def _files() -> list[Path]:
    return sorted(file for folder in CODE for file in (ROOT / folder).rglob("*.py"))


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every string that stands alone: docstrings, and the sentences below constants and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()
