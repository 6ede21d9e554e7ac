"""A cluster for SkyPilot to look at: an API server that lists nodes and pods, and a kubeconfig that leads to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

Object = dict[str, Any]

CONTEXT = "pools"
GKE = "cloud.google.com/gke-accelerator"
GFD = "nvidia.com/gpu.product"
KARPENTER = "karpenter.k8s.aws/instance-gpu-name"
SKYPILOT = "skypilot.co/accelerator"
GPU = "nvidia.com/gpu"


def node(
    name: str,
    labels: Mapping[str, str],
    gpus: int = 1,
    *,
    resource: str = GPU,
    ready: bool = True,
    cordoned: bool = False,
    taints: Sequence[Mapping[str, str]] = (),
) -> Object:
    allocatable = {
        "cpu": "8",
        "memory": "32Gi",
        "ephemeral-storage": "100Gi",
        **({resource: str(gpus)} if gpus else {}),
    }
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
        "spec": {"unschedulable": cordoned, "taints": [dict(taint) for taint in taints]},
        "status": {
            "capacity": allocatable,
            "allocatable": allocatable,
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def pod(name: str, node_name: str | None, gpus: int, *, phase: str = "Running", resource: str = GPU) -> Object:
    limits = {resource: str(gpus)}
    return {
        "metadata": {"name": name, "namespace": "team", "labels": {}},
        "spec": {
            **({"nodeName": node_name} if node_name else {}),
            "containers": [{"name": "main", "resources": {"requests": limits, "limits": limits}}],
        },
        "status": {"phase": phase},
    }


class Cluster:
    """What it has, and what it refuses or answers in its own way, by path."""

    def __init__(self) -> None:
        self.nodes: list[Object] = []
        self.pods: list[Object] = []
        self.status_codes: dict[str, int] = {}
        """By `nodes` or `pods`, with which HTTP status."""
        self.cuts_replies = False
        """It breaks off in the middle of an answer."""
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cluster": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        """Whoever connects after this is refused. A second time does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def list(self, kind: str, fields: str) -> tuple[int, Object]:
        if code := self.status_codes.get(kind):
            message = f'{kind} is forbidden: User "somebody" cannot list resource "{kind}" at the cluster scope'
            return code, {"kind": "Status", "status": "Failure", "code": code, "message": message}
        items = self.nodes if kind == "nodes" else [pod for pod in self.pods if _selected(pod, fields)]
        return 200, {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        kind = url.path.removeprefix("/api/v1/")
        assert kind in ("nodes", "pods"), self.path
        self.cluster.requests.append(kind)
        code, reply = self.cluster.list(kind, dict(parse_qsl(url.query)).get("fieldSelector", ""))
        body = json.dumps(reply).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.cluster.cuts_replies else body)

    def log_message(self, *_: object) -> None:
        pass


def _selected(pod: Object, fields: str) -> bool:
    """The field selector of a list: terms of `status.phase!=X`, all of which must hold."""
    terms = [term.partition("!=") for term in fields.split(",") if term]
    assert all(path == "status.phase" for path, _, _ in terms), fields
    return all(pod["status"]["phase"] != value for _, _, value in terms)


def kubeconfig(file: Path, servers: Mapping[str, str], *, current: str | None) -> Path:
    """A file with one context for each server."""
    content: Object = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": url}} for name, url in servers.items()],
        "users": [{"name": name, "user": {"token": "secret"}} for name in servers],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in servers],
        **({"current-context": current} if current else {}),
        "preferences": {"colors": True},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content))
    return file
