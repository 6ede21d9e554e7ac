"""`make demo`: indexes photos, runs three searches and serves the page until Ctrl-C.

It runs the commands that a user would run, and prints each of them. Its data are in `.demo`."""

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
QUERIES = {
    True: ("a cat", "a cup of coffee", "stars in the night sky"),
    False: ("people", "a building", "nature"),
}


def photos() -> str:
    """The folder with the photos of scikit-image."""
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        sys.exit("the demo photos come from scikit-image: make install")
    return str(Path(found.origin).parent / "data")


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
    serving = subprocess.Popen(
        _command("serve", "--local", "--home", str(HOME), "--port", str(args.port)), start_new_session=True
    )
    try:
        if not _ready(serving, url):
            return serving.wait()
        for query in QUERIES[args.source is None]:
            subprocess.call(_command("search", query, "-k", "3", "--url", url))
        print(f"\nSearch page: {url}   (Ctrl-C ends it)", flush=True)
        return serving.wait()
    except KeyboardInterrupt:
        serving.terminate()
        serving.wait()
        return 0


def _command(*words: str) -> list[str]:
    print(f"\n$ controller {shlex.join(words)}", flush=True)
    return [str(Path(sys.executable).with_name("controller")), *words]


def _ready(serving: subprocess.Popen[bytes], url: str) -> bool:
    while serving.poll() is None:
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
