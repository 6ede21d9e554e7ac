"""`controller status`: shows the stages of a run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from controller.cli.console import Terminal, add_output
from controller.cli.options import add_target, read_target
from controller.cli.progress import Rate
from controller.cli.tables import average, reasons, summary, table, working
from controller.cli.targets import open_target
from controller.run.steps import over
from imgsearch.errors import ExitCode, UsageError

HELP = "Show the stages of a run."
WATCH_SECONDS = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="Id of the run. Default: the latest run")
    parser.add_argument("--watch", action="store_true", help="Show it again every 2 s until the run has ended")
    add_output(parser)
    add_target(parser)


def run(args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
    target = open_target(read_target(args), env)
    run: str | None = args.run or next(reversed(target.backend.runs()), None)
    for trouble in target.backend.troubles():
        terminal.warn(trouble)
    if run is None:
        raise UsageError(f"no runs yet: start one with `controller run-pipeline SOURCE{target.flags}`")
    price = target.settings.jobs.gpu_hour_price
    window = Rate(time.monotonic)
    while True:
        jobs = target.backend.jobs(run)
        if not jobs:
            raise UsageError(f"run {run!r} does not exist: `controller runs{target.flags}` lists the runs")
        rate = window.update(jobs)
        if rate is None and (job := working(jobs)):
            rate = average(job, datetime.now(UTC))
        if args.output == "json":
            terminal.json(
                {"run": run, "stages": [summary(job, jobs, rate, gpu_hour_price=price) for job in jobs.values()]}
            )
        else:
            terminal.out.print(table(run, jobs, rate, gpu_hour_price=price))
            for reason in reasons(jobs):
                terminal.out.print(reason, soft_wrap=True)
        if not args.watch or over(jobs):
            return ExitCode.DONE
        target.backend.wait(WATCH_SECONDS)
