"""`controller indexes`: lists the published indexes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from controller.cli.console import Terminal, add_output
from controller.cli.options import add_target, read_target
from controller.cli.tables import index_row
from controller.cli.targets import open_target
from controller.cli.targets.base import lost_sentence
from imgsearch.errors import ExitCode

HELP = "List the published indexes."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    add_target(parser)


def run(args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
    target = open_target(read_target(args), env)
    empty = f"No indexes yet: create one with `controller run-pipeline SOURCE{target.flags}`"
    found = target.query("indexes")
    left_out = found.get("left_out", {"indexes": 0, "lost": 0})  # a searcher of an earlier version leaves out none
    if lost := found.get("lost", []):
        empty = "The vector store has no index"
        terminal.warn(lost_sentence(lost, target.flags, others=left_out["lost"]))
    if left_out["indexes"]:
        terminal.warn(f"further indexes ({left_out['indexes']:,}) are not shown: the list is too long for one response")
    rows = found["indexes"] if args.output == "json" else map(index_row, found["indexes"])
    terminal.rows([*rows], output=args.output, empty=empty)
    return ExitCode.DONE
