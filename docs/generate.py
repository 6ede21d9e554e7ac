"""Generates docs/settings.md from imgsearch.settings, and docs/cli.md from the parser of `controller`: `make docs`.

tests/test_docs.py fails for a generated page that is out of date."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from controller.main import parser
from imgsearch.settings.documentation import documentation

ROOT = Path(__file__).resolve().parent.parent

SETTINGS = """# Settings

`make docs` generates this page from `imgsearch/settings/`. Change it there.

The programs (`python -m embedder`, `python -m searcher`) read their settings once, from environment variables. An
unknown variable that begins with `IMGSEARCH_` is an error, so a misspelt name is noticed. An empty value means None if
the setting allows None. `controller` sets these variables from its command line. With `--local` and in a cluster it
ignores the variables of its own environment; with `--backend sky` it reads them. Else you need them only to run a
program without `controller`.

"""

CLI = """# Command line

`make docs` generates this page from the parser of `controller`. Change it there.

Results go to stdout; progress and errors go to stderr. Exit codes: 0 done · 1 a stage of the run failed · 2 the command
cannot be carried out as given · 3 something did not answer or is in a wrong state · 130 Ctrl-C.
[The runbook](runbook.md) has a solution for each.
"""


def settings_page() -> str:
    return SETTINGS + documentation()


def cli_page() -> str:
    return "\n".join([CLI, *_verbs(parser())]).rstrip("\n") + "\n"


def pages() -> dict[Path, str]:
    """Every generated file with its text."""
    return {ROOT / "docs" / "settings.md": settings_page(), ROOT / "docs" / "cli.md": cli_page()}


def _verbs(top: argparse.ArgumentParser) -> Iterator[str]:
    (verbs,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    for name, verb in verbs.choices.items():
        actions = [action for action in verb._actions if not isinstance(action, argparse._HelpAction)]
        positionals = [_shown(action) for action in actions if not action.option_strings]
        yield f"## {' '.join(['controller', name, *positionals])}\n\n{verb.description}\n"
        if actions:
            yield "| argument | meaning |\n| --- | --- |"
            yield from (f"| `{_argument(action)}` | {_cell(action.help or '')} |" for action in actions)
            yield ""


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
