"""The real programs, forked from a process that has imported their packages: torch alone takes seconds to import.

Each is a process of its own, which can be killed. What a package reads from the environment when it is imported, such
as HF_ENDPOINT, does not reach it."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["imgsearch.encoder.libraries", "chromadb", "obstore", "pyarrow.parquet"])


def start(program: str, verb: str, *, env: Mapping[str, str], output: Path, errors: Path) -> ForkServerProcess:
    """`python -m PROGRAM VERB`. It appends to the two files, which may be the same."""
    process = FORKS.Process(target=_main, args=(program, verb, dict(env), output, errors), daemon=True)
    process.start()
    return process


def finish(function: Callable[..., None], *arguments: object) -> None:
    """Runs a function of a module to its end. It is its process that imports torch."""
    process = FORKS.Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0, f"{function.__name__} has failed: its traceback is in the output"


def _main(program: str, verb: str, env: dict[str, str], output: Path, errors: Path) -> None:
    for file, descriptor in ((output, 1), (errors, 2)):
        with file.open("ab") as log:
            os.dup2(log.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [program, verb]
    runpy.run_module(program, run_name="__main__", alter_sys=True)
