"""A function in a process of its own: benchmarks share no threads, settings or memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

Function = Callable[..., Any]


class Worker:
    """Calls `prepare(*args)` once, in a new process. It returns the function that each call of the Worker then calls.
    Use it in a `with`."""

    def __init__(self, prepare: Callable[..., Function], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(child_end, prepare, args))
        self._process.start()
        child_end.close()  # so that `recv` ends when the process ends
        self._pipe.recv()  # waits: only one worker prepares at a time

    def __call__(self, *args: Any) -> Any:
        self._pipe.send(args)
        return self._pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, prepare: Callable[..., Function], args: tuple[Any, ...]) -> None:
    function = prepare(*args)
    pipe.send(None)
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(function(*arguments))
