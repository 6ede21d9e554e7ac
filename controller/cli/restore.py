"""`controller restore`: rebuilds the vector store from the run folders."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from controller.cli.console import Terminal
from controller.cli.options import add_target, read_target
from controller.cli.targets import open_target
from imgsearch.errors import ExitCode
from imgsearch.settings import RunSettings

HELP = "Rebuild a damaged or lost vector store from the run folders. Nothing is embedded again."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN",
        help="A run that its index then serves. Default: the last published run of each index",
    )
    add_target(parser)


def run(args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
    target = open_target(read_target(args), env)
    target.require_programs()
    restored = target.query("restore", RunSettings(id=args.run or ""))
    for served in restored["restored"]:
        terminal.say(f"index {served['index']} serves run {served['run']} again ({served['images']:,} images)")
    if restored["left_out"]:
        terminal.say(f"{restored['left_out']:,} more indexes are served again: controller indexes{target.flags}")
    return ExitCode.DONE
