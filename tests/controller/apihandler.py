"""Requests to the fake API server, and the HTTP connections on which they come."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from tests.controller.apiserver import ApiServer


PATH = re.compile(
    r"/(?:api/v1|apis/batch/v1|apis/kueue\.x-k8s\.io/v1beta2)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<kind>[^/]+)(?:/(?P<name>[^/]+))?(?P<log>/log)?"
)


@dataclass(frozen=True)
class Request:
    """One request as it came in."""

    method: str
    kind: str
    name: str
    log: bool
    namespace: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any

    @property
    def verb(self) -> str:
        """As an RBAC rule has it, and `log`."""
        if self.method == "GET":
            if self.log:
                return "log"
            return "get" if self.name else "watch" if "watch" in self.query else "list"
        return {"POST": "create", "PATCH": "patch", "DELETE": "delete"}[self.method]


class StatusError(Exception):
    """What the server answers instead, as a metav1 Status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": code,
            "reason": reason,
            "message": message,
        }


Fault = Callable[["Handler", Callable[[], None]], None]
"""Answers a request in a way of its own; the second argument answers it as it should be."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits for an ACK of its head
    api: ApiServer

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        if self.api.closing.is_set():  # this connection has been kept from before
            self.hang_up()
            return
        url = urlsplit(self.path)
        match = PATH.fullmatch(url.path)
        assert match, self.path
        request = Request(
            method=self.command,
            kind=match["kind"],
            name=match["name"] or "",
            log=bool(match["log"]),
            namespace=match["namespace"] or "",
            query=dict(parse_qsl(url.query)),
            headers=dict(self.headers),
            body=body,
        )
        try:
            if fault := self.api.record(request):
                fault(self, lambda: self.api.answer(request, self))
            else:
                self.api.answer(request, self)
        except StatusError as error:
            self.send(error.code, json.dumps(error.status).encode(), "application/json")
        except OSError:  # the client has gone
            self.close_connection = True

    do_POST = do_PATCH = do_DELETE = do_GET

    def send(self, code: int, body: bytes, type: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": type, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        """The empty one is the last."""
        self.wfile.write(chunked(data))

    def hang_up(self) -> None:
        self.close_connection = True
        # shutdown, not close: http.server still holds the socket.
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass


def chunked(line: bytes) -> bytes:
    """As one chunk of a stream."""
    return b"%x\r\n%s\r\n" % (len(line), line)
