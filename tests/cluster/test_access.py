"""Who may do what: Chroma's and the searcher's doors, and the controller's account."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from tests.cluster.conftest import CLIENT
from tests.cluster.load import EGRESS, pod
from tests.cluster.world import COMPONENT, INSTANCE, NAME, RELEASE, World, wait_until

KNOCK = """
import socket, sys, time
host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
given_up = time.monotonic() + seconds  # a network plugin takes a while to know a new pod
while True:
    try:
        socket.create_connection((host, port), timeout=5)
        break
    except OSError:
        if time.monotonic() > given_up:
            raise
        time.sleep(0.5)
"""


def test_only_the_searcher_and_ingest_reach_chroma(world: World) -> None:
    world.apply(EGRESS)
    assert reaches(world, "friend", {NAME: "imgsearch", INSTANCE: RELEASE, COMPONENT: "ingest"}, seconds=90)
    assert not reaches(world, "stranger", {"app": "load"}, seconds=20)


def test_the_searcher_wants_its_key(world: World, values: dict[str, Any]) -> None:
    key = secrets.token_urlsafe()
    digest = hashlib.sha256(key.encode()).hexdigest()
    world.kubectl("create", "secret", "generic", "door", f"--from-literal=api-keys=team:{digest}")
    world.install({**values, "searcher": {**values["searcher"], "apiKeys": {"existingSecret": "door"}}})
    try:
        with world.searcher() as client:
            response = client.post("/v1/search", json={"text": "a cat"})
            assert response.status_code == 401
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["www-authenticate"].startswith("Bearer")
            assert client.get("/readyz").status_code == 200
        with world.searcher(key) as client:
            assert client.post("/v1/search", json={"text": "a cat", "index": "photos"}).status_code in (200, 404)
    finally:
        world.install(values)


def test_the_controllers_account_may_do_its_work_and_nothing_else(world: World) -> None:
    assert is_allowed(world, "create", "jobs.batch")
    assert is_allowed(world, "get", "pods", "--subresource=log")
    assert is_allowed(world, "get", f"podtemplates/{RELEASE}-embed")
    for verb, resource in (
        ("get", "secrets"),
        ("list", "secrets"),
        ("create", "pods"),
        ("create", "deployments.apps"),
        ("get", "podtemplates/another"),
        ("get", "configmaps/another"),
    ):
        assert not is_allowed(world, verb, resource), f"{verb} {resource}"
    for verb, resource in (("list", "jobs.batch"), ("create", "jobs.batch"), ("list", "pods")):
        assert not is_allowed(world, verb, resource, namespace="default"), f"{verb} {resource} in another namespace"


def is_allowed(world: World, verb: str, resource: str, *arguments: str, namespace: str | None = None) -> bool:
    account = f"system:serviceaccount:{world.namespace}:{RELEASE}-controller"
    namespace_option = ["--namespace", namespace] if namespace else []
    answer = world.kubectl("auth", "can-i", verb, resource, "--as", account, *arguments, *namespace_option, check=False)
    return answer.strip().startswith("yes")


def reaches(world: World, name: str, labels: dict[str, str], *, seconds: int) -> bool:
    """Whether a pod with these labels gets through to Chroma, tried for so long."""
    command = ["python", "-c", KNOCK, f"{RELEASE}-chroma", "8000", str(seconds)]
    world.apply(pod(name, CLIENT, command, labels=labels))
    try:
        phase = wait_until(lambda: _phase(world, name), f"pod {name} has ended")
        return phase == "Succeeded"
    finally:
        world.kubectl("delete", "pod", name)


def _phase(world: World, name: str) -> str | None:
    phase = world.get("pod", name)["status"]["phase"]
    return phase if phase in ("Succeeded", "Failed") else None
