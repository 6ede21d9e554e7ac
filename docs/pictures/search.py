"""Makes docs/pictures/search.svg, a terminal, by running what it shows: `python -m docs.pictures.search`.

Port 8000 must be free."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from docs.pictures.demo import WIDTH, Workspace, temporary_workspace

PICTURE = Path(__file__).with_suffix(".svg")
# Without a web font: the reader's own monospace font is used.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def main() -> None:
    screen = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    with temporary_workspace() as workspace:
        _show(screen, workspace, "run-pipeline", "photos", "--local", "--model", "local-dir:model")
        _show(screen, workspace, "status", "--local")
        with workspace.serving():
            _show(screen, workspace, "search", "a cat", "-k", "3")
            _show(screen, workspace, "search", "stars in the night sky", "-k", "3")
    screen.save_svg(str(PICTURE), title="imgsearch", code_format=FORMAT, unique_id="imgsearch")


def _show(screen: Console, workspace: Workspace, *arguments: str) -> None:
    output = workspace.run(*arguments)
    screen.print(Text.assemble(("$ ", "green"), (f"controller {shlex.join(arguments)}", "bold")), soft_wrap=True)
    for line in output.replace(str(workspace.folder), "~").splitlines():
        screen.print(Text.from_ansi(line.rstrip()), soft_wrap=True)
    screen.print()


if __name__ == "__main__":
    main()
