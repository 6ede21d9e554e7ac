"""The terminal: results go to stdout; progress, warnings and errors go to stderr.

The one door through which commands print. Names, reasons and messages come from data, so control characters in them are
printed as escapes (imgsearch/escapes.py). JSON and YAML have escapes of their own, and stay exact."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from imgsearch.escapes import to_json, visible, visible_lines


class VisibleConsole(Console):
    """A console on which every text is one line without control characters, also in the cells of a table."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


class Terminal:
    """The output of one command."""

    def __init__(self) -> None:
        # In a pipe, stdout is as wide as its lines, for programs that read it. `:fire:` in a name is no emoji.
        self.out = VisibleConsole(emoji=False, width=None if sys.stdout.isatty() else 10_000)
        self.err = VisibleConsole(emoji=False, stderr=True)

    def say(self, sentence: str) -> None:
        """Prints a result."""
        self.out.print(sentence, soft_wrap=True, markup=False)

    def json(self, value: Any, *, indent: int | None = None) -> None:
        """Prints a result for programs."""
        print(to_json(value, indent=indent), flush=True)

    def yaml(self, documents: Sequence[Any]) -> None:
        """Prints documents for programs."""
        print(yaml.safe_dump_all(documents, sort_keys=False), end="", flush=True)

    def log(self, text: str) -> None:
        """Prints the lines of a log."""
        print(visible_lines(text), end="", flush=True)

    def csv(self, text: str) -> None:
        """Prints a CSV file: exactly into a pipe or a file, with escapes on a terminal."""
        print(visible_lines(text.replace("\r\n", "\n")) if sys.stdout.isatty() else text, end="", flush=True)

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
