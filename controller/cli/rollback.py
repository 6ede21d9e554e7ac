"""`controller rollback`: lets an index serve the run that it served before."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from controller.cli.console import Terminal
from controller.cli.options import add_target, read_target
from controller.cli.targets import open_target
from imgsearch.errors import ExitCode
from imgsearch.settings import RunSettings

HELP = "Publish the previous run of an index again."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", metavar="INDEX", help="Name of the index")
    add_target(parser)


def run(args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
    target = open_target(read_target(args), env)
    served = target.query("rollback", RunSettings(index=args.index))
    terminal.say(f"index {served['index']} serves run {served['run']} again ({served['images']:,} images)")
    return ExitCode.DONE
