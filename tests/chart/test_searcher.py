"""The searcher and Chroma: what serves, how it is watched, and how it scales and goes."""

from __future__ import annotations

from typing import Any

from imgsearch.settings import SearchSettings, Settings
from tests.chart.helm import Helm, Objects

INGRESS = {"enabled": True, "host": "a.example.com"}


def searcher(chart: Objects) -> dict[str, Any]:
    return chart.named("Deployment", "searcher")["spec"]  # type: ignore[no-any-return]


def settings(chart: Objects) -> SearchSettings:
    env = {name: value for name, value in chart.env("searcher").items() if isinstance(value, str)}
    return Settings.from_env(env).search


def test_the_searcher_has_the_settings_of_the_values(default: Objects, everything: Objects) -> None:
    assert settings(default) == SearchSettings(host="0.0.0.0", linger_seconds=5)
    assert settings(everything) == SearchSettings(
        host="::",
        max_k=500,
        max_body_bytes=50_000_000,
        checked_share=0.1,
        refresh_seconds=0.5,
        linger_seconds=5,
        drain_seconds=30,
        trusted_proxies="10.1.0.0/16,fd00::7",
        root_path="/photos",
    )


def test_the_searcher_and_the_pipeline_work_on_the_same(chart: Objects) -> None:
    pipeline = chart.named("ConfigMap", "pipeline")["data"]
    env = chart.env("searcher")
    for name in ("IMGSEARCH_STORAGE_URI", "IMGSEARCH_STORE_URL", "IMGSEARCH_LOG_LEVEL"):
        assert env[name] == pipeline[name]


def test_the_api_keys_come_from_their_secret(default: Objects, everything: Objects) -> None:
    reference = {"secretKeyRef": {"name": "search-keys", "key": "api-keys"}}
    assert everything.env("searcher")["IMGSEARCH_SEARCH_API_KEYS"] == reference
    assert "IMGSEARCH_SEARCH_API_KEYS" not in default.env("searcher")


def test_settings_may_be_words(helm: Helm) -> None:
    values = {
        "rateLimit": "20/second",
        "corsOrigins": "https://a.example.com,https://b.example.com",
        "urlAllow": "*.a&b",
    }
    chart = helm.template({"searcher": {"settings": values}})
    limits = settings(chart)
    assert (limits.rate_limit, limits.cors_origins, limits.url_allow) == tuple(values.values())


