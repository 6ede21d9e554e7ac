"""An HTTP server with scripted responses, whatever the requests are. Tests call it with real clients."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Response = tuple[int, Mapping[str, str], object]
"""Status, headers and body. A body that is not bytes is sent as JSON."""


class ScriptedServer:
    """Sends the responses in their order, then repeats the last one. Counts the requests."""

    def __init__(self, *responses: Response) -> None:
        self._responses = responses
        self.requests = 0

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Yields the URL of the running server."""
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, headers, body = script._responses[min(script.requests, len(script._responses) - 1)]
                script.requests += 1
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_HEAD = do_POST = do_PUT = do_GET

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
