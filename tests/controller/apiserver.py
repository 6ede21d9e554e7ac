"""A small API server of Kubernetes over real HTTP: what the controller asks of one, and on command each way in which a
real one lets its clients down."""

from __future__ import annotations

import copy
import json
import re
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Object = dict[str, Any]

PATH = re.compile(
    r"/api(?:s/batch)?/v1(?:/namespaces/(?P<namespace>[^/]+))?/(?P<kind>[^/]+)(?:/(?P<name>[^/]+))?(?P<log>/log)?"
)
NAMESPACE = "search"
CREATED = "2026-01-01T00:00:00Z"


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


class Refused(Exception):
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


Trouble = Callable[["Handler", Callable[[], None]], None]
"""Answers a request in a way of its own; the second argument answers it as it should be."""


class ApiServer:
    """Objects, their history, and who watches it. Tests change them with `put` and `remove`, as other clients do."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.changed = threading.Condition()
        """Notified on every change; it guards all that is below."""
        self.requests: list[Request] = []
        self.logs: dict[str, str] = {}
        """By pod."""
        self.lingering = False
        """What is deleted stays, with its deletionTimestamp, until `remove`."""
        self.gone_as_status = False
        """A watch from a version that is forgotten gets 410 as its HTTP status, not as an event."""
        self._revision = 1000
        self._objects: dict[str, dict[str, Object]] = {}
        self._history: list[tuple[int, str, str, Object]] = []
        self._forgotten = 0
        self._pages: dict[str, tuple[list[Object], int]] = {}
        self._troubles: list[tuple[str, str, Trouble]] = []
        self._breaks: list[tuple[int, bytes]] = []
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"api": self}))
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        """Whoever connects after this is refused. A second time does nothing."""
        if self.closing.is_set():
            return
        self.closing.set()
        with self.changed:
            self.changed.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def put(self, kind: str, object: Object) -> Object:
        """Creates or replaces an object, whatever is there."""
        with self.changed:
            return self._put(kind, object)

    def remove(self, kind: str, name: str) -> None:
        with self.changed:
            self._remove(kind, name)

    def get(self, kind: str, name: str) -> Object:
        with self.changed:
            return copy.deepcopy(self._objects[kind][name])

    def all(self, kind: str) -> list[Object]:
        with self.changed:
            return copy.deepcopy(list(self._objects.get(kind, {}).values()))

    def count(self, verb: str, kind: str = "") -> int:
        """How many requests there were of this verb, of one kind or of all."""
        return sum(each.verb == verb and kind in ("", each.kind) for each in [*self.requests])

    def added(self, kind: str) -> list[str]:
        """The names of all that was ever made, in order."""
        with self.changed:
            return [each[3]["metadata"]["name"] for each in self._history if each[1:3] == (kind, "ADDED")]

    def until(self, met: Callable[[], bool]) -> None:
        """Waits for what clients or tests do here."""
        with self.changed:
            assert self.changed.wait_for(met, 100), "what the test waits for did not happen"

    def trouble(self, verb: str, kind: str, trouble: Trouble, times: int = 1) -> None:
        """The next `times` such requests are answered so."""
        with self.changed:
            self._troubles += [(verb, kind, trouble)] * times

    def bookmark(self) -> None:
        """Tells everyone who watches where the history is now."""
        with self.changed:
            self._revision += 1
            for kind in self._objects:
                self._history.append((self._revision, kind, "BOOKMARK", {"metadata": {}}))
            self.changed.notify_all()

    def break_watches(self, last: bytes = b"", *, clean: bool = False) -> None:
        """Ends every watch that there is, after these last bytes; `clean`: as if all had been said."""
        with self.changed:
            self._breaks.append((self._revision, last + (b"0\r\n\r\n" if clean else b"")))
            self.changed.notify_all()

    def forget(self) -> None:
        """Compacts the history: no watch and no page of a list goes on from before."""
        with self.changed:
            self._revision += 1
            self._forgotten = self._revision
            self._pages.clear()

    def answer(self, request: Request, handler: Handler) -> None:
        """What a server in good health answers; raises Refused."""
        everywhere = {"nodes": {""}, "pods": {"", NAMESPACE}}
        if request.namespace not in everywhere.get(request.kind, {NAMESPACE}):
            raise Refused(403, "Forbidden", f"{request.kind} is forbidden in the namespace {request.namespace!r}")
        match request.verb:
            case "watch":
                self._watch(request, handler)
            case "log":
                handler.send(200, self._log(request), "text/plain")
            case _:
                with self.changed:
                    answers: dict[str, Callable[[Request], Object]] = {
                        "list": self._list,
                        "get": self._get,
                        "create": self._create,
                        "patch": self._patch,
                        "delete": self._delete,
                    }
                    found = answers[request.verb](request)
                handler.send(200, json.dumps(found).encode(), "application/json")

    def begins(self, request: Request) -> Trouble | None:
        """Notes the request; returns the trouble that it is in for."""
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()
            for each in self._troubles:
                if each[:2] in ((request.verb, request.kind), (request.verb, "")):
                    self._troubles.remove(each)
                    return each[2]
        return None

    def _put(self, kind: str, object: Object) -> Object:
        there = self._objects.setdefault(kind, {})
        made = copy.deepcopy(object)
        about = made["metadata"]
        known = there.get(about["name"])
        self._revision += 1
        about["resourceVersion"] = str(self._revision)
        about["uid"] = known["metadata"]["uid"] if known else about.get("uid") or str(uuid.uuid4())
        about.setdefault("creationTimestamp", CREATED)
        there[about["name"]] = made
        self._history.append((self._revision, kind, "MODIFIED" if known else "ADDED", made))
        self.changed.notify_all()
        return copy.deepcopy(made)

    def _remove(self, kind: str, name: str) -> None:
        last = copy.deepcopy(self._objects[kind].pop(name))
        self._revision += 1
        last["metadata"]["resourceVersion"] = str(self._revision)
        self._history.append((self._revision, kind, "DELETED", last))
        self.changed.notify_all()

    def _list(self, request: Request) -> Object:
        if token := request.query.get("continue"):
            if token not in self._pages:
                raise Refused(410, "Expired", "The provided continue parameter is too old")
            rest, revision = self._pages[token]
        else:
            rest, revision = [*self._chosen(request)], self._revision
        limit = int(request.query.get("limit", 0)) or len(rest)
        about = {"resourceVersion": str(revision)}
        if len(rest) > limit:
            about["continue"] = str(uuid.uuid4())
            self._pages[about["continue"]] = (rest[limit:], revision)
        return {"kind": "List", "metadata": about, "items": rest[:limit]}

    def _chosen(self, request: Request) -> list[Object]:
        there = self._objects.get(request.kind, {})
        return [there[name] for name in sorted(there) if _selected(request, there[name])]

    def _get(self, request: Request) -> Object:
        try:
            return self._objects[request.kind][request.name]
        except KeyError:
            raise Refused(404, "NotFound", f'{request.kind} "{request.name}" not found') from None

    def _create(self, request: Request) -> Object:
        name = request.body["metadata"]["name"]
        if name in self._objects.get(request.kind, {}):
            raise Refused(409, "AlreadyExists", f'{request.kind} "{name}" already exists')
        if "dryRun" in request.query:
            return dict(request.body)
        return self._put(request.kind, request.body)

    def _patch(self, request: Request) -> Object:
        if request.headers["Content-Type"] != "application/merge-patch+json":
            raise Refused(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        return self._put(request.kind, _merged(self._get(request), request.body))

    def _delete(self, request: Request) -> Object:
        there = copy.deepcopy(self._get(request))
        if self.lingering:
            there["metadata"].setdefault("deletionTimestamp", CREATED)
            return self._put(request.kind, there)
        for name, pod in list(self._objects.get("pods", {}).items()):
            if pod["metadata"]["labels"].get("batch.kubernetes.io/controller-uid") == there["metadata"]["uid"]:
                self._remove("pods", name)
        self._remove(request.kind, request.name)
        return there

    def _log(self, request: Request) -> bytes:
        with self.changed:
            self._get(request)
            if request.name not in self.logs:
                raise Refused(400, "BadRequest", f'container "embed" in pod "{request.name}" is waiting to start')
            text = self.logs[request.name]
        if tail := request.query.get("tailLines"):
            text = "".join(text.splitlines(keepends=True)[-int(tail) :])
        return text.encode()

    def _watch(self, request: Request, handler: Handler) -> None:
        version = int(request.query["resourceVersion"])
        gone = Refused(410, "Expired", f"too old resource version: {version} ({self._forgotten})")
        with self.changed:
            expired = version < self._forgotten
            breaks = len(self._breaks)
        if expired and self.gone_as_status:
            raise gone
        handler.begin_stream()
        if expired:
            handler.chunk(json.dumps({"type": "ERROR", "object": gone.status}).encode() + b"\n")
        while not expired:
            with self.changed:
                self.changed.wait_for(partial(self._moved, version, breaks))
                if self.closing.is_set():
                    handler.hang_up()
                    return
                until, broken = self._breaks[breaks] if len(self._breaks) > breaks else (self._revision, None)
                new = [each for each in self._history if version < each[0] <= until and each[1] == request.kind]
                version = until
            for revision, _, type, object in new:
                if type == "BOOKMARK":
                    object = {"metadata": {"resourceVersion": str(revision)}}
                elif not _selected(request, object):
                    continue
                handler.chunk(json.dumps({"type": type, "object": object}).encode() + b"\n")
            if broken is not None:
                handler.wfile.write(broken)
                handler.hang_up()
                return
        handler.chunk(b"")

    def _moved(self, version: int, breaks: int) -> bool:
        return self._revision > version or len(self._breaks) > breaks or self.closing.is_set()


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
        parts = urlsplit(self.path)
        found = PATH.fullmatch(parts.path)
        assert found, self.path
        request = Request(
            method=self.command,
            kind=found["kind"],
            name=found["name"] or "",
            log=bool(found["log"]),
            namespace=found["namespace"] or "",
            query=dict(parse_qsl(parts.query)),
            headers=dict(self.headers),
            body=body,
        )
        try:
            if trouble := self.api.begins(request):
                trouble(self, lambda: self.api.answer(request, self))
            else:
                self.api.answer(request, self)
        except Refused as refused:
            self.send(refused.code, json.dumps(refused.status).encode(), "application/json")
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


def refusing(code: int, message: str = "", *, reason: str = "", headers: Mapping[str, str] | None = None) -> Trouble:
    """Answers with a Status."""

    def answer(handler: Handler, _: Callable[[], None]) -> None:
        body = json.dumps(Refused(code, reason, message).status).encode()
        handler.send(code, body, "application/json", headers)

    return answer


def saying(code: int, body: str) -> Trouble:
    """Answers with something that is no JSON of Kubernetes."""
    return lambda handler, _: handler.send(code, body.encode(), "text/html")


def cutting(handler: Handler, _: Callable[[], None]) -> None:
    """Breaks the connection in the middle of an answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(b'{"metadata": {"name": "half of it')
    handler.hang_up()


