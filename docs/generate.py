"""Writes what the docs say about the code: `python -m docs.generate`. tests/test_docs.py fails where it was forgotten.

docs/settings.md from imgsearch.settings, docs/cli.md and the README's help from the parser of `controller`."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path

from controller.main import parser
from imgsearch.settings import documentation

ROOT = Path(__file__).resolve().parent.parent
HELP = re.compile(r"(<!-- controller --help -->\n)(.*?)(<!-- end -->)", re.DOTALL)

SETTINGS = """# Settings

Made by `python -m docs.generate` from `imgsearch/settings.py`; change it there.

The programs (`python -m embedder`, `python -m searcher`) read their settings once, from environment variables. A
variable that no setting has is an error, so a misspelt one is noticed. An empty value means None where None is a
possible value. `controller` sets these variables itself, from its command line, and does not pass on those of its own
environment. By hand you need them only to run a program without `controller`.

"""

CLI = """# The command `controller`

Made by `python -m docs.generate` from `controller/main.py`; change it there.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done · 1 the run ended and a stage of it failed ·
2 the command cannot be carried out as given · 3 something did not answer or is not as it must be · 130 Ctrl-C.
[The runbook](runbook.md) says what to do about each.
"""


def settings_page() -> str:
    return SETTINGS + documentation()


def cli_page() -> str:
    return "\n".join([CLI, *_verbs(parser())]).rstrip("\n") + "\n"


def readme(text: str) -> str:
    """The README with the help as it is now."""
    return HELP.sub(lambda found: f"{found[1]}```\n{_help()}```\n{found[3]}", text)


def pages() -> dict[Path, str]:
    """Every generated file with the text that it should have."""
    front = ROOT / "README.md"
    return {
        front: readme(front.read_text()),
        ROOT / "docs" / "settings.md": settings_page(),
        ROOT / "docs" / "cli.md": cli_page(),
    }


def _help() -> str:
    before = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ.update(COLUMNS="100", NO_COLOR="1")  # the same text whatever the terminal
    try:
        return parser().format_help()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _verbs(top: argparse.ArgumentParser) -> Iterator[str]:
    (verbs,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    for name, verb in verbs.choices.items():
        actions = [action for action in verb._actions if not isinstance(action, argparse._HelpAction)]
        places = [_shown(action) for action in actions if not action.option_strings]
        yield f"## {' '.join(['controller', name, *places])}\n\n{verb.description}\n"
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
