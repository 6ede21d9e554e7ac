"""The command `controller`: dispatches to its subcommands and maps errors to exit codes."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # with `python controller/main.py`, the first entry of the path is this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from typing import NoReturn, Protocol

from controller.cli import (
    cleanup,
    evaluate,
    indexes,
    logs,
    pools,
    report,
    restore,
    rollback,
    runs,
    search,
    serve,
    status,
    stop,
)
from controller.cli import run as run_pipeline
from controller.cli.console import Terminal
from imgsearch import distribution
from imgsearch.errors import ExitCode, ImgsearchError, UsageError, os_reason
from imgsearch.escapes import visible
from imgsearch.logs import TextFormatter

CTRL_C = 128 + signal.SIGINT
"""The exit code, as in a shell."""


class Subcommand(Protocol):
    """A module of controller.cli."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace, terminal: Terminal, env: Mapping[str, str]) -> int:
        """Returns the exit code. Raises ImgsearchError, OSError or KeyboardInterrupt."""
        ...


SUBCOMMANDS: Mapping[str, Subcommand] = {
    "run-pipeline": run_pipeline,
    "status": status,
    "stop": stop,
    "runs": runs,
    "indexes": indexes,
    "rollback": rollback,
    "restore": restore,
    "cleanup": cleanup,
    "report": report,
    "evaluate": evaluate,
    "logs": logs,
    "pools": pools,
    "serve": serve,
    "search": search,
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are safe to print: the arguments may be names of files."""

    def error(self, message: str) -> NoReturn:
        super().error(visible(message))


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="controller", description="Image search on your own machines.")
    top.add_argument(
        "--version", action="version", help="Show the version and exit", version=f"%(prog)s {distribution.version()}"
    )
    subparsers = top.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    for name, subcommand in SUBCOMMANDS.items():
        subcommand.add_arguments(subparsers.add_parser(name, help=subcommand.HELP, description=subcommand.HELP))
    return top


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Runs one command and returns its exit code: 0 done, 1 the run failed, 2 usage, 3 temporary or in a wrong state,
    130 Ctrl-C."""
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    terminal = Terminal()
    try:
        args = parser().parse_args(argv)
        return SUBCOMMANDS[args.subcommand].run(args, terminal, env)
    except ImgsearchError as error:
        terminal.error(error)
        return ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.TEMPORARY
    except OSError as error:
        terminal.error(os_reason(error))
        return ExitCode.TEMPORARY
    except KeyboardInterrupt:
        return CTRL_C


def run() -> None:
    """The console script."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:], os.environ))


if __name__ == "__main__":
    run()
