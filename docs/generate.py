"""Generates docs/settings.md from imgsearch.settings, and docs/cli.md from the parser of `controller`: `make docs`.

tests/test_docs.py fails for a generated page that is out of date."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from controller.main import parser
from imgsearch.settings.documentation import documentation

ROOT = Path(__file__).resolve().parent.parent

SETTINGS = """# Settings

`make docs` generates this page from `imgsearch/settings/`. Change it there.

The programs (`python -m embedder`, `python -m searcher`) read these settings from environment variables at their start.
An unknown variable that begins with `IMGSEARCH_` is an error. An empty value means None if the setting allows None.

In most cases you do not set these variables yourself:

- `controller` sets them for the programs that it starts. To change one for a run, use
  `controller run-pipeline --set group.field=value`, for example `--set embed.batch_images=64`.
- With `--local` and in a cluster, `controller` ignores these variables in its own environment. With `--backend sky` it
  reads them.
- In a cluster, set them with [the values of the chart](../charts/imgsearch/README.md).

"""

CLI = """# Command line

`make docs` generates this page from the parser of `controller`. Change it there.

Results go to stdout; progress and errors go to stderr. `controller --version` prints the version.
`controller search` reads the API key from the environment variable `IMGSEARCH_API_KEY`.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | a stage of the run failed |
| 2 | the command is invalid |
| 3 | a temporary error, such as a server that does not answer, or a wrong state |
| 130 | you pressed Ctrl-C |

[The runbook](runbook.md) has a solution for each exit code.
"""

TARGET = """## Target options

These options select a release in a cluster, this machine, or machines that SkyPilot rents. All commands except
`controller search` have them.
"""
TARGET_ROW = "| [target options](#target-options) | Select a cluster, this machine or rented machines |"


def settings_page() -> str:
    return SETTINGS + documentation()


def cli_page() -> str:
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    sections = [_section(name, command) for name, command in commands.choices.items()]
    shared = _target_options(commands.choices["run-pipeline"])  # those of controller.cli.options.TargetOptions
    return "\n".join([CLI, *sections, TARGET, *_table(_rows(shared))])


def pages() -> dict[Path, str]:
    """Every generated file with its text."""
    return {ROOT / "docs" / "settings.md": settings_page(), ROOT / "docs" / "cli.md": cli_page()}


def _target_options(command: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for group in command._action_groups if group.title == "target" for action in group._group_actions]


def _section(name: str, command: argparse.ArgumentParser) -> str:
    targets = _target_options(command)
    own = [action for action in command._actions if action not in targets]
    arguments = [action for action in own if not isinstance(action, argparse._HelpAction)]
    positionals = [_shown(action) for action in arguments if not action.option_strings]
    rows = [*_rows(arguments), *([TARGET_ROW] if targets else [])]
    return "\n".join([f"## {' '.join(['controller', name, *positionals])}\n\n{command.description}\n", *_table(rows)])


def _rows(actions: Iterable[argparse.Action]) -> list[str]:
    return [f"| `{_argument(action)}` | {_cell(action.help or '')} |" for action in actions]


def _table(rows: Iterable[str]) -> list[str]:
    return ["| argument | meaning |\n| --- | --- |", *rows, ""]


def _shown(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest.upper())
    return f"[{name}]" if action.nargs == "?" else name


def _argument(action: argparse.Action) -> str:
    name = action.metavar or "|".join(map(str, action.choices or [])) or action.dest.upper()
    value = "" if action.nargs == 0 else str(name)
    return _cell(" ".join(filter(None, [", ".join(action.option_strings), value])))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
