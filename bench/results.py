"""The results of benchmarks, as JSON files in bench/results and as the page docs/benchmarks.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

FOLDER = Path(__file__).with_name("results")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
ORDER = ("embed", "architectures", "memory", "ingest", "graphs", "search", "filters", "concurrency", "gpu")
"""The benchmarks of `python -m bench`."""
LONG = ("sizes", "million")
"""The benchmarks that run only where they are named."""
SECTIONS = (*ORDER, *LONG, "cluster")
"""The sections of the page. The cluster tests measure the times of the last one."""

HEAD = """\
# Benchmarks

`make bench` measures on the machine that it runs on, and generates this page from `bench/results/*.json`. Compare the
ratios: absolute numbers depend on the machine, but both sides of a ratio were measured in the same run, in turn. Each
number is the median of the rounds, with the smallest and the largest in brackets.
"""


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    case: str
    """The row in the table."""
    column: str
    """The column in the table, with the unit."""
    value: float
    rounds: tuple[float, ...] = ()
    """The measurements; `value` is their median."""
    at_least: float | None = None
    at_most: float | None = None
    """The targets; None: no target."""

    @classmethod
    def median(cls, case: str, column: str, rounds: Sequence[float], **targets: float | None) -> Self:
        digits = tuple(float(f"{value:.4g}") for value in rounds)
        return cls(case, column, statistics.median(digits), digits, **targets)

    @property
    def target(self) -> str:
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"

    @property
    def has_target(self) -> bool:
        return self.at_least is not None or self.at_most is not None

    @property
    def met(self) -> bool:
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    def __str__(self) -> str:
        spread = f" ({_number(min(self.rounds))} to {_number(max(self.rounds))})" if len(self.rounds) > 1 else ""
        return _number(self.value) + spread


@dataclass(frozen=True)
class Result:
    """The result of one benchmark."""

    name: str
    title: str
    method: str
    """How it was measured, in Markdown."""
    machine: str
    date: str
    quick: bool
    tables: dict[str, list[Figure]] = field(default_factory=dict)
    """By heading; empty if this machine cannot run the benchmark."""

    def save(self) -> None:
        FOLDER.mkdir(exist_ok=True)
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        (FOLDER / f"{self.name}.json").write_text(text + "\n")

    @classmethod
    def load(cls, file: Path) -> Self:
        document: dict[str, Any] = json.loads(file.read_text())
        tables = {
            heading: [Figure(**{**figure, "rounds": tuple(figure["rounds"])}) for figure in figures]
            for heading, figures in document["tables"].items()
        }
        return cls(**{**document, "tables": tables})


def page() -> str:
    """The text of docs/benchmarks.md, from the results in FOLDER."""
    results = [Result.load(file) for name in SECTIONS if (file := FOLDER / f"{name}.json").exists()]
    return "\n".join([HEAD, _targets(results), *map(_section, results)])


def _targets(results: Sequence[Result]) -> str:
    lines = [
        "## Targets\n",
        "| benchmark | figure | measured | target | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for result in results:
        for figures in result.tables.values():
            for figure in filter(lambda figure: figure.has_target, figures):
                verdict = "met" if figure.met else "**missed**"
                lines.append(
                    f"| {result.name} | {figure.column}; {figure.case} | {figure} | {figure.target} | {verdict} |"
                )
    return "\n".join(lines) + "\n"


def _section(result: Result) -> str:
    quick = " A quick run: too few images and rounds to rely on." if result.quick else ""
    lines = [f"## {result.title}\n", f"{result.method}\n", f"{result.date}, {result.machine}.{quick}\n"]
    if not result.tables:
        lines.append("Not measured: this machine has no GPU.\n")
    for heading, figures in result.tables.items():
        if heading:
            lines.append(f"### {heading}\n")
        lines += [*_table(figures), ""]
    return "\n".join(lines)


def _table(figures: Sequence[Figure]) -> list[str]:
    """One row for each case."""
    columns = list(dict.fromkeys(figure.column for figure in figures))
    cells = {(figure.case, figure.column): figure for figure in figures}
    lines = ["| | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 1) + "|"]
    for case in dict.fromkeys(figure.case for figure in figures):
        values = [str(cells.get((case, column), "")) for column in columns]
        lines.append(f"| {case} | " + " | ".join(values) + " |")
    return lines


def _number(value: float) -> str:
    """Three significant digits; a number from 100 on has no decimals."""
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 100 else f"{value:.3g}"