def losing(handler: Handler, serve: Callable[[], None]) -> None:
    """Does what was asked for; the answer never arrives."""
    out, handler.wfile = handler.wfile, open("/dev/null", "wb")  # noqa: SIM115 (it takes what the handler writes)
    try:
        serve()
    finally:
        handler.wfile.close()
        handler.wfile = out
    handler.hang_up()


def hanging(handler: Handler, _: Callable[[], None]) -> None:
    """Takes the request and says nothing, until the server is closed."""
    handler.api.closing.wait()
    handler.hang_up()


def ending(handler: Handler, _: Callable[[], None]) -> None:
    """Of a watch: begins it and ends it at once, in good order."""
    handler.begin_stream()
    handler.chunk(b"")


def _merged(there: Any, changes: Any) -> Any:
    """A JSON merge patch (https://www.rfc-editor.org/rfc/rfc7386)."""
    if not isinstance(there, dict) or not isinstance(changes, dict):
        return copy.deepcopy(changes)
    return {**there, **{name: _merged(there.get(name), value) for name, value in changes.items()}}


def _selected(request: Request, object: Object) -> bool:
    labels = object["metadata"].get("labels", {})
    for term in filter(None, request.query.get("labelSelector", "").split(",")):
        name, equals, value = term.partition("=")
        there = name.removeprefix("!") in labels
        if there == name.startswith("!") or (equals and labels[name] != value):
            return False
    for term in filter(None, request.query.get("fieldSelector", "").split(",")):
        path, _, value = term.partition("=")
        if (_at(object, path.removesuffix("!")) == value) == path.endswith("!"):
            return False
    return True


def _at(object: Object, path: str) -> Any:
    for step in path.split("."):
        object = object.get(step, {})
    return object


def chunked(line: bytes) -> bytes:
    """As one chunk of a stream."""
    return b"%x\r\n%s\r\n" % (len(line), line)
