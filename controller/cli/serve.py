"""`controller serve`: serves the search page and the API on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from controller.cli.console import Terminal
from controller.cli.options import add_target, read_target
from controller.cli.targets import open_target

HELP = "Serve the search page and the API on this machine."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="Address to listen on. Default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="Port to listen on. Default: 8000")
    add_target(parser)


def run(args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
    return open_target(read_target(args), env).serve(args.host, args.port)
