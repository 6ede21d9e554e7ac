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
    # A controller in the cluster ends first, before the Jobs are read: it would create the next one, or these again.
    target.backend.delete(job_name(target.release, run, CONTROLLER))
    jobs = target.backend.jobs(run)
    for job in jobs.values():
        if not job.phase.ended:
            target.check_stop(run)
            target.backend.delete(job.name)
            terminal.say(f"stopped {job.stage} of run {run} ({len(job.succeeded)} of {job.completions} were done)")
    if jobs and over(jobs):
        terminal.say(f"run {run} is not active")
    else:
        terminal.say(
            f"run {run} is stopped: its run-pipeline command continues it. End one that still runs with Ctrl-C"
        )
    return ExitCode.DONE
