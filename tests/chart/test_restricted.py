from __future__ import annotations

from typing import Any

import pytest

from tests.chart.restricted import violations

CONTAINER: dict[str, Any] = {
    "name": "one",
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}
POD: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "volumes": [{"name": "tmp", "emptyDir": {}}],
    "containers": [CONTAINER],
}


def pod(**changes: Any) -> dict[str, Any]:
    return POD | changes


def container(**context: Any) -> dict[str, Any]:
    return pod(containers=[CONTAINER | {"securityContext": CONTAINER["securityContext"] | context}])


def test_a_pod_that_keeps_the_rules_has_no_violation() -> None:
    assert violations(POD) == []


@pytest.mark.parametrize(
    ("spec", "violation"),
    [
        (pod(hostNetwork=True), "hostNetwork is true"),
        (pod(volumes=[{"name": "node", "hostPath": {"path": "/"}}]), "volume node is a hostPath"),
        (pod(securityContext=POD["securityContext"] | {"sysctls": [{}]}), "sysctls are set"),
        (pod(securityContext={"seccompProfile": {"type": "RuntimeDefault"}}), "one: runAsNonRoot is not true"),
        (pod(securityContext={"runAsNonRoot": True}), "one: seccompProfile is neither RuntimeDefault nor Localhost"),
        (container(privileged=True), "one: privileged is true"),
        (container(allowPrivilegeEscalation=True), "one: allowPrivilegeEscalation is not false"),
        (container(capabilities={}), "one: capabilities do not drop ALL"),
        (container(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}), "one: capabilities are added"),
        (container(procMount="Unmasked"), "one: procMount is not Default"),
        (container(runAsNonRoot=False), "one: runAsNonRoot is not true"),
        (container(runAsUser=0), "one: runAsUser is 0"),
        (pod(containers=[CONTAINER | {"ports": [{"hostPort": 80}]}]), "one: a hostPort is set"),
        (pod(initContainers=[CONTAINER | {"securityContext": {"capabilities": {"drop": ["ALL"]}}}]),
         "one: allowPrivilegeEscalation is not false"),
    ],
)  # fmt: skip
def test_a_pod_that_breaks_one_has_it_named(spec: dict[str, Any], violation: str) -> None:
    assert violations(spec) == [violation]
