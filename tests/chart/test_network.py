"""Who talks to whom: the whole of it, and nothing else."""

from __future__ import annotations

from tests.chart.helm import Helm, Objects
from tests.chart.network import OUTSIDE, Peer, reaches

OTHERS = {
    **{name: Peer({"app": name}, name, has_policy=False) for name in ("elsewhere", "gateways", "monitoring")},
    "notebook": Peer({"app": "notebook"}, has_policy=False),  # in the release's own namespace
}


def peers(chart: Objects) -> dict[str, Peer]:
    return {pod.component: Peer(pod.labels) for pod in chart.pods()}


def connections(chart: Objects, port: int) -> set[str]:
    """Every connection to that port which the policies allow."""
    policies, pods = chart.of("NetworkPolicy"), peers(chart)
    sources = {**pods, **OTHERS, "outside": OUTSIDE}
    return {
        f"{source} > {target}"
        for source, peer in sources.items()
        for target in pods
        if reaches(policies, peer, pods[target], port)
    }


def open_ports_outside(chart: Objects) -> dict[str, set[int]]:
    """Ports of the world outside that each component reaches."""
    ports = (80, 443, 988, 6443, 8000, 9000, 22)
    policies = chart.of("NetworkPolicy")
    return {
        name: {port for port in ports if reaches(policies, peer, OUTSIDE, port)} for name, peer in peers(chart).items()
    }


def test_each_policy_is_for_pods_that_there_are(chart: Objects) -> None:
    labels = [pod.labels for pod in chart.pods()]
    for policy in chart.of("NetworkPolicy"):
        selector = policy["spec"]["podSelector"]["matchLabels"]
        assert any(selector.items() <= pod_labels.items() for pod_labels in labels), policy["metadata"]["name"]


def test_chroma_is_for_who_searches_and_fills_it_and_the_searcher_for_everybody(default: Objects) -> None:
    # Of the release's own pods only the test has business with the searcher; the others may not even try.
    clients = {*OTHERS, "outside", "test"}
    assert connections(default, 8000) == {
        *(f"{client} > chroma" for client in ("searcher", "ingest", "evaluate")),
        *(f"{client} > searcher" for client in clients),
    }


def test_whoever_is_in_the_cluster_may_scrape_what_ends_by_itself(default: Objects) -> None:
    assert connections(default, 9090) == {
        f"{client} > {target}" for client in OTHERS for target in ("embed", "ingest", "controller")
    }


def test_each_component_leaves_the_cluster_where_it_must(default: Objects) -> None:
    assert open_ports_outside(default) == {
        "plan": {80, 443},
        "embed": {80, 443},
        "searcher": {80, 443},
        "ingest": set(),  # its runs are on a volume
        "evaluate": {80, 443},
        "controller": {443, 6443},
        "chroma": set(),
        "test": set(),
    }


def test_all_but_chroma_may_ask_the_dns(default: Objects) -> None:
    policies = default.of("NetworkPolicy")
    for protocol in ("UDP", "TCP"):
        allowed = {name for name, peer in peers(default).items() if reaches(policies, peer, OUTSIDE, 53, protocol)}
        assert allowed == {*peers(default)} - {"chroma"}


def test_the_values_say_who_else(everything: Objects) -> None:
    assert connections(everything, 8000) == {
        "searcher > chroma",
        "ingest > chroma",
        "evaluate > chroma",
        "notebook > chroma",
        "gateways > searcher",
        "monitoring > searcher",
        "test > searcher",
    }
    assert connections(everything, 9090) == {f"monitoring > {target}" for target in ("embed", "ingest", "controller")}
    assert open_ports_outside(everything)["ingest"] == {80, 443, 9000}


def test_a_chroma_elsewhere_is_reached_at_its_port(helm: Helm) -> None:
    for url, port in (
        ("chroma+http://vectors", 8000),
        ("chroma+http://chroma.vectors:9000/", 9000),
        ("chroma+https://vectors.example.com", 443),
    ):
        chart = helm.template({"store": {"url": url}, "networkPolicy": {"egressPorts": [22]}})
        assert open_ports_outside(chart)["ingest"] == {port}
        assert open_ports_outside(chart)["searcher"] == {port, 22}


def test_more_egress_rules_are_for_all_that_work_on_data(helm: Helm) -> None:
    """For ingest too, if its runs are on a volume and it needs no other port of data."""
    rule = {"to": [{"ipBlock": {"cidr": "10.0.0.7/32"}}], "ports": [{"port": 9000, "protocol": "TCP"}]}
    for storage in ({}, {"uri": "s3://photos"}):
        chart = helm.template({"storage": storage, "networkPolicy": {"extraEgress": [rule]}})
        counts = {
            policy["metadata"]["labels"]["app.kubernetes.io/component"]: policy["spec"].get("egress", []).count(rule)
            for policy in chart.of("NetworkPolicy")
        }
        assert counts == {
            **{component: 1 for component in ("plan", "embed", "ingest", "evaluate", "searcher")},
            **{component: 0 for component in ("controller", "chroma", "test")},
        }


def test_no_egress_port_opens_none(helm: Helm) -> None:
    chart = helm.template({"networkPolicy": {"egressPorts": []}})
    assert open_ports_outside(chart)["embed"] == set()


def test_they_can_be_left_out(external_store: Objects) -> None:
    assert external_store.of("NetworkPolicy") == []
