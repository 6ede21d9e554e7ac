"""Who reaches whom under a set of NetworkPolicies, in a namespace where what no policy allows is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Policy = Mapping[str, Any]


NAME = "kubernetes.io/metadata.name"
"""The label of a namespace that the API server sets."""


@dataclass(frozen=True)
class Peer:
    """One end of a connection."""

    labels: Mapping[str, str]
    namespace: str | None = None
    """None: that of the policies."""
    has_policy: bool = True
    """Whether what no policy allows is refused at this end."""


OUTSIDE = Peer({}, "", has_policy=False)
"""No pod at all."""


def reaches(policies: Sequence[Policy], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether both ends allow it."""
    return (not source.has_policy or _allowed(policies, "egress", "to", source, target, port, protocol)) and (
        not target.has_policy or _allowed(policies, "ingress", "from", target, source, port, protocol)
    )


def _allowed(
    policies: Sequence[Policy], direction: str, peers: str, pod: Peer, peer: Peer, port: int, protocol: str
) -> bool:
    return any(
        _peers(rule.get(peers), peer) and _ports(rule.get("ports"), port, protocol)
        for rule in _rules(policies, direction, pod)
    )


def _rules(policies: Sequence[Policy], direction: str, pod: Peer) -> Iterator[Mapping[str, Any]]:
    for policy in policies:
        spec = policy["spec"]
        assert direction.capitalize() in spec["policyTypes"], "a policy of the chart is for both directions"
        if _selects(spec["podSelector"], pod.labels):
            yield from spec.get(direction, [])


def _peers(peers: Sequence[Mapping[str, Any]] | None, pod: Peer) -> bool:
    if not peers:
        return True
    return any(
        "ipBlock" not in peer
        and pod != OUTSIDE
        and _selects(peer.get("podSelector", {}), pod.labels)
        and _namespace(peer.get("namespaceSelector"), pod.namespace)
        for peer in peers
    )


def _namespace(selector: Mapping[str, Any] | None, name: str | None) -> bool:
    if selector is None:
        return name is None
    return _selects(selector, {} if name is None else {NAME: name})


def _ports(ports: Sequence[Mapping[str, Any]] | None, port: int, protocol: str) -> bool:
    return not ports or any((entry["port"], entry.get("protocol", "TCP")) == (port, protocol) for entry in ports)


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert not selector.keys() - {"matchLabels"}, "the chart selects by labels alone"
    match_labels: Mapping[str, str] = selector.get("matchLabels", {})
    return match_labels.items() <= labels.items()
