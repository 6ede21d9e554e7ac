"""The terminal: results go to stdout, progress, warnings and errors to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Terminal:
    """Where one command prints."""

    def __init__(self, out: Console, err: Console) -> None:
        self.out = out
        self.err = err

    def say(self, sentence: str) -> None:
        """A result."""
        self.out.print(sentence, soft_wrap=True, markup=False)

    def note(self, sentence: str) -> None:
        self.err.print(sentence, soft_wrap=True, markup=False, highlight=False)

    def warn(self, sentence: str) -> None:
        self.err.print(f"[yellow]warning:[/] {escape(sentence)}", soft_wrap=True, highlight=False)

    def error(self, sentence: object) -> None:
        self.err.print(f"[red]error:[/] {escape(str(sentence))}", soft_wrap=True, highlight=False)

    def rows(self, rows: Sequence[dict[str, Any]], *, output: str, empty: str) -> None:
        """A table, or the rows as JSON; `empty` is said where there is none."""
        if output == "json":
            print(json.dumps(rows, ensure_ascii=False))
        elif not rows:
            self.note(empty)
        else:
            shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
            for heading in rows[0]:
                shown.add_column(heading, overflow="fold")
            for row in rows:
                shown.add_row(*("" if value is None else escape(str(value)) for value in row.values()))
            self.out.print(shown)

    def agreed(self, question: str) -> bool:
        """Whether a person says yes; False where nobody can be asked."""
        return sys.stdin.isatty() and self.err.input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
