"""The terminal: results go to stdout; progress, warnings and errors go to stderr."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Terminal:
    """The output of one command."""

    def __init__(self, out: Console, err: Console) -> None:
        self.out = out
        self.err = err

    def say(self, sentence: str) -> None:
        """Prints a result."""
        self.out.print(sentence, soft_wrap=True, markup=False)

    def json(self, value: Any, *, indent: int | None = None) -> None:
        """Prints a result for programs."""
        print(json.dumps(value, ensure_ascii=False, indent=indent), flush=True)

    def text(self, text: str) -> None:
        """Prints a text as it is, such as a log."""
        sys.stdout.write(text)

    def note(self, sentence: str) -> None:
        self.err.print(sentence, soft_wrap=True, markup=False, highlight=False)

    def warn(self, sentence: str) -> None:
        self.err.print(f"[yellow]warning:[/] {escape(sentence)}", soft_wrap=True, highlight=False)

    def error(self, sentence: object) -> None:
        self.err.print(f"[red]error:[/] {escape(str(sentence))}", soft_wrap=True, highlight=False)

    def rows(self, rows: Sequence[dict[str, Any]], *, output: str, empty: str) -> None:
        """Prints rows as a table or as JSON. Prints `empty` to stderr where a table has no row."""
        if output == "json":
            self.json(rows)
        elif not rows:
            self.note(empty)
        else:
            table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
            for heading in rows[0]:
                table.add_column(heading, overflow="fold")
            for row in rows:
                table.add_row(*("" if value is None else escape(str(value)) for value in row.values()))
            self.out.print(table)

    def confirmed(self, question: str) -> bool:
        """Whether the user answers yes. False where stdin is no terminal."""
        return sys.stdin.isatty() and self.err.input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Adds the option for tables or JSON."""
    parser.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="Format of the output. Default: table"
    )
