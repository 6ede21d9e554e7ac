"""A searcher over fakes, behind its real HTTP server on a free port."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from searcher.server.socket import listen
from tests.searcher.library import Library


@contextmanager
def searcher(folder: Path, **limits: str) -> Iterator[str]:
    """Serves a small index; the address of the server."""
    library = Library(folder)
    library.publish()
    server = uvicorn.Server(uvicorn.Config(library.app(**limits), log_config=None, proxy_headers=False))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
