"""`controller stop`: ends the Jobs of an active run. What they have written is kept."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from controller.cli.console import Terminal
from controller.cli.options import add_target, read_target
from controller.cli.targets import open_target
from controller.jobs.manifests import CONTROLLER, job_name
from controller.run.steps import over
from imgsearch.errors import ExitCode, UsageError

HELP = "Stop an active run. Its finished parts are kept, and its run-pipeline command continues it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="Id of the run")
    add_target(parser)


def run(args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
    target = open_target(read_target(args), env)
    run = args.run
    if run not in target.backend.runs():
        raise UsageError(f"run {run!r} has no Jobs: `controller runs{target.flags}` lists the runs")
    jobs = target.backend.jobs(run)
    if jobs and over(jobs):
        terminal.say(f"run {run} is not active")
        return ExitCode.DONE
    target.check_stop(run)
    # First: it would create the other Jobs again.
    target.backend.delete(job_name(target.release, run, CONTROLLER))
    for job in jobs.values():
        if not job.phase.ended:
            target.backend.delete(job.name)
            terminal.say(f"stopped {job.stage} of run {run} ({len(job.succeeded)} of {job.completions} were done)")
    terminal.say(f"run {run} is stopped: its run-pipeline command continues it")
    return ExitCode.DONE
