"""A Hugging Face hub on this machine: enough of its HTTP for the real `datasets`, `huggingface_hub` and `open_clip`.

with running_hub() as hub:
    commit = hub.push("acme/cats", {"data/train-00000.parquet": …})
    hub.push("acme/clip", {"open_clip_model.safetensors": …}, kind="models")
    …                            # in a process that has HF_ENDPOINT=hub.url when it imports huggingface_hub
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

Files = Mapping[str, bytes]
Kind = Literal["datasets", "models"]
Access = Literal["open", "gated", "private", "down", "files down"]
"""`gated` and `private` need TOKEN; what is `down` is answered with 501, since
for a 503 the libraries wait and ask again for half a minute."""
TOKEN = "hf_the_right_one"
ROUTE = re.compile(
    r"/(?:api/)?(?P<kind>datasets/|models/|)(?P<name>[^/]+/[^/]+)"
    r"(?:/(?P<what>auth-check|revision|tree|paths-info|resolve)(?:/(?P<revision>[^/]+)(?:/(?P<path>.+))?)?)?"
)


@dataclass
class Repository:
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    access: Access = "open"

    def commit(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class Hub:
    """Datasets and models by name, and what was asked about them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.datasets: dict[str, Repository] = {}
        self.models: dict[str, Repository] = {}
        self.requests: list[str] = []
        """`METHOD path`, with ` bytes=…` where a range was asked for."""
        self.sent_bytes = 0

    def push(
        self,
        name: str,
        files: Files,
        *,
        repository_kind: Kind = "datasets",
        branch: str = "main",
        access: Access = "open",
    ) -> str:
        """Makes a commit of all `files`, the only ones on its branch from now on; returns its hash."""
        repositories = self.datasets if repository_kind == "datasets" else self.models
        repository = repositories.setdefault(name, Repository(access=access))
        contents = sorted((path, _hash(data)) for path, data in files.items())
        commit = _hash(repr((name, branch, len(repository.commits), contents)).encode())
        repository.commits[commit] = files
        repository.branches[branch] = commit
        return commit


@contextmanager
def running_hub() -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = server.hub = Hub(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise each answer waits for a delayed acknowledgement, 40 ms

    def do_GET(self) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        hub.requests.append(" ".join(filter(None, (self.command, url.path, self.headers.get("Range")))))
        route = ROUTE.fullmatch(url.path)
        repositories = hub.datasets if route and route["kind"] == "datasets/" else hub.models
        repository = repositories.get(route["name"]) if route else None
        authorised = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if not route or not repository or (repository.access == "private" and not authorised):
            return self._refuse(HTTPStatus.UNAUTHORIZED, "RepoNotFound")
        if repository.access == "down" or (repository.access == "files down" and route["what"] == "resolve"):
            return self._refuse(HTTPStatus.NOT_IMPLEMENTED, "Down")
        if repository.access == "gated" and not authorised and route["what"] in ("auth-check", "resolve"):
            return self._refuse(HTTPStatus.FORBIDDEN, "GatedRepo")
        commit = repository.commit(unquote(route["revision"] or "main"))
        if commit is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")
        files = repository.commits[commit]
        path = unquote(route["path"] or "")
        match route["what"]:
            case "auth-check":
                self._json({})
            case "resolve":
                self._send(files.get(path), commit)
            case "tree":
                recursive = parse_qs(url.query).get("recursive", ["false"])[0].lower() == "true"
                self._json(_tree(files, path, recursive=recursive))
            case "paths-info":
                self._json([_entry(path, files[path]) for path in parse_qs(body.decode())["paths"] if path in files])
            case _:
                siblings = [{"rfilename": path} for path in files]
                self._json({"id": route["name"], "sha": commit, "siblings": siblings, "tags": [], "downloads": 0})

    do_POST = do_HEAD = do_GET

    def _send(self, data: bytes | None, commit: str) -> None:
        if data is None:  # with the commit, by which the libraries keep in the cache that it has no such file
            return self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound", {"X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_hash(data)}"', "Accept-Ranges": "bytes"}
        byte_range = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not byte_range:
            return self._answer(HTTPStatus.OK, data, headers)
        first, last = int(byte_range[1]), min(int(byte_range[2]), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self._answer(HTTPStatus.PARTIAL_CONTENT, data[first : last + 1], headers)

    def _refuse(self, status: HTTPStatus, code: str, headers: Mapping[str, str] | None = None) -> None:
        self._answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _json(self, value: Any) -> None:
        self._answer(HTTPStatus.OK, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: HTTPStatus, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.server.hub.sent_bytes += len(body)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr: `Hub.requests` is the log."""


def _tree(files: Files, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    entries = {}
    for path, data in files.items():
        if path.startswith(prefix):
            for slash in (match.start() for match in re.finditer("/", path)):
                if slash >= len(prefix):
                    entries[path[:slash]] = {"type": "directory", "path": path[:slash], "oid": _hash(b""), "size": 0}
            entries[path] = _entry(path, data)
    return [entry for path, entry in entries.items() if recursive or "/" not in path.removeprefix(prefix)]


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": _hash(data)}


def _hash(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
