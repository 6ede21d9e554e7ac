"""Monitors: what is scraped, and under which labels."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import pytest

from controller.jobs import manifests
from controller.jobs.manifests import CONTROLLER
from controller.jobs.state import Stage
from imgsearch.settings import RunSettings, Settings
from tests.chart.helm import NAMESPACE, RELEASE, Object, Objects
from tests.chart.monitoring import DASHBOARD, INDEX, RUN, Promtool, monitors
from tests.monitors import scrape_config, selects


def test_nothing_of_it_is_made_unless_it_is_asked_for(default: Objects) -> None:
    assert not [
        manifest for manifest in default.manifests if manifest["apiVersion"].startswith("monitoring.coreos.com/")
    ]
    assert [manifest["metadata"]["name"] for manifest in default.of("ConfigMap")] == [f"{RELEASE}-pipeline"]


def test_what_is_made_has_the_labels_that_it_is_found_by(monitored: Objects) -> None:
    for monitor in (*monitors(monitored), monitored.named("PrometheusRule", "alerts")):
        assert monitor["metadata"]["labels"]["prometheus"] == "team"
    dashboard = monitored.named("ConfigMap", "dashboard")
    assert dashboard["metadata"]["labels"]["dashboards"] == "search"
    assert json.loads(dashboard["data"]["imgsearch.json"]) == DASHBOARD


def test_the_searcher_is_scraped_through_its_service(monitored: Objects) -> None:
    spec = monitored.named("ServiceMonitor", "searcher")["spec"]
    (service,) = [
        manifest for manifest in monitored.of("Service") if selects(spec["selector"], manifest["metadata"]["labels"])
    ]
    assert service["metadata"]["name"] == f"{RELEASE}-searcher"
    assert [port["name"] for port in service["spec"]["ports"]] == [spec["endpoints"][0]["port"]]
    assert spec["endpoints"][0]["interval"] == "30s"


def test_each_program_that_opens_a_port_is_scraped_at_it(monitored: Objects) -> None:
    spec = monitored.named("PodMonitor", "pipeline")["spec"]
    (endpoint,) = spec["podMetricsEndpoints"]
    ports = {
        pod.component
        for pod in monitored.pods()
        if selects(spec["selector"], pod.labels)
        and {"name": endpoint["port"], "containerPort": 9090} in pod.spec["containers"][0]["ports"]
    }
    assert ports == {pod.component for pod in monitored.pods() if "IMGSEARCH_METRICS_PORT" in pod.env}
    assert endpoint["interval"] == "30s"


def test_a_query_job_is_not_scraped(monitored: Objects) -> None:
    """Its pod is made of ingest's template, but opens no port: it would be a target that is down."""
    template = monitored.named("PodTemplate", manifests.query_pod("runs"))["template"]
    job = manifests.query_job("searcher", "runs", Settings(), template, release=RELEASE, name="query")
    selector = monitored.named("PodMonitor", "pipeline")["spec"]["selector"]
    assert not selects(selector, job["spec"]["template"]["metadata"]["labels"])


def pod_labels(chart: Objects, component: str) -> dict[str, str]:
    """Those of a pod of a run, as the controller and Kubernetes set them."""
    template = chart.named("PodTemplate", component)["template"]
    settings = Settings(run=RunSettings(id=RUN, index=INDEX))
    if component == CONTROLLER:
        job = manifests.detached([], settings, template, release=RELEASE)
    else:
        job = manifests.job(Stage(component), settings, template, release=RELEASE, completions=8, parallelism=2)
        # https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode
        job["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = "3"
    return dict(job["spec"]["template"]["metadata"]["labels"])


def target_labels(tool: Promtool, monitor: Object, metadata: Mapping[str, str]) -> dict[str, str]:
    """What Prometheus makes of a target that Kubernetes describes so: the labels of its series, or none."""
    config = scrape_config(monitor)
    labels = {f"__meta_kubernetes_{name}": value for name, value in metadata.items()}
    config["static_configs"] = [{"targets": ["10.0.0.7:9090"], "labels": labels}]
    file = tool.write("prometheus.yaml", {"scrape_configs": [config]})
    tool.check("check", "config", file)
    (target,) = json.loads(tool.check("check", "service-discovery", "--timeout", "1s", file, config["job_name"]))
    return {name: value for name, value in (target["labels"] or {}).items() if not name.startswith("__")}


def discovered(labels: Mapping[str, str], **others: str) -> dict[str, str]:
    """A pod as Prometheus' discovery describes it, without `__meta_kubernetes_`."""
    return {
        "namespace": NAMESPACE,
        "pod_name": "pod-0",
        "pod_phase": "Running",
        **{"pod_label_" + re.sub(r"\W", "_", name): value for name, value in labels.items()},
        **others,
    }


@pytest.mark.parametrize(
    ("component", "extra_labels"),
    [
        ("embed", {"run": RUN, "index": INDEX, "shard": "3"}),
        ("ingest", {"run": RUN, "index": INDEX}),
        # Its metrics have run and index themselves.
        ("controller", {}),
    ],
)
def test_a_series_says_which_run_and_shard_it_is_of(
    tool: Promtool, monitored: Objects, component: str, extra_labels: dict[str, str]
) -> None:
    monitor = monitored.named("PodMonitor", "pipeline")
    metadata = discovered(
        pod_labels(monitored, component), pod_container_name=component, pod_container_port_name="metrics"
    )
    assert target_labels(tool, monitor, metadata) == {
        "job": f"{NAMESPACE}/{RELEASE}-pipeline",
        "instance": "10.0.0.7:9090",
        "endpoint": "metrics",
        "namespace": NAMESPACE,
        "release": RELEASE,
        "pod": "pod-0",
        "container": component,
        **extra_labels,
    }
    assert target_labels(tool, monitor, {**metadata, "pod_phase": "Succeeded"}) == {}


def test_a_series_of_the_searcher_says_which_release_and_pod_it_is_of(tool: Promtool, monitored: Objects) -> None:
    metadata = discovered(
        monitored.pod("searcher").labels,
        service_name=f"{RELEASE}-searcher",
        endpoint_port_name="http",
        pod_container_name="searcher",
    )
    assert target_labels(tool, monitored.named("ServiceMonitor", "searcher"), metadata) == {
        "job": f"{RELEASE}-searcher",
        "instance": "10.0.0.7:9090",
        "endpoint": "http",
        "namespace": NAMESPACE,
        "release": RELEASE,
        "service": f"{RELEASE}-searcher",
        "pod": "pod-0",
        "container": "searcher",
    }
