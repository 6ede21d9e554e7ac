"""`controller report`: shows the outcome of a run, and its cost."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from controller.backends import skypilot
from controller.backends.skypilot.prices import prices
from controller.cli.console import Terminal, add_output
from controller.cli.options import add_target, read_target
from controller.cli.tables import report_table
from controller.cli.targets import open_target
from controller.cli.targets.base import Target
from controller.jobs.cost import cost
from controller.jobs.state import Stage
from imgsearch.errors import ExitCode, PermanentError, UsageError
from imgsearch.runs.layout import RunFolder
from imgsearch.settings import RunSettings

HELP = "Show the outcome of a run: its images, times and cost."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="Id of the run. Default: the latest finished run")
    parser.add_argument("--bad", action="store_true", help="Print every image that could not be used, as CSV")
    add_output(parser)
    add_target(parser)


def run(args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
    target = open_target(read_target(args), env)
    run = args.run or _latest(target)
    if args.bad:
        terminal.csv(_bad_images(target, run))
        return ExitCode.DONE
    report = {**target.query("report", RunSettings(id=run)), "cost": _cost(target, run)}
    if args.output == "json":
        terminal.json(report, indent=1)
    else:
        terminal.out.print(report_table(report))
    return ExitCode.DONE


def _latest(target: Target) -> str:
    done = target.query("runs")["runs"]
    if not done:
        raise UsageError(f"no run is finished yet: `controller status{target.flags}` shows the progress")
    return str(done[0]["run"])


def _bad_images(target: Target, run: str) -> str:
    """The CSV file. Raises PermanentError where it came incomplete."""
    output = target.call("bad", RunSettings(id=run))
    try:
        return str(output.document())
    except ValueError as error:
        raise PermanentError(
            f"the list of {output.result['bytes']:,} bytes came incomplete: it is too large for the log of a pod, or "
            "the release has another version. Read "
            f"{RunFolder(run).bad_list} in {target.settings.storage.uri}"
        ) from error


def _cost(target: Target, run: str) -> dict[str, Any] | None:
    """The cost of the run; None after its Jobs were deleted."""
    embed = target.backend.jobs(run).get(Stage.EMBED)
    if embed is None:
        return None
    accelerators = {gpu.accelerator for gpu in embed.usage.by_gpu if gpu.accelerator} if skypilot.installed() else set()
    market = {accelerator: prices(accelerator) for accelerator in accelerators}
    return cost(embed, hour_price=target.settings.jobs.gpu_hour_price, prices=market)
