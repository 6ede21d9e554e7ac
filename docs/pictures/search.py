"""Makes docs/pictures/search.svg, the README's terminal, by running what it shows: `python -m docs.pictures.search`."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from demo.__main__ import photos

WIDTH = 100
URL = "http://127.0.0.1:8000"
PICTURE = Path(__file__).with_suffix(".svg")
CONTROLLER = Path(sys.executable).with_name("controller")
# No font from somebody's server: the reader's own monospace will do.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def main() -> None:
    screen = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory(prefix="imgsearch-") as folder:
        place = Path(folder)
        shutil.copytree(photos(), place / "photos")
        shutil.copytree(Path("demo/model").absolute(), place / "model")
        env = {**os.environ, "HOME": folder, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "PYTHONWARNINGS": "ignore"}

        def show(*words: str) -> None:
            ran = subprocess.run(
                [CONTROLLER, *words], cwd=place, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            screen.print(Text.assemble(("$ ", "green"), (f"controller {shlex.join(words)}", "bold")), soft_wrap=True)
            for line in ran.stdout.replace(folder, "~").splitlines():
                screen.print(Text.from_ansi(line.rstrip()), soft_wrap=True)
            screen.print()

        show("run-pipeline", "photos", "--local", "--model", "local-dir:model")
        show("status", "--local")
        serve: list[str | Path] = [CONTROLLER, "serve", "--local"]
        with subprocess.Popen(serve, cwd=place, env=env, start_new_session=True) as serving:
            _wait()
            show("search", "a cat", "-k", "3")
            show("search", "stars in the night sky", "-k", "3")
            os.killpg(serving.pid, signal.SIGTERM)
    screen.save_svg(str(PICTURE), title="imgsearch", code_format=FORMAT, unique_id="imgsearch")


def _wait() -> None:
    while True:
        try:
            if httpx.get(f"{URL}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)


if __name__ == "__main__":
    main()
