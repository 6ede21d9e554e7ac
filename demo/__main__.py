"""`make demo`: indexes photos, runs three searches and serves the page until Ctrl-C.

It prints and runs the same commands as a user. Its data are in `.demo`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

HOME = Path(".demo")
MODEL = f"local-dir:{Path(__file__).parent / 'model'}"
DEMO_QUERIES = ("a cat", "a cup of coffee", "stars in the night sky")
OWN_QUERIES = ("people", "a building", "nature")
"""The queries for the user's own photos."""


def photos() -> str:
    """The folder with the photos of scikit-image."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        sys.exit("scikit-image, which contains the demo photos, is not installed: run make install")
    return str(Path(spec.origin).parent / "data")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--source", help="your own photos instead of the demo's")
    parser.add_argument("--model", default=MODEL, help="an OpenCLIP ARCH/TAG instead of the demo's model")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    index = _command("run-pipeline", args.source or photos(), "--local", "--home", str(HOME), "--model", args.model)
    if code := subprocess.call(index):
        return code
    url = f"http://127.0.0.1:{args.port}"
    server = subprocess.Popen(
        _command("serve", "--local", "--home", str(HOME), "--port", str(args.port)), start_new_session=True
    )
    try:
        if not _wait_until_ready(server, url):
            return server.wait()
        for query in OWN_QUERIES if args.source else DEMO_QUERIES:
            subprocess.call(_command("search", query, "-k", "3", "--url", url))
        print(f"\nSearch page: {url}   (Ctrl-C stops the server)", flush=True)
        return server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait()
        return 0


def _command(*arguments: str) -> list[str]:
    """Prints and returns a command of `controller`."""
    print(f"\n$ controller {shlex.join(arguments)}", flush=True)
    return [str(Path(sys.executable).with_name("controller")), *arguments]


def _wait_until_ready(server: subprocess.Popen[bytes], url: str) -> bool:
    """Returns whether the server is ready; False: it has exited."""
    while server.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    return False


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    sys.exit(main())
