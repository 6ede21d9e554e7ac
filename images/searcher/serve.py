"""Serving: the real store, storage, model and sources behind the application, until a signal says to stop."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import threading
from contextlib import closing

import uvicorn
from fastapi import FastAPI

from imgsearch.encoder import Encoder
from imgsearch.errors import ExitCode, UsageError
from imgsearch.settings import SearchSettings, Settings
from imgsearch.sources import open_source
from imgsearch.storage import Storage
from imgsearch.stores import open_store
from searcher.app import create_app
from searcher.leaving import LeavingServer

logger = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections that the system holds while the event loop is busy."""


def serve(settings: Settings) -> ExitCode:
    """Serves until SIGTERM or Ctrl-C, then lets running requests end. Raises UsageError."""
    stopping = threading.Event()
    with listen(settings.search.host, settings.search.port) as listener:
        storage = Storage(settings.storage.uri)
        with closing(open_store(settings.store.url)) as store:
            app = create_app(
                settings,
                store=store,
                storage=storage,
                load_encoder=_load_encoder,
                open_source=open_source,
                stopping=stopping,
            )
            run(app, listener, settings.search, stopping)
    return ExitCode.DONE


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, on `::` for IPv4 too; raises UsageError where the port is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} is in use; choose another with --port") from error
        raise UsageError(f"cannot listen on {host} port {port}: {error.strerror}") from error


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


def _load_encoder(model: str) -> Encoder:
    # Here, since torch takes seconds to import, and the liveness probe is answered meanwhile.
    from imgsearch.encoder.openclip import load_encoder

    return load_encoder(model)
