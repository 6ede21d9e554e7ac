"""`controller logs`: prints the log of a shard."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from controller.cli.console import Terminal
from controller.cli.options import add_target, read_target
from controller.cli.targets import open_target
from controller.jobs.state import Stage
from imgsearch.errors import ExitCode

HELP = "Print the log of a shard."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="Id of the run")
    parser.add_argument("shard", metavar="SHARD", type=int, help="Number of the shard. The first is 0")
    parser.add_argument(
        "--stage", choices=[*map(str, Stage)], default=str(Stage.EMBED), help="Stage of the run. Default: embed"
    )
    add_target(parser)


def run(args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
    target = open_target(read_target(args), env)
    terminal.log(target.backend.log(args.run, Stage(args.stage), args.shard))
    return ExitCode.DONE
