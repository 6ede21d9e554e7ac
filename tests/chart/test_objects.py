"""What holds for every object of the chart, whatever the values."""

from __future__ import annotations

from tests.chart.helm import NAMESPACE, RELEASE, Objects
from tests.chart.restricted import violations

PODS = {"plan", "embed", "ingest", "evaluate", "controller", "searcher", "test"}
DATA = {"storage", "models", "chroma"}
ADDED_LABELS = {"release", "grafana_dashboard", "team", "tier", "app.kubernetes.io/part-of"}
"""Labels that the values add: for Prometheus and Grafana, and those of ci/everything-values.yaml."""


def test_everything_is_called_after_the_release(chart: Objects) -> None:
    for manifest in chart.manifests:
        metadata = manifest["metadata"]
        assert metadata["name"].startswith(f"{RELEASE}-")
        if manifest["kind"].startswith("Cluster"):  # of no namespace, so its name says which
            metadata = {**metadata, "name": metadata["name"].removesuffix(f"-{NAMESPACE}")}
            assert metadata["name"] != manifest["metadata"]["name"]
        else:
            assert metadata["namespace"] == NAMESPACE
        assert {name: value for name, value in metadata["labels"].items() if name not in ADDED_LABELS} == {
            "helm.sh/chart": "imgsearch-0.1.0",
            "app.kubernetes.io/name": "imgsearch",
            "app.kubernetes.io/instance": RELEASE,
            "app.kubernetes.io/component": metadata["name"].removeprefix(f"{RELEASE}-"),
            "app.kubernetes.io/version": "0.1.0",
            "app.kubernetes.io/managed-by": "Helm",
        }


def test_there_is_one_object_of_a_kind_and_name(chart: Objects) -> None:
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in chart.manifests]
    assert sorted(names) == sorted(set(names))


def test_no_secret_is_made(chart: Objects) -> None:
    assert chart.of("Secret") == []


def test_every_component_has_its_pod(chart: Objects) -> None:
    assert {pod.component for pod in chart.pods()} - {"chroma"} == PODS


def test_every_pod_passes_pod_security_restricted(chart: Objects) -> None:
    assert {pod.owner: violations(pod.spec) for pod in chart.pods() if violations(pod.spec)} == {}


def test_every_pod_is_user_10001_and_writes_to_volumes_only(chart: Objects) -> None:
    for pod in chart.pods():
        context = dict(pod.spec["securityContext"])
        context.pop("supplementalGroups", None)  # of ci/everything-values.yaml
        assert context == {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        for container in pod.containers:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, (pod.owner, container["name"])


def test_only_the_controller_gets_a_token(chart: Objects) -> None:
    for account in chart.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    for pod in chart.pods():
        controls = pod.component == "controller"
        assert pod.spec["automountServiceAccountToken"] is controls


def test_each_pod_has_an_account_of_the_chart(default: Objects) -> None:
    for pod in default.pods():
        name = {"controller": "controller", "chroma": "chroma"}.get(pod.component, "worker")
        assert pod.spec["serviceAccountName"] == f"{RELEASE}-{name}"
        assert default.named("ServiceAccount", name)


def test_no_service_becomes_a_variable(chart: Objects) -> None:
    """A release called imgsearch would give IMGSEARCH_SEARCHER_PORT, which is no setting: no program would start."""
    assert {pod.spec["enableServiceLinks"] for pod in chart.pods()} == {False}


def test_every_container_says_what_it_needs_and_what_it_may_have_of_memory(chart: Objects) -> None:
    for pod in chart.pods():
        for container in pod.containers:
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), (pod.owner, container["name"])
            assert "memory" in resources["limits"], (pod.owner, container["name"])


def test_every_container_has_its_command(chart: Objects) -> None:
    commands = {
        f"{pod.component}/{container['name']}": container["command"]
        for pod in chart.pods()
        for container in pod.containers
    }
    assert commands.pop("test/test")[:2] == ["python", "-c"]
    assert commands.pop("chroma/chroma", ["chroma"]) == ["chroma"]
    assert commands == {
        "plan/model": ["python", "-m", "embedder", "model"],
        "plan/plan": ["python", "-m", "embedder", "plan"],
        "embed/embed": ["python", "-m", "embedder", "embed"],
        "ingest/ingest": ["python", "-m", "searcher", "ingest"],
        "evaluate/evaluate": ["python", "-m", "searcher", "evaluate"],
        "searcher/searcher": ["python", "-m", "searcher", "serve"],
        "controller/controller": ["controller"],
    }


def test_every_mount_has_its_volume_and_every_volume_its_mount(chart: Objects) -> None:
    for pod in chart.pods():
        volumes = {volume["name"] for volume in pod.spec.get("volumes", [])}
        for container in pod.containers:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} == volumes, pod.owner


def test_every_claim_of_a_pod_is_made_or_named_in_the_values(chart: Objects) -> None:
    charted = {claim["metadata"]["name"] for claim in chart.of("PersistentVolumeClaim")}
    used = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in chart.pods()
        for volume in pod.spec.get("volumes", [])
        if "persistentVolumeClaim" in volume and not volume["name"].startswith("source-")
    }
    assert charted <= used
    # Those of ci/external-store-values.yaml are called as the chart would call its own.
    assert used <= {f"{RELEASE}-{name}" for name in DATA}


def test_claims_outlive_the_release(chart: Objects) -> None:
    for claim in chart.of("PersistentVolumeClaim"):
        assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_selectors_choose_the_pods_of_their_component_alone(chart: Objects) -> None:
    for kind in ("Deployment", "StatefulSet", "Service", "PodDisruptionBudget"):
        for manifest in chart.of(kind):
            selector = manifest["spec"]["selector"]
            labels = selector if kind == "Service" else selector["matchLabels"]
            chosen = {pod.component for pod in chart.pods() if labels.items() <= pod.labels.items()}
            assert chosen == {manifest["metadata"]["labels"]["app.kubernetes.io/component"]}


def test_what_points_to_the_searcher_finds_it(everything: Objects) -> None:
    path = everything.named("Ingress", "searcher")["spec"]["rules"][0]["http"]["paths"][0]
    (backend,) = everything.named("HTTPRoute", "searcher")["spec"]["rules"][0]["backendRefs"]
    service = everything.named("Service", "searcher")
    (port,) = service["spec"]["ports"]
    assert path["backend"]["service"] == {"name": service["metadata"]["name"], "port": {"name": port["name"]}}
    assert backend == {
        "group": "",
        "kind": "Service",
        "name": service["metadata"]["name"],
        "port": port["port"],
        "weight": 1,
    }
    container = everything.pod("searcher").spec["containers"][0]
    assert {"name": port["targetPort"], "containerPort": 8000} in container["ports"]
    scaled = everything.named("HorizontalPodAutoscaler", "searcher")["spec"]["scaleTargetRef"]
    assert scaled["name"] == everything.named("Deployment", "searcher")["metadata"]["name"]
