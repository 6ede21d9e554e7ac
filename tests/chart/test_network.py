"""Who talks to whom: the whole of it, and nothing else."""

from __future__ import annotations

from tests.chart.helm import Helm, Objects
from tests.chart.network import OUTSIDE, Peer, reaches

OTHERS = {
    **{name: Peer({"app": name}, name, policed=False) for name in ("elsewhere", "gateways", "monitoring")},
    "notebook": Peer({"app": "notebook"}, policed=False),  # in the release's own namespace
}


def peers(chart: Objects) -> dict[str, Peer]:
    return {pod.component: Peer(pod.labels) for pod in chart.pods()}


def edges(chart: Objects, port: int) -> set[str]:
    """Every connection to that port which the policies allow."""
    policies, own = chart.of("NetworkPolicy"), peers(chart)
    everybody = {**own, **OTHERS, "outside": OUTSIDE}
    return {
        f"{source} > {target}"
        for source, start in everybody.items()
        for target in own
        if reaches(policies, start, own[target], port)
    }


def exits(chart: Objects) -> dict[str, set[int]]:
    """Ports of the world outside that each component reaches."""
    ports = (80, 443, 988, 6443, 8000, 9000, 22)
    policies = chart.of("NetworkPolicy")
    return {
        name: {port for port in ports if reaches(policies, peer, OUTSIDE, port)} for name, peer in peers(chart).items()
    }


def test_each_policy_is_for_pods_that_there_are(chart: Objects) -> None:
    labels = [pod.labels for pod in chart.pods()]
    for policy in chart.of("NetworkPolicy"):
        wanted = policy["spec"]["podSelector"]["matchLabels"]
        assert any(wanted.items() <= each.items() for each in labels), policy["metadata"]["name"]


def test_chroma_is_for_who_searches_and_fills_it_and_the_searcher_for_everybody(default: Objects) -> None:
    # Of the release's own pods only the test has business with the searcher; the others may not even try.
    askers = {*OTHERS, "outside", "test"}
    assert edges(default, 8000) == {
        *(f"{who} > chroma" for who in ("searcher", "ingest", "evaluate")),
        *(f"{who} > searcher" for who in askers),
    }


def test_whoever_is_in_the_cluster_may_scrape_what_ends_by_itself(default: Objects) -> None:
    assert edges(default, 9090) == {
        f"{who} > {target}" for who in OTHERS for target in ("embed", "ingest", "controller")
    }


def test_each_component_leaves_the_cluster_where_it_must(default: Objects) -> None:
    assert exits(default) == {
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
        asking = {name for name, peer in peers(default).items() if reaches(policies, peer, OUTSIDE, 53, protocol)}
        assert asking == {*peers(default)} - {"chroma"}


def test_the_values_say_who_else(everything: Objects) -> None:
    assert edges(everything, 8000) == {
        "searcher > chroma",
        "ingest > chroma",
        "evaluate > chroma",
        "notebook > chroma",
        "gateways > searcher",
        "monitoring > searcher",
        "test > searcher",
    }
    assert edges(everything, 9090) == {f"monitoring > {target}" for target in ("embed", "ingest", "controller")}
    assert exits(everything)["ingest"] == {80, 443, 9000}


def test_a_chroma_elsewhere_is_reached_at_its_port(helm: Helm) -> None:
    for url, port in (
        ("chroma+http://vectors", 8000),
        ("chroma+http://chroma.vectors:9000/", 9000),
        ("chroma+https://vectors.example.com", 443),
    ):
        chart = helm.template({"store": {"url": url}, "networkPolicy": {"egressPorts": [22]}})
        assert exits(chart)["ingest"] == {port}
        assert exits(chart)["searcher"] == {port, 22}


def test_no_egress_port_opens_none(helm: Helm) -> None:
    chart = helm.template({"networkPolicy": {"egressPorts": []}})
    assert exits(chart)["embed"] == set()


def test_they_can_be_left_out(external_store: Objects) -> None:
    assert external_store.of("NetworkPolicy") == []
