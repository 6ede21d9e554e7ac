"""`controller evaluate`: measures how well an index finds images, alone or compared with another."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller.cli import plot
from controller.cli.console import Terminal, add_output
from controller.cli.options import add_target, positive, read_target
from controller.cli.tables import Evaluation, evaluated_index, evaluation_rows, weakest_labels
from controller.cli.targets import open_target
from controller.cli.targets.base import Target
from imgsearch.errors import ExitCode, TemporaryError, UsageError
from imgsearch.settings import EvaluateSettings, RunSettings

HELP = "Measure the recall and precision of an index, alone or compared with another."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", metavar="INDEX", help="Name of the index")
    parser.add_argument(
        "other", nargs="?", metavar="OTHER", help="An index to compare it with, for example one of another model"
    )
    parser.add_argument(
        "--queries",
        type=positive,
        default=500,
        metavar="N",
        help="Number of images, captions and labels to search with. Default: 500 of each",
    )
    parser.add_argument(
        "--labels", metavar="FIELD", help="Field of the metadata with labels. Default: found by its name"
    )
    parser.add_argument(
        "--captions", metavar="FIELD", help="Field of the metadata with captions. Default: found by its name"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="Draw a plot as well, as .svg or .png")
    add_output(parser)
    add_target(parser)


def run(args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
    if args.other == args.index:
        raise UsageError(f"cannot compare index {args.index} with itself: name another index")
    if args.plot:
        plot.check_plot(args.plot)
    target = open_target(read_target(args), env)
    target.require_programs()
    settings = EvaluateSettings(args.other, args.queries, args.labels, args.captions)
    evaluation = _evaluation(target, RunSettings(index=args.index), settings)
    if args.output == "json":
        terminal.json(evaluation, indent=1)
    else:
        _show(evaluation, terminal)
    if args.plot:
        plot.plot(evaluation, args.plot)
    return ExitCode.DONE


def _evaluation(target: Target, run: RunSettings, settings: EvaluateSettings) -> dict[str, Any]:
    try:
        evaluation: dict[str, Any] = target.call("evaluate", run, settings).document()
    except ValueError as error:
        raise TemporaryError("the output of the evaluation is incomplete: try again") from error
    return evaluation


def _show(evaluation: Evaluation, terminal: Terminal) -> None:
    for index in evaluation["indexes"]:
        terminal.say(evaluated_index(index))
    terminal.rows(evaluation_rows(evaluation), output="table", empty="The index has too few images to measure")
    for index in evaluation["indexes"]:
        if index["by_label"]:
            terminal.rows(weakest_labels(index), output="table", empty="")
