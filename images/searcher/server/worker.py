"""One process that serves requests, with the real store, storage, model and sources.

`python -m searcher.server.worker DESCRIPTOR` is one of the processes that supervisor.py starts."""

from __future__ import annotations

import asyncio
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
from typing import cast

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
from searcher.content.fetcher import Fetcher
from searcher.search.metrics import Metrics
from searcher.server.connections import Connections, connection_limit, open_files_limit
from searcher.server.shutdown import DrainingServer
from searcher.server.socket import BACKLOG
from searcher.server.supervisor import METRICS_FOLDER, STARTED, worker_count
from searcher.table.files import TableFiles, cache_folder

log = logging.getLogger(__name__)


def run_worker(
    settings: Settings,
    listener: socket.socket,
    *,
    metrics_folder: Path | None = None,
    on_start: Callable[[], None] | None = None,
) -> None:
    """Serves until SIGTERM or Ctrl-C, then finishes the running requests. Main thread only. Raises UsageError.

    `metrics_folder`: the folder of metrics that the workers share. `on_start` is called once all settings are checked.
    """
    stopping = threading.Event()
    metrics = Metrics(metrics_folder)
    connections = Connections(connection_limit(settings.search.max_connections, open_files_limit()), metrics=metrics)
    storage = Storage(settings.storage.uri)
    with closing(open_store(settings.store.url)) as store:
        app = create_app(
            settings,
            store=store,
            storage=storage,
            tables=TableFiles(storage, cache_folder(os.environ)),
            load_encoder=partial(_load_encoder, threads=max(1, machine.cpus() // worker_count(settings))),
            open_source=open_source,
            fetcher=Fetcher(settings.search, metrics),
            metrics=metrics,
            stopping=stopping,
        )
        if on_start:
            on_start()
        run_server(app, listener, settings.search, stopping, connections)


def run_server(
    app: FastAPI,
    listener: socket.socket,
    limits: SearchSettings,
    stopping: threading.Event,
    connections: Connections,
) -> None:
    """Serves until SIGTERM or SIGINT. Then sets `stopping`, serves for `linger_seconds` more, and finishes the running
    requests within `drain_seconds`. Main thread only."""
    config = uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], connections.protocol),  # uvicorn only calls it
        ws="none",  # there is no WebSocket, and its protocol would escape the limit of connections
        backlog=BACKLOG,
        log_config=None,  # keeps the logging of the program
        log_level="warning",  # this module logs start and stop
        access_log=False,  # /metrics counts requests
        server_header=False,
        proxy_headers=False,  # uvicorn would trust every client on this machine; see http/forwarded_headers.py
        timeout_graceful_shutdown=round(limits.drain_seconds),
    )
    host, port, *_ = listener.getsockname()
    log.info("serving on http://%s:%s", f"[{host}]" if ":" in host else host, port)
    # uvicorn raises the signal again after its shutdown; this handler turns it into KeyboardInterrupt.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        DrainingServer(config, stopping=stopping, linger=limits.linger_seconds).run(sockets=[listener])
    except KeyboardInterrupt:
        log.info("stopped by a signal")


def _load_encoder(model: str, *, threads: int) -> Encoder:
    # Imported here: torch takes seconds to import, and meanwhile the liveness probe must be served.
    from imgsearch.encoder.openclip import load_encoder

    return load_encoder(model, threads=threads)


def _run_supervised(settings: Settings, *, descriptor: int) -> ExitCode:
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    with socket.socket(fileno=descriptor) as listener:
        run_worker(settings, listener, metrics_folder=Path(os.environ[METRICS_FOLDER]), on_start=_report_start)
    return ExitCode.DONE


def _stop_with_parent() -> None:
    # The parent writes nothing: this returns at the end of the file, when the parent exits or is killed.
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _report_start() -> None:
    os.write(sys.stdout.fileno(), STARTED)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads stdout any more


if __name__ == "__main__":
    sys.exit(stage.run_server(partial(_run_supervised, descriptor=int(sys.argv[1])), os.environ))
