"""What the operator of Prometheus makes of a ServiceMonitor and a PodMonitor, as far as the chart uses them.

Written after pkg/prometheus/promcfg.go of https://github.com/prometheus-operator/prometheus-operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = Mapping[str, Any]

ENDED = {"action": "drop", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)"}


def scrape_config(monitor: Object) -> dict[str, Any]:
    """The entry of `scrape_configs` for a monitor with one endpoint, without how its targets are discovered."""
    metadata = monitor["metadata"]
    pods = monitor["kind"] == "PodMonitor"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints" if pods else "endpoints"]
    return {
        "job_name": f"{'podMonitor' if pods else 'serviceMonitor'}/{metadata['namespace']}/{metadata['name']}/0",
        "scrape_interval": endpoint["interval"],
        "relabel_configs": [
            *(_of_pods if pods else _of_endpoints)(metadata, endpoint["port"]),
            {"target_label": "endpoint", "replacement": endpoint["port"]},
            *map(_relabeling, endpoint["relabelings"]),
        ],
    }


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector chooses these labels."""
    return all(
        {"In": labels.get(key) in values, "DoesNotExist": key not in labels}[operator]
        for key, operator, values in _expressions(selector)
    )


def selector_text(selector: Object) -> str:
    """A label selector as the API takes it in a query."""
    formats = {"In": "{key} in ({values})", "DoesNotExist": "!{key}"}
    return ",".join(
        formats[operator].format(key=key, values=",".join(values)) for key, operator, values in _expressions(selector)
    )


def _expressions(selector: Object) -> list[tuple[str, str, list[str]]]:
    return [
        *((key, "In", [value]) for key, value in selector.get("matchLabels", {}).items()),
        *(
            (expression["key"], expression["operator"], expression.get("values", []))
            for expression in selector.get("matchExpressions", [])
        ),
    ]


def _of_pods(metadata: Object, port: str) -> list[dict[str, Any]]:
    return [
        ENDED,
        _keep("pod_container_port_name", port),
        _copy("namespace", "namespace"),
        _copy("pod_container_name", "container"),
        _copy("pod_name", "pod"),
        {"target_label": "job", "replacement": f"{metadata['namespace']}/{metadata['name']}"},
    ]


def _of_endpoints(metadata: Object, port: str) -> list[dict[str, Any]]:
    return [
        _keep("endpoint_port_name", port),
        _copy("namespace", "namespace"),
        _copy("service_name", "service"),
        _copy("pod_name", "pod"),
        _copy("pod_container_name", "container"),
        ENDED,
        _copy("service_name", "job"),
    ]


def _keep(label: str, value: str) -> dict[str, Any]:
    return {"action": "keep", "source_labels": [f"__meta_kubernetes_{label}"], "regex": value}


def _copy(label: str, target: str) -> dict[str, Any]:
    return {"source_labels": [f"__meta_kubernetes_{label}"], "target_label": target}


def _relabeling(relabeling: Object) -> dict[str, Any]:
    """The operator's spelling into that of Prometheus."""
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return {names.get(name, name): value for name, value in relabeling.items()}
