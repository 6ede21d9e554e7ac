"""A Prometheus in the release's namespace, which scrapes what the release's own monitors say and knows its alerts."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.cluster import discovery
from tests.cluster.load import pod
from tests.cluster.world import World
from tests.monitors import scrape_config, selector_text

NAME = "prometheus"
PORT = 9090
CONFIG = "/etc/prometheus"


class Prometheus:
    """Its HTTP API."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._begun = time.time()

    def get(self, path: str, **params: str | float) -> Any:
        """What `/api/v1/PATH` answers; raises AssertionError with Prometheus' reason where it refuses."""
        response = self._client.get(f"/api/v1/{path}", params=params)
        assert response.is_success, f"{params}: {response.text}"
        return response.json()["data"]

    def now(self, query: str) -> list[dict[str, Any]]:
        """Each series of the answer."""
        series: list[dict[str, Any]] = self.get("query", query=query)["result"]
        return series

    def ever(self, query: str) -> list[dict[str, Any]]:
        """Each series of the answers since the test began, looked at every second."""
        series: list[dict[str, Any]] = self.get("query_range", query=query, start=self._begun, end=time.time(), step=1)[
            "result"
        ]
        return series


@contextmanager
def prometheus(world: World, image: str, chart: Sequence[Mapping[str, Any]]) -> Iterator[Prometheus]:
    """One that lives while the block runs. `chart`: the objects of the release with monitoring; `image` has Python."""
    program = shutil.which("prometheus")
    assert program, "prometheus is not on the PATH; tests/cluster/README.md says what must be"
    world.apply(*_objects(image, chart))
    try:
        world.kubectl("wait", "--for=jsonpath={.status.phase}=Running", f"pod/{NAME}", "--timeout=120s")
        # The program of this machine: so no image of Prometheus is needed.
        world.kubectl("cp", program, f"{NAME}:/tmp/copy")
        world.kubectl("exec", NAME, "--", "mv", "/tmp/copy", "/tmp/prometheus")
        world.kubectl("wait", "--for=condition=Ready", f"pod/{NAME}", "--timeout=120s")
        with world.forwarded(f"pod/{NAME}", PORT) as url, httpx.Client(base_url=url, timeout=30) as client:
            yield Prometheus(client)
    finally:
        world.kubectl("delete", "pod", NAME, "--wait=true")


def _objects(image: str, chart: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    monitors = [manifest for manifest in chart if manifest["kind"] in ("ServiceMonitor", "PodMonitor")]
    (rules,) = [manifest["spec"] for manifest in chart if manifest["kind"] == "PrometheusRule"]
    files = [f"/tmp/targets-{number}.json" for number in range(len(monitors))]
    config = {
        "global": {"evaluation_interval": "5s"},
        "rule_files": [f"{CONFIG}/rules.yaml"],
        "scrape_configs": [
            {**scrape_config(monitor), "file_sd_configs": [{"files": [file]}]}
            for monitor, file in zip(monitors, files, strict=True)
        ],
    }
    discoveries = [
        (monitor["kind"], selector_text(monitor["spec"]["selector"]), file)
        for monitor, file in zip(monitors, files, strict=True)
    ]
    prometheus_pod = pod(NAME, image, ["sh", "-c", RUN, NAME, json.dumps(discoveries)], labels={"app": NAME})
    prometheus_pod["spec"]["serviceAccountName"] = NAME
    prometheus_pod["spec"]["volumes"] = [{"name": "config", "configMap": {"name": NAME}}]
    prometheus_pod["spec"]["containers"][0] |= {
        "volumeMounts": [{"name": "config", "mountPath": CONFIG}],
        "readinessProbe": {"exec": {"command": ["python", "-c", READY]}, "periodSeconds": 1, "timeoutSeconds": 5},
    }
    names = {"name": NAME}
    reads = {"apiGroups": [""], "resources": ["pods", "endpoints"], "verbs": ["list"]}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME}
    egress = {"podSelector": {"matchLabels": {"app": NAME}}, "policyTypes": ["Egress"], "egress": [{}]}
    texts = {
        "prometheus.yaml": yaml.safe_dump(config),
        "rules.yaml": yaml.safe_dump(rules),
        "discovery.py": Path(discovery.__file__).read_text(),
    }
    access = "rbac.authorization.k8s.io/v1"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": names},
        {"apiVersion": access, "kind": "Role", "metadata": names, "rules": [reads]},
        {
            "apiVersion": access,
            "kind": "RoleBinding",
            "metadata": names,
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", **names}],
        },
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": names, "spec": egress},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": names, "data": texts},
        prometheus_pod,
    ]


READY = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{PORT}/-/ready')"
RUN = f"""
python {CONFIG}/discovery.py "$1" &
until test -x /tmp/prometheus; do sleep 0.2; done
exec /tmp/prometheus --config.file {CONFIG}/prometheus.yaml --storage.tsdb.path /tmp/data \
  --web.listen-address 127.0.0.1:{PORT}
"""
