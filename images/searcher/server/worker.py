"""One process that answers requests: the real store, storage, model and sources behind the application, until a signal
says to stop. `python -m searcher.server.worker DESCRIPTOR` is one of several, which supervisor.py starts."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from imgsearch import machine, stage
from imgsearch.encoder import Encoder
from imgsearch.errors import ExitCode
from imgsearch.settings import SearchSettings, Settings
from imgsearch.sources import open_source
from imgsearch.storage import Storage
from imgsearch.stores import open_store
from searcher.app import create_app
from searcher.server.serve import processes
from searcher.server.shutdown import LeavingServer
from searcher.server.socket import BACKLOG
from searcher.server.supervisor import BEGUN, COUNTS

logger = logging.getLogger(__name__)


def answer(
    settings: Settings, listener: socket.socket, *, counts: Path | None = None, begun: Callable[[], None] | None = None
) -> None:
    """Serves until SIGTERM or Ctrl-C, then lets running requests end. `begun` is called once nothing that was set can
    be wrong; `counts`: the folder of the metrics that processes count together. Main thread only; raises UsageError."""
    stopping = threading.Event()
    storage = Storage(settings.storage.uri)
    with closing(open_store(settings.store.url)) as store:
        app = create_app(
            settings,
            store=store,
            storage=storage,
            load_encoder=partial(_load_encoder, threads=max(1, machine.cpus() // processes(settings))),
            open_source=open_source,
            stopping=stopping,
            counts=counts,
        )
        if begun:
            begun()
        run(app, listener, settings.search, stopping)


def run(app: FastAPI, listener: socket.socket, limits: SearchSettings, stopping: threading.Event) -> None:
    """Answers requests until SIGTERM or SIGINT, sets `stopping`, and after `linger_seconds` drains for up to
    `drain_seconds`. Main thread only."""
    config = uvicorn.Config(
        app,
        backlog=BACKLOG,
        log_config=None,  # the program's own logging stays
        log_level="warning",  # ours says when it begins and ends
        access_log=False,  # /metrics counts requests
        server_header=False,
        timeout_graceful_shutdown=round(limits.drain_seconds),
    )
    host, port, *_ = listener.getsockname()
    logger.info("serving on http://%s:%s", f"[{host}]" if ":" in host else host, port)
    # uvicorn drains at the first signal and then raises it again, for which this is the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        LeavingServer(config, stopping=stopping, linger=limits.linger_seconds).run(sockets=[listener])
    except KeyboardInterrupt:
        logger.info("stopped by a signal")


def _load_encoder(model: str, *, threads: int) -> Encoder:
    # Here, since torch takes seconds to import, and the liveness probe is answered meanwhile.
    from imgsearch.encoder.openclip import load_encoder

    return load_encoder(model, threads=threads)


def _one_of_several(settings: Settings, *, descriptor: int) -> ExitCode:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    with socket.socket(fileno=descriptor) as listener:
        answer(settings, listener, counts=Path(os.environ[COUNTS]), begun=_tell)
    return ExitCode.DONE


def _leave_with_parent() -> None:
    # It writes nothing: this is the end of the file, which comes however it ends.
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _tell() -> None:
    os.write(sys.stdout.fileno(), BEGUN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads what a library might print


if __name__ == "__main__":
    sys.exit(stage.answer(partial(_one_of_several, descriptor=int(sys.argv[1])), os.environ))
