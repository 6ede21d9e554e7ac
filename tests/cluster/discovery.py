"""Runs beside Prometheus and writes down where the targets of each monitor are, as Prometheus itself would say it.

Debian's is built without https://prometheus.io/docs/prometheus/latest/configuration/configuration/#kubernetes_sd_config.
Standard library only: the file goes into a pod by itself.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Object = dict[str, Any]

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
META = "__meta_kubernetes_"


class Api:
    """The namespace of this pod."""

    def __init__(self) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        self.namespace = (ACCOUNT / "namespace").read_text()
        self._url = f"https://{host}:{port}/api/v1/namespaces/{self.namespace}"
        self._trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))

    def list(self, kind: str, selector: str = "") -> list[Object]:
        token = (ACCOUNT / "token").read_text()
        request = urllib.request.Request(
            f"{self._url}/{kind}?{urllib.parse.urlencode({'labelSelector': selector})}",
            headers={"Authorization": f"Bearer {token}"},
        )
        with urllib.request.urlopen(request, context=self._trust, timeout=10) as response:
            items: list[Object] = json.load(response)["items"]
            return items


def pods(api: Api, selector: str) -> Iterator[Object]:
    """A target for each port of each container, as the role `pod`."""
    for pod in api.list("pods", selector):
        for container in pod["spec"]["containers"]:
            for port in container.get("ports", []):
                if ip := pod["status"].get("podIP"):
                    yield target(ip, port["containerPort"], _of_pod(pod, container, port))


def endpoints(api: Api, selector: str) -> Iterator[Object]:
    """A target for each address of each port of a Service, as the role `endpoints`."""
    pods = {pod["metadata"]["name"]: pod for pod in api.list("pods")}
    for endpoints_object in api.list("endpoints", selector):
        labels = {"namespace": api.namespace, "service_name": endpoints_object["metadata"]["name"]}
        for subset in endpoints_object.get("subsets", []):
            for address in subset.get("addresses", []) + subset.get("notReadyAddresses", []):
                pod = pods[address["targetRef"]["name"]]
                for port in subset["ports"]:
                    pod_labels = next(
                        _of_pod(pod, container, pod_port)
                        for container in pod["spec"]["containers"]
                        for pod_port in container.get("ports", [])
                        if pod_port["containerPort"] == port["port"]
                    )
                    yield target(
                        address["ip"], port["port"], {**pod_labels, **labels, "endpoint_port_name": port["name"]}
                    )


def target(ip: str, port: int, labels: dict[str, str]) -> Object:
    return {
        "targets": [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"],
        "labels": {META + name: value for name, value in labels.items()},
    }


def _of_pod(pod: Object, container: Object, port: Object) -> dict[str, str]:
    metadata = pod["metadata"]
    return {
        "namespace": metadata["namespace"],
        "pod_name": metadata["name"],
        "pod_phase": pod["status"]["phase"],
        "pod_container_name": container["name"],
        "pod_container_port_name": port["name"],
        **{"pod_label_" + re.sub(r"\W", "_", name): value for name, value in metadata["labels"].items()},
    }


ROLES = {"PodMonitor": pods, "ServiceMonitor": endpoints}


def main() -> None:
    """`discovery.py '[[KIND OF MONITOR, SELECTOR, FILE], …]'`: for ever, every second."""
    api = Api()
    while True:
        for kind, selector, file in json.loads(sys.argv[1]):
            try:
                targets = list(ROLES[kind](api, selector))
            except (OSError, KeyError) as error:  # the API is away, or a pod has just come or gone
                print(f"{kind}: {error!r}", file=sys.stderr, flush=True)
                continue
            new_file = Path(f"{file}.new")
            new_file.write_text(json.dumps(targets))
            new_file.rename(file)
        time.sleep(1)


if __name__ == "__main__":
    main()
