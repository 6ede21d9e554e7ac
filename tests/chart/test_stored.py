"""The chart renders objects as the API server stores them, so that a second `kubectl apply` changes nothing.

The API server drops empty lists and fields with a zero value, writes quantities in its own form, and adds defaults.
kubectl compares lists without a merge key as a whole, so a default that is missing in such a list is a difference.
tests/cluster/test_chart.py applies the objects twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chart.helm import Helm, Objects


def fields(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value below this one, with its path."""
    yield path, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield from fields(child, f"{path}/{name}")


def test_no_field_is_empty(chart: Objects) -> None:
    empty = [
        f"{manifest['kind']}/{manifest['metadata']['name']}{path}"
        for manifest in chart.manifests
        for path, value in fields(manifest)
        if value in ([], None) or (value == "" and "/env/" in path)
    ]
    assert empty == []


def test_a_mount_that_can_be_written_has_no_field_that_says_so(chart: Objects) -> None:
    mounts = [
        mount for pod in chart.pods() for container in pod.containers for mount in container.get("volumeMounts", [])
    ]
    assert mounts
    assert [mount for mount in mounts if mount.get("readOnly") is False] == []


def test_each_variable_is_there_once(chart: Objects) -> None:
    for pod in chart.pods():
        for container in pod.containers:
            names = [variable["name"] for variable in container["env"]]
            assert len(names) == len(set(names)), pod.owner


def test_each_quantity_is_a_whole_number_with_the_largest_unit(chart: Objects) -> None:
    quantities = [
        value
        for manifest in chart.manifests
        for path, value in fields(manifest)
        if re.search(r"/resources/(requests|limits)/[^/]+(/[^/]+)?$", path)
    ]
    assert quantities
    for quantity in quantities:
        match = re.fullmatch("([1-9][0-9]*)(m||k|M|G|T|Ki|Mi|Gi|Ti)", quantity)
        assert match, quantity
        assert int(match[1]) % (1024 if match[2].endswith("i") else 1000), quantity


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        # Kubernetes 1.34 stores each second one as it is.
        (2, "2"), (0.5, "500m"), ("0.5", "500m"), ("1000m", "1"), ("1500m", "1500m"), ("1.0", "1"), ("0", "0"),
        ("0.0005", "500u"), ("010", "10"), ("1000", "1k"), (1e6, "1M"), (2e10, "20G"), ("1500M", "1500M"),
        ("0.5G", "500M"), ("1000G", "1T"), ("1024Mi", "1Gi"), ("1536Mi", "1536Mi"), ("1.5Gi", "1536Mi"),
        ("0.5Gi", "512Mi"), ("0.125Gi", "128Mi"), ("1048576Ki", "1Gi"), ("1.5Ki", "1536"), ("0Mi", "0"),
        (21474836480, "21474836480"),
    ],
)  # fmt: skip
def test_a_quantity_is_stored_as_it_is_rendered(helm: Helm, value: Any, stored: str) -> None:
    chart = helm.template({"chroma": {"resources": {"requests": {"memory": value}}, "claim": {"size": value}}})
    resources = chart.pod("chroma").spec["containers"][0]["resources"]
    assert resources == {"requests": {"cpu": "500m", "memory": stored}, "limits": {"memory": "4Gi"}}
    claim = chart.named("PersistentVolumeClaim", "chroma")
    assert claim["spec"]["resources"] == {"requests": {"storage": stored}}


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        # The arithmetic of the chart has 64 bits.
        (0.7000000000000001, "0.7000000000000001"), (0.3333333333333333, "0.3333333333333333"),
        ("1.7000000000000002Gi", "1.7000000000000002Gi"), ("12.345678Ti", "12.345678Ti"),
        (1e19, "10000000000000000000"), (1e21, "1e+21"), (1.1e-7, "1.1e-7"), ("2e10", "2e10"), ("1.5e3", "1.5e3"),
        ("0.3Gi", "0.3Gi"), ("999999.999999Pi", "999999.999999Pi"), ("0.0000001", "0.0000001"),
        # The largest ones that it computes.
        ("999999.999999", "999999999999u"), ("999999999999999999Ki", "999999999999999999Ki"),
        ("1000000000P", "1000000E"),
    ],
)  # fmt: skip
def test_a_quantity_that_the_chart_cannot_compute_keeps_its_value(helm: Helm, value: Any, rendered: str) -> None:
    chart = helm.template({"chroma": {"resources": {"requests": {"memory": value}}}})
    assert chart.pod("chroma").spec["containers"][0]["resources"]["requests"]["memory"] == rendered


def test_resources_without_an_amount_are_left_out(helm: Helm) -> None:
    chart = helm.template({"chroma": {"resources": {"requests": {}, "limits": {"memory": None}}}})
    resources = chart.pod("chroma").spec["containers"][0]["resources"]
    assert resources == {"requests": {"cpu": "500m", "memory": "1Gi"}}


def test_a_direction_without_rules_is_only_named(default: Objects) -> None:
    directions = {
        policy["metadata"]["labels"]["app.kubernetes.io/component"]: policy["spec"].keys() & {"ingress", "egress"}
        for policy in default.of("NetworkPolicy")
    }
    assert directions == {
        "chroma": {"ingress"},
        **{component: {"egress"} for component in ("plan", "evaluate", "test")},
        **{component: {"ingress", "egress"} for component in ("searcher", "embed", "ingest", "controller")},
    }
    assert all(policy["spec"]["policyTypes"] == ["Ingress", "Egress"] for policy in default.of("NetworkPolicy"))


def test_lists_without_a_merge_key_have_the_defaults(everything: Objects) -> None:
    for policy in everything.of("NetworkPolicy"):
        for path, port in fields(policy["spec"]):
            if re.search(r"/ports/\d+$", path):
                assert port.keys() == {"port", "protocol"}
    (rule, _) = everything.named("CronJob", "reindex")["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rule == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    for kind in ("ServiceMonitor", "PodMonitor"):
        for monitor in everything.of(kind):
            for path, relabeling in fields(monitor):
                if re.search(r"/relabelings/\d+$", path):
                    assert relabeling["action"] == "replace"
    route = everything.named("HTTPRoute", "searcher")["spec"]
    assert route["parentRefs"] == [
        {
            "group": "gateway.networking.k8s.io",
            "kind": "Gateway",
            "name": "public",
            "namespace": "gateways",
            "sectionName": "https",
        }
    ]


def test_a_strategy_has_its_type(chart: Objects) -> None:
    """kubectl replaces the whole strategy where the stored one has more fields."""
    for deployment in chart.of("Deployment"):
        assert deployment["spec"]["strategy"]["type"] == "RollingUpdate"
