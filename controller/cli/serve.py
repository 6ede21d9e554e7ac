"""`controller serve`: serves the search page and the API on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from controller.cli.console import Terminal
from controller.cli.options import ServeOptions, add_options, add_target, read_options, read_target
from controller.cli.targets import open_target

HELP = "Serve the search page and the API on this machine."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, ServeOptions)
    add_target(parser)


def run(args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
    return open_target(read_target(args), env).serve(read_options(ServeOptions, args))
