"""The verb `serve`: one process, or several behind one socket."""

from __future__ import annotations

from imgsearch.errors import ExitCode
from imgsearch.settings import Settings
from searcher.server.socket import listen
from searcher.server.supervisor import Supervisor, worker_count


def serve(settings: Settings) -> ExitCode:
    """Serves until SIGTERM or Ctrl-C, then finishes the running requests. Raises UsageError."""
    count = worker_count(settings)
    with listen(settings.search.host, settings.search.port) as listener:
        if count > 1:
            return Supervisor(listener, count).run()
        # Imported here, so that a process that only supervises others needs little memory.
        from searcher.server.worker import run_worker

        run_worker(settings, listener)
        return ExitCode.DONE
