"""Faults of an API server: each answers a request in place of the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from tests.controller.apihandler import Fault, Handler, StatusError


def refusal(code: int, message: str = "", *, reason: str = "", headers: Mapping[str, str] | None = None) -> Fault:
    """Answers with a Status."""

    def answer(handler: Handler, _: Callable[[], None]) -> None:
        body = json.dumps(StatusError(code, reason, message).status).encode()
        handler.send(code, body, "application/json", headers)

    return answer


def text_reply(code: int, body: str) -> Fault:
    """Answers with something that is no JSON of Kubernetes."""
    return lambda handler, _: handler.send(code, body.encode(), "text/html")


def cut_reply(handler: Handler, _: Callable[[], None]) -> None:
    """Breaks the connection in the middle of an answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(b'{"metadata": {"name": "half of it')
    handler.hang_up()


def lost_reply(handler: Handler, serve: Callable[[], None]) -> None:
    """Does what was asked for; the answer never arrives."""
    stream, handler.wfile = handler.wfile, open("/dev/null", "wb")  # noqa: SIM115 (it takes what the handler writes)
    try:
        serve()
    finally:
        handler.wfile.close()
        handler.wfile = stream
    handler.hang_up()


def no_reply(handler: Handler, _: Callable[[], None]) -> None:
    """Takes the request and says nothing, until the server is closed."""
    handler.api.closing.wait()
    handler.hang_up()


def ended_watch(handler: Handler, _: Callable[[], None]) -> None:
    """Of a watch: begins it and ends it at once, in good order."""
    handler.begin_stream()
    handler.chunk(b"")
