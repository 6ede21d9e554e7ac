"""`controller runs`: lists the runs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from controller.cli.console import Terminal, add_output
from controller.cli.options import add_target, read_target
from controller.cli.tables import plural
from controller.cli.targets import open_target
from controller.jobs.state import JobState, Stage
from imgsearch.errors import ExitCode

HELP = "List the runs."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    add_target(parser)


def run(args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
    target = open_target(read_target(args), env)
    published = target.query("runs")
    done = {row["run"]: row for row in published["runs"]}
    if published["left_out"]:
        terminal.warn(
            f"{plural(published['left_out'], 'earlier run')} not shown: the list is too long for one response"
        )
    rows = []
    for run in dict.fromkeys([*reversed(done), *target.backend.runs()]):
        report = done.get(run, {})
        rows.append(
            {
                "run": run,
                "index": report.get("index"),
                "state": "done" if report else _state(target.backend.jobs(run)),
                "images": report.get("images"),
                "bad": report.get("bad"),
                "source": report.get("source"),
            }
        )
    empty = f"No runs yet: start one with `controller run-pipeline SOURCE{target.flags}`"
    terminal.rows(rows, output=args.output, empty=empty)
    return ExitCode.DONE


def _state(jobs: Mapping[Stage, JobState]) -> str:
    last = next(reversed(list(jobs.values())), None)
    return f"{last.stage} {last.phase}" if last else "no Jobs"
