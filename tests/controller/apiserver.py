"""A small API server of Kubernetes over real HTTP: objects, their history, and the requests of the controller."""

from __future__ import annotations

import copy
import json
import ssl
import threading
import uuid
from collections.abc import Callable
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any

from tests.controller.apihandler import Fault, Handler, Request, StatusError

Object = dict[str, Any]
NAMESPACE = "search"
CREATED = "2026-01-01T00:00:00Z"


class ApiServer:
    """Objects, their history, and who watches it. Tests change them with `put` and `remove`, as other clients do."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.changed = threading.Condition()
        """Notified on every change; it guards all that is below."""
        self.requests: list[Request] = []
        self.logs: dict[str, str] = {}
        """By pod."""
        self.finalizing = False
        """What is deleted stays, with its deletionTimestamp, until `remove`."""
        self.expired_as_status = False
        """A watch from a version that is forgotten gets 410 as its HTTP status, not as an event."""
        self._revision = 1000
        self._objects: dict[str, dict[str, Object]] = {}
        self._history: list[tuple[int, str, str, Object]] = []
        self._compacted = 0
        self._pages: dict[str, tuple[list[Object], int]] = {}
        self._faults: list[tuple[str, str, Fault]] = []
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

    def objects(self, kind: str) -> list[Object]:
        with self.changed:
            return copy.deepcopy(list(self._objects.get(kind, {}).values()))

    def count(self, verb: str, kind: str = "") -> int:
        """How many requests there were of this verb, of one kind or of all."""
        return sum(request.verb == verb and kind in ("", request.kind) for request in [*self.requests])

    def added_names(self, kind: str) -> list[str]:
        """The names of all that was ever made, in order."""
        with self.changed:
            return [change[3]["metadata"]["name"] for change in self._history if change[1:3] == (kind, "ADDED")]

    def removed_names(self, kind: str) -> list[str]:
        """The names of all that was deleted, in order."""
        with self.changed:
            return [change[3]["metadata"]["name"] for change in self._history if change[1:3] == (kind, "DELETED")]

    def wait_until(self, predicate: Callable[[], bool]) -> None:
        """Waits for what clients or tests do here."""
        with self.changed:
            assert self.changed.wait_for(predicate, 100), "what the test waits for did not happen"

    def inject(self, verb: str, kind: str, fault: Fault, times: int = 1) -> None:
        """The next `times` such requests are answered so."""
        with self.changed:
            self._faults += [(verb, kind, fault)] * times

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

    def compact(self) -> None:
        """Compacts the history: no watch and no page of a list goes on from before."""
        with self.changed:
            self._revision += 1
            self._compacted = self._revision
            self._pages.clear()

    def answer(self, request: Request, handler: Handler) -> None:
        """What a server in good health answers; raises Refused."""
        namespaces = {"nodes": {""}, "pods": {"", NAMESPACE}}
        if request.namespace not in namespaces.get(request.kind, {NAMESPACE}):
            raise StatusError(403, "Forbidden", f"{request.kind} is forbidden in the namespace {request.namespace!r}")
        match request.verb:
            case "watch":
                self._watch(request, handler)
            case "log":
                handler.send(200, self._log(request), "text/plain")
            case _:
                with self.changed:
                    actions: dict[str, Callable[[Request], Object]] = {
                        "list": self._list,
                        "get": self._get,
                        "create": self._create,
                        "patch": self._patch,
                        "delete": self._delete,
                    }
                    result = actions[request.verb](request)
                handler.send(200, json.dumps(result).encode(), "application/json")

    def record(self, request: Request) -> Fault | None:
        """Notes the request; returns the trouble that it is in for."""
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()
            for entry in self._faults:
                if entry[:2] in ((request.verb, request.kind), (request.verb, "")):
                    self._faults.remove(entry)
                    return entry[2]
        return None

    def _put(self, kind: str, object: Object) -> Object:
        objects = self._objects.setdefault(kind, {})
        stored = copy.deepcopy(object)
        metadata = stored["metadata"]
        previous = objects.get(metadata["name"])
        self._revision += 1
        metadata["resourceVersion"] = str(self._revision)
        metadata["uid"] = previous["metadata"]["uid"] if previous else metadata.get("uid") or str(uuid.uuid4())
        metadata.setdefault("creationTimestamp", CREATED)
        objects[metadata["name"]] = stored
        self._history.append((self._revision, kind, "MODIFIED" if previous else "ADDED", stored))
        self.changed.notify_all()
        return copy.deepcopy(stored)

    def _remove(self, kind: str, name: str) -> None:
        removed = copy.deepcopy(self._objects[kind].pop(name))
        self._revision += 1
        removed["metadata"]["resourceVersion"] = str(self._revision)
        self._history.append((self._revision, kind, "DELETED", removed))
        self.changed.notify_all()

    def _list(self, request: Request) -> Object:
        if token := request.query.get("continue"):
            if token not in self._pages:
                raise StatusError(410, "Expired", "The provided continue parameter is too old")
            items, revision = self._pages[token]
        else:
            items, revision = [*self._selection(request)], self._revision
        limit = int(request.query.get("limit", 0)) or len(items)
        metadata = {"resourceVersion": str(revision)}
        if len(items) > limit:
            metadata["continue"] = str(uuid.uuid4())
            self._pages[metadata["continue"]] = (items[limit:], revision)
        return {"kind": "List", "metadata": metadata, "items": items[:limit]}

    def _selection(self, request: Request) -> list[Object]:
        objects = self._objects.get(request.kind, {})
        return [objects[name] for name in sorted(objects) if _selected(request, objects[name])]

    def _get(self, request: Request) -> Object:
        try:
            return self._objects[request.kind][request.name]
        except KeyError:
            raise StatusError(404, "NotFound", f'{request.kind} "{request.name}" not found') from None

    def _create(self, request: Request) -> Object:
        name = request.body["metadata"]["name"]
        if name in self._objects.get(request.kind, {}):
            raise StatusError(409, "AlreadyExists", f'{request.kind} "{name}" already exists')
        if "dryRun" in request.query:
            return dict(request.body)
        return self._put(request.kind, request.body)

    def _patch(self, request: Request) -> Object:
        if request.headers["Content-Type"] != "application/merge-patch+json":
            raise StatusError(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        return self._put(request.kind, _merged(self._get(request), request.body))

    def _delete(self, request: Request) -> Object:
        deleted = copy.deepcopy(self._get(request))
        if self.finalizing:
            deleted["metadata"].setdefault("deletionTimestamp", CREATED)
            return self._put(request.kind, deleted)
        for name, pod in list(self._objects.get("pods", {}).items()):
            if pod["metadata"]["labels"].get("batch.kubernetes.io/controller-uid") == deleted["metadata"]["uid"]:
                self._remove("pods", name)
        self._remove(request.kind, request.name)
        return deleted

    def _log(self, request: Request) -> bytes:
        with self.changed:
            self._get(request)
            if request.name not in self.logs:
                raise StatusError(400, "BadRequest", f'container "embed" in pod "{request.name}" is waiting to start')
            text = self.logs[request.name]
        if count := request.query.get("tailLines"):
            text = "".join(text.splitlines(keepends=True)[-int(count) :])
        return text.encode()

    def _watch(self, request: Request, handler: Handler) -> None:
        version = int(request.query["resourceVersion"])
        expiry = StatusError(410, "Expired", f"too old resource version: {version} ({self._compacted})")
        with self.changed:
            is_expired = version < self._compacted
            seen_breaks = len(self._breaks)
        if is_expired and self.expired_as_status:
            raise expiry
        handler.begin_stream()
        if is_expired:
            handler.chunk(json.dumps({"type": "ERROR", "object": expiry.status}).encode() + b"\n")
        while not is_expired:
            with self.changed:
                self.changed.wait_for(partial(self._has_news, version, seen_breaks))
                if self.closing.is_set():
                    handler.hang_up()
                    return
                end, last_bytes = (
                    self._breaks[seen_breaks] if len(self._breaks) > seen_breaks else (self._revision, None)
                )
                changes = [
                    change for change in self._history if version < change[0] <= end and change[1] == request.kind
                ]
                version = end
            for revision, _, type, object in changes:
                if type == "BOOKMARK":
                    object = {"metadata": {"resourceVersion": str(revision)}}
                elif not _selected(request, object):
                    continue
                handler.chunk(json.dumps({"type": type, "object": object}).encode() + b"\n")
            if last_bytes is not None:
                handler.wfile.write(last_bytes)
                handler.hang_up()
                return
        handler.chunk(b"")

    def _has_news(self, version: int, seen_breaks: int) -> bool:
        return self._revision > version or len(self._breaks) > seen_breaks or self.closing.is_set()


def _merged(current: Any, changes: Any) -> Any:
    """A JSON merge patch (https://www.rfc-editor.org/rfc/rfc7386)."""
    if not isinstance(current, dict) or not isinstance(changes, dict):
        return copy.deepcopy(changes)
    return {**current, **{name: _merged(current.get(name), value) for name, value in changes.items()}}


def _selected(request: Request, object: Object) -> bool:
    labels = object["metadata"].get("labels", {})
    for term in filter(None, request.query.get("labelSelector", "").split(",")):
        name, equals, value = term.partition("=")
        is_set = name.removeprefix("!") in labels
        if is_set == name.startswith("!") or (equals and labels[name] != value):
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
