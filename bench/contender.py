"""A way to do the work, in a process of its own, so that nobody's threads, settings or memory are another's."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

Work = Callable[..., Any]


class Contender:
    """Prepares once, with `prepare(*args)`, then does what that returned as often as it is called. Use in a `with`."""

    def __init__(self, prepare: Callable[..., Work], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, prepare, args))
        self._process.start()
        theirs.close()  # so that its death is an end of file here
        self._pipe.recv()  # one prepares at a time, as it would alone

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


def _serve(pipe: Connection, prepare: Callable[..., Work], args: tuple[Any, ...]) -> None:
    work = prepare(*args)
    pipe.send(None)
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(work(*arguments))