def test_there_is_time_to_linger_and_to_drain(chart: Objects) -> None:
    limits = settings(chart)
    grace = searcher(chart)["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace == limits.linger_seconds + limits.drain_seconds + 10


def test_a_rollout_takes_no_pod_away_before_its_successor_is_ready(default: Objects) -> None:
    strategy = searcher(default)["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def test_the_searchers_probes_mean_something(default: Objects) -> None:
    (container,) = searcher(default)["template"]["spec"]["containers"]
    paths = {
        name: container[f"{name}Probe"]["httpGet"] | {"port": None} for name in ("startup", "liveness", "readiness")
    }
    assert {name: get["path"] for name, get in paths.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 300


def test_an_autoscaled_deployment_has_no_replicas_of_its_own(default: Objects, everything: Objects) -> None:
    assert searcher(default)["replicas"] == 1
    assert default.of("HorizontalPodAutoscaler") == []
    assert "replicas" not in searcher(everything)
    scaler = everything.named("HorizontalPodAutoscaler", "searcher")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 8)
    assert [metric["type"] for metric in scaler["metrics"]] == ["Resource", "Pods"]
    assert scaler["metrics"][0]["resource"]["target"]["averageUtilization"] == 60
    assert scaler["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 120


def test_a_disruption_budget_is_for_more_than_one_pod(helm: Helm, default: Objects, external_store: Objects) -> None:
    assert default.of("PodDisruptionBudget") == []
    assert external_store.named("PodDisruptionBudget", "searcher")["spec"]["maxUnavailable"] == 1
    disabled = helm.template({"searcher": {"replicas": 3, "pdb": {"enabled": False}}})
    assert disabled.of("PodDisruptionBudget") == []
    scaled = helm.template({"searcher": {"autoscaling": {"enabled": True, "maxReplicas": 1}}})
    assert scaled.of("PodDisruptionBudget") == []


def test_pods_are_spread_where_possible(helm: Helm, default: Objects) -> None:
    spread = searcher(default)["template"]["spec"]["topologySpreadConstraints"]
    assert [constraint["topologyKey"] for constraint in spread] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    assert {constraint["whenUnsatisfiable"] for constraint in spread} == {"ScheduleAnyway"}
    unspread = helm.template({"searcher": {"topologyKeys": []}})
    assert "topologySpreadConstraints" not in searcher(unspread)["template"]["spec"]


def test_tls_is_the_secret_of_the_host(everything: Objects, helm: Helm) -> None:
    spec = everything.named("Ingress", "searcher")["spec"]
    assert spec["tls"] == [
        {"hosts": ["search.example.com"], "secretName": "search-tls"},
        {"hosts": ["photos.example.com"], "secretName": "photos-tls"},
    ]
    without_tls = helm.template({"searcher": {"ingress": {"enabled": True, "host": "a.example.com"}}})
    assert "tls" not in without_tls.named("Ingress", "searcher")["spec"]


def test_a_root_path_is_that_of_the_ingress_and_the_route(helm: Helm, everything: Objects) -> None:
    env = {entry["name"]: entry.get("value") for entry in everything.pod("searcher").spec["containers"][0]["env"]}
    assert env["IMGSEARCH_SEARCH_ROOT_PATH"] == "/photos"
    assert env["IMGSEARCH_SEARCH_TRUSTED_PROXIES"] == "10.1.0.0/16,fd00::7"
    below = helm.template({"searcher": {"ingress": INGRESS, "settings": {"rootPath": "/photos"}}})
    (path,) = below.named("Ingress", "searcher")["spec"]["rules"][0]["http"]["paths"]
    assert (path["path"], path["pathType"]) == ("/photos", "Prefix")
    (rule,) = everything.named("HTTPRoute", "searcher")["spec"]["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/photos"}}]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):  # the kubelet needs no proxy
        assert everything.pod("searcher").spec["containers"][0][probe]["httpGet"]["path"] in ("/healthz", "/readyz")
    without = helm.template(
        {
            "searcher": {
                "ingress": INGRESS,
                "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
            }
        }
    )
    (path,) = without.named("Ingress", "searcher")["spec"]["rules"][0]["http"]["paths"]
    assert path["path"] == "/"
    (rule,) = without.named("HTTPRoute", "searcher")["spec"]["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]


def test_the_parent_of_a_route_may_have_the_core_group(helm: Helm) -> None:
    parents = [{"group": "", "kind": "Service", "name": "front"}, {"name": "public"}]
    chart = helm.template({"searcher": {"httpRoute": {"enabled": True, "parentRefs": parents}}})
    assert chart.named("HTTPRoute", "searcher")["spec"]["parentRefs"] == [
        {"group": "", "kind": "Service", "name": "front"},
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public"},
    ]


def test_chroma_is_one_writer_on_one_volume(default: Objects) -> None:
    chroma = default.named("StatefulSet", "chroma")["spec"]
    assert chroma["replicas"] == 1
    assert "volumeClaimTemplates" not in chroma
    (container,) = chroma["template"]["spec"]["containers"]
    assert [*container["command"], *container["args"]] == [
        *("chroma", "run", "--host", "0.0.0.0", "--port", "8000", "--path", "/data"),
    ]
    claim = default.named("PersistentVolumeClaim", "chroma")["spec"]
    assert claim == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}}
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")}
    assert probes["liveness"] == "/api/v2/heartbeat"
    assert probes["readiness"].endswith("/collections_count")


def test_an_upgrade_restarts_only_what_it_changes(helm: Helm, default: Objects) -> None:
    """Chroma above all: while it starts, nobody can search."""
    changed = helm.template({"searcher": {"settings": {"maxK": 300}}, "pipeline": {"retries": 1}})
    assert changed.named("StatefulSet", "chroma") == default.named("StatefulSet", "chroma")
    assert changed.named("Deployment", "searcher") != default.named("Deployment", "searcher")
    retried = helm.template({"pipeline": {"retries": 1}})
    assert retried.named("Deployment", "searcher") == default.named("Deployment", "searcher")
