"""The pages of documentation that people write or generate, for the tests of docs."""

from __future__ import annotations

import re
from pathlib import Path

from tests.programs import ROOT

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(page for folder in ("charts", "demo", "docs", "sky") for page in (ROOT / folder).rglob("*.md")),
        ROOT / "tests" / "cluster" / "README.md",
    ]
)
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str | None = None) -> list[str]:
    """The code blocks of a page, all of them or those of one language."""
    return [code for name, code in FENCE.findall(page.read_text()) if language in (None, name)]


def spans(page: Path) -> list[str]:
    """The code in the sentences and tables of a page, each in one line."""
    return [" ".join(code.split()) for code in SPAN.findall(FENCE.sub("", page.read_text()))]


def code_lines(page: Path) -> list[str]:
    """Each line of code of a page, without a prompt. Lines that end with a backslash are joined."""
    lines = [line for block in blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    return [re.sub(r"^\s*\$ ", "", line).strip() for line in lines] + spans(page)
