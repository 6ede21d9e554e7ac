"""`controller cleanup`: deletes the Jobs of finished runs, or all of one run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from controller.cli.console import Terminal
from controller.cli.options import add_target, read_target
from controller.cli.targets import open_target
from controller.jobs.manifests import CONTROLLER, job_name
from controller.jobs.state import Phase, Stage
from controller.run.steps import over
from imgsearch.errors import ExitCode, UsageError
from imgsearch.settings import RunSettings

HELP = "Delete the Jobs of finished runs. Indexes are kept. With --data, delete the files and vectors of a run, too."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="Id of the run. Default: every finished run")
    parser.add_argument(
        "--data", action="store_true", help="Delete its files and vectors, too. Refused while an index serves the run"
    )
    add_target(parser)


def run(args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
    target = open_target(read_target(args), env)
    runs = target.backend.runs()
    if args.data and not args.run:
        raise UsageError("--data needs a RUN: it deletes the run permanently")
    if args.run and not args.data and args.run not in runs:
        if not target.query("planned", RunSettings(id=args.run))["planned"]:
            raise UsageError(f"run {args.run!r} does not exist: `controller runs{target.flags}` lists the runs")
        terminal.say(f"run {args.run} has no Jobs")
        return ExitCode.DONE
    for run in [args.run] if args.run else runs:
        jobs = target.backend.jobs(run)
        active = [job.stage for job in jobs.values() if job.phase in (Phase.ACTIVE, Phase.SUSPENDED)]
        if args.run and active:
            raise UsageError(
                f"run {run} is active (stage {active[0]}): stop it first with `controller stop {run}{target.flags}`"
            )
        if not args.run and not over(jobs):
            continue
        if args.data:
            target.query("forget", RunSettings(id=run))
        for component in (*Stage, CONTROLLER):
            target.backend.delete(job_name(target.release, run, component))
        terminal.say(f"deleted {'everything' if args.data else 'the Jobs'} of run {run}")
    return ExitCode.DONE
