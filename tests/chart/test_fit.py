"""Values that fit the chart to a cluster with rules of its own: labels, accounts, users, a proxy, a private CA, and
so on. Each test compares the objects with those of the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from controller.jobs import manifests
from controller.jobs.state import Stage
from imgsearch.settings import RunSettings, Settings
from tests.chart.helm import CHART, RELEASE, Helm, Object, Objects
from tests.chart.test_network import open_ports_outside

COMPONENTS = ("plan", "embed", "ingest", "evaluate", "controller", "searcher", "chroma")
CA = {"name": "ca-bundle", "mountPath": "/etc/imgsearch/ca", "readOnly": True}
SMB = {"driver": "smb.csi.k8s.io", "volumeAttributes": {"source": "//nas/photos", "secretName": "nas-login"}}
NO_PROXY = (
    "team-chroma,team-searcher,.svc,.cluster.local,$(KUBERNETES_SERVICE_HOST),localhost,127.0.0.1,::1,"
    "metadata.google.internal,169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::23,fd00:ec2::254,fd20:ce::254"
)


def changed(chart: Objects, default: Objects) -> list[str]:
    """The objects that differ from those of the defaults, as `Kind/name`."""

    def by_name(objects: Objects) -> dict[str, Object]:
        return {f"{manifest['kind']}/{manifest['metadata']['name']}": manifest for manifest in objects.manifests}

    old, new = by_name(default), by_name(chart)
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def image(chart: Objects, component: str) -> str:
    return str(chart.pod(component).spec["containers"][0]["image"])


def test_a_digest_replaces_the_tag(helm: Helm) -> None:
    digest = f"sha256:{'0a' * 32}"
    chart = helm.template(
        {"images": {"searcher": {"repository": "registry.example.com/s", "tag": "1", "digest": digest}}}
    )
    assert image(chart, "searcher") == image(chart, "ingest") == f"registry.example.com/s@{digest}"
    assert image(chart, "embed") == "imgsearch-embedder:0.1.0"


def test_common_labels_are_on_all_objects_and_pods_but_in_no_selector(helm: Helm, default: Objects) -> None:
    chart = helm.template({"commonLabels": {"team": "search"}})
    assert {manifest["metadata"]["labels"]["team"] for manifest in chart.manifests} == {"search"}
    assert {pod.labels["team"] for pod in chart.pods()} == {"search"}
    for kind, name in (("Deployment", "searcher"), ("StatefulSet", "chroma"), ("Service", "chroma")):
        selector = chart.named(kind, name)["spec"]["selector"]
        assert selector == default.named(kind, name)["spec"]["selector"]


def test_a_label_of_a_component_replaces_a_common_one(helm: Helm) -> None:
    values = {
        "commonLabels": {"team": "search", "tier": "all", "release": "all"},
        "storage": {"workloadIdentity": {"podLabels": {"tier": "worker"}}},
        "embed": {"podLabels": {"team": "gpu"}},
        "monitoring": {"enabled": True, "labels": {"release": "prometheus"}},
    }
    chart = helm.template(values)
    assert {pod.component: (pod.labels["team"], pod.labels["tier"]) for pod in chart.pods()} == {
        **{component: ("search", "worker") for component in ("plan", "ingest", "evaluate", "searcher")},
        "embed": ("gpu", "worker"),
        **{component: ("search", "all") for component in ("controller", "chroma", "test")},
    }
    assert chart.named("ServiceMonitor", "searcher")["metadata"]["labels"]["release"] == "prometheus"
    assert chart.named("Deployment", "searcher")["metadata"]["labels"]["release"] == "all"


def test_a_label_without_a_value_replaces_a_common_one(helm: Helm) -> None:
    values = {
        "commonLabels": {"team": "search", "tier": "all"},
        "storage": {"workloadIdentity": {"podLabels": {"tier": ""}}},
        "embed": {"podLabels": {"team": ""}},
        "monitoring": {"enabled": True, "labels": {"team": ""}, "dashboardLabels": {"team": ""}},
    }
    chart = helm.template(values)
    assert (chart.pod("embed").labels["team"], chart.pod("embed").labels["tier"]) == ("", "")
    assert (chart.pod("plan").labels["team"], chart.pod("plan").labels["tier"]) == ("search", "")
    assert chart.named("PodMonitor", "pipeline")["metadata"]["labels"]["team"] == ""
    assert chart.named("ConfigMap", "dashboard")["metadata"]["labels"]["team"] == ""


@pytest.mark.parametrize("name", ["a", "Team_1.x", "example.com/team", "a/b", "x-1.example.com/" + "a" * 63])
def test_a_label_has_any_name_that_kubernetes_accepts(helm: Helm, name: str) -> None:
    assert helm.template({"commonLabels": {name: "a"}}).named("Service", "searcher")["metadata"]["labels"][name] == "a"


def test_existing_accounts_are_used_and_not_made(helm: Helm) -> None:
    accounts = {"worker": "2024", "controller": "deployer", "chroma": "vectors"}
    chart = helm.template({"existingServiceAccounts": accounts, "controller": {"clusterRole": True}})
    assert chart.of("ServiceAccount") == []
    assert {pod.component: pod.spec["serviceAccountName"] for pod in chart.pods()} == {
        **{component: "2024" for component in ("plan", "embed", "ingest", "evaluate", "searcher", "test")},
        "controller": "deployer",
        "chroma": "vectors",
    }
    subject = {"kind": "ServiceAccount", "name": "deployer", "namespace": "search"}
    for binding in (*chart.of("RoleBinding"), *chart.of("ClusterRoleBinding")):
        assert binding["subjects"] == [subject]
    # A pod of the controller gets its token from the pod, whatever the account has.
    tokens = {pod.component for pod in chart.pods() if pod.spec["automountServiceAccountToken"]}
    assert tokens == {"controller"}


def test_openshift_chooses_the_user_where_the_values_have_none(helm: Helm) -> None:
    chart = helm.template({"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}})
    for pod in chart.pods():
        assert pod.spec["securityContext"] == {
            "runAsNonRoot": True,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }


def test_the_files_of_a_nas_are_read_as_its_user_and_groups(helm: Helm) -> None:
    values = {
        "podSecurityContext": {"runAsUser": 1_000_650_000, "supplementalGroups": [65534, 2000]},
        "containerSecurityContext": {"seLinuxOptions": {"level": "s0:c1,c2"}},
    }
    for pod in helm.template(values).pods():
        assert pod.spec["securityContext"]["runAsUser"] == 1_000_650_000
        assert pod.spec["securityContext"]["runAsGroup"] == 10001
        assert pod.spec["securityContext"]["supplementalGroups"] == [65534, 2000]
        for container in pod.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
                "seLinuxOptions": {"level": "s0:c1,c2"},
            }


@pytest.mark.parametrize(
    ("source", "volume"),
    [
        ({"existingClaim": "a"}, {"persistentVolumeClaim": {"claimName": "a", "readOnly": True}}),
        (
            {"nfs": {"server": "nas.example.com", "path": "/photos"}},
            {"nfs": {"server": "nas.example.com", "path": "/photos", "readOnly": True}},
        ),
        ({"csi": SMB}, {"csi": {**SMB, "readOnly": True}}),
        ({"hostPath": {"path": "/mnt/photos"}}, {"hostPath": {"path": "/mnt/photos"}}),
    ],
    ids=["claim", "nfs", "csi", "host-path"],
)
def test_a_source_is_any_volume_mounted_read_only(
    helm: Helm, default: Objects, source: Mapping[str, Any], volume: Mapping[str, Any]
) -> None:
    chart = helm.template({"sources": [{"name": "photos", **source, "subPath": "2024"}]})
    for component in ("plan", "embed", "evaluate", "searcher"):
        pod = chart.pod(component)
        assert pod.spec["volumes"][-1] == {"name": "source-photos", **volume}
        for container in pod.containers:
            assert container["volumeMounts"][-1] == {
                "name": "source-photos",
                "mountPath": "/sources/photos",
                "readOnly": True,
                "subPath": "2024",
            }
    # The kubelet mounts it, so no policy changes.
    assert chart.of("NetworkPolicy") == default.of("NetworkPolicy")


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_has_more_labels_variables_and_volumes(helm: Helm, default: Objects, component: str) -> None:
    region = {"name": "REGION", "valueFrom": {"configMapKeyRef": {"name": "site", "key": "region"}}}
    volume = {"name": "extra", "configMap": {"name": "site"}}
    mount = {"name": "extra", "mountPath": "/extra"}
    extra = {
        "podLabels": {"tier": "a"},
        "extraEnv": [{"name": "HOME", "value": "/extra"}, region, {"name": "EMPTY", "value": ""}],
        "extraVolumes": [volume],
        "extraVolumeMounts": [{**mount, "readOnly": False}],
    }
    chart = helm.template({component: extra})
    pod, before = chart.pod(component), default.pod(component)
    assert pod.labels == {**before.labels, "tier": "a"}
    assert [entry for entry in pod.spec["volumes"] if entry not in before.spec["volumes"]] == [volume]
    for container, old in zip(pod.containers, before.containers, strict=True):
        kept = [entry for entry in old["env"] if entry["name"] != "HOME"]
        assert container["env"] == [*kept, {"name": "HOME", "value": "/extra"}, region, {"name": "EMPTY"}]
        assert [entry for entry in container["volumeMounts"] if entry not in old["volumeMounts"]] == [mount]
    assert {other.component for other in chart.pods() if other.labels.get("tier")} == {component}
    assert len(changed(chart, default)) == 1


def test_the_service_has_its_type_and_annotations(helm: Helm, default: Objects) -> None:
    annotations = {"service.beta.kubernetes.io/aws-load-balancer-scheme": "internal"}
    chart = helm.template({"searcher": {"service": {"type": "LoadBalancer", "annotations": annotations}}})
    service = chart.named("Service", "searcher")
    assert (service["spec"]["type"], service["metadata"]["annotations"]) == ("LoadBalancer", annotations)
    assert default.named("Service", "searcher")["spec"]["type"] == "ClusterIP"
    assert changed(chart, default) == ["Service/team-searcher"]


@pytest.mark.parametrize("policy", ["Cluster", "Local"])
def test_the_service_has_a_traffic_policy_if_one_is_set(helm: Helm, default: Objects, policy: str) -> None:
    service = {"type": "LoadBalancer", "externalTrafficPolicy": policy}
    spec = helm.template({"searcher": {"service": service}}).named("Service", "searcher")["spec"]
    assert spec == {**default.named("Service", "searcher")["spec"], **service}
    assert "externalTrafficPolicy" not in default.named("Service", "searcher")["spec"]


def test_a_setting_of_the_hub_may_have_token_in_its_name(helm: Helm) -> None:
    variable = {"name": "HF_HUB_DISABLE_IMPLICIT_TOKEN", "value": "1"}
    assert helm.template({"embed": {"extraEnv": [variable]}}).env("embed")[variable["name"]] == "1"


def test_a_variable_with_an_empty_value_may_have_a_source(helm: Helm) -> None:
    source = {"fieldRef": {"fieldPath": "spec.nodeName"}}
    variable = {"name": "NODE", "value": "", "valueFrom": source}
    assert helm.template({"embed": {"extraEnv": [variable]}}).env("embed")["NODE"] == source


@pytest.mark.parametrize("host", ["*.example.com", "a.example.com"])
def test_the_host_of_the_ingress_may_be_a_wildcard(helm: Helm, host: str) -> None:
    chart = helm.template({"searcher": {"ingress": {"enabled": True, "host": host}}})
    assert [rule["host"] for rule in chart.named("Ingress", "searcher")["spec"]["rules"]] == [host]


def test_the_proxy_has_any_port(helm: Helm) -> None:
    chart = helm.template({"proxy": {"http": "http://proxy:1", "https": "http://proxy:65535"}})
    assert {"port": 65535, "protocol": "TCP"} in chart.named("NetworkPolicy", "embed")["spec"]["egress"][1]["ports"]


def test_the_ingress_has_each_host_with_each_path(helm: Helm) -> None:
    ingress = {
        "enabled": True,
        "host": "a.example.com",
        "extraHosts": [{"host": "*.example.org", "existingSecret": "org-tls"}],
        "paths": [{"path": "/v1", "pathType": "Exact"}, {"path": "/*", "pathType": "ImplementationSpecific"}],
    }
    spec = helm.template({"searcher": {"ingress": ingress}}).named("Ingress", "searcher")["spec"]
    service = {"service": {"name": f"{RELEASE}-searcher", "port": {"name": "http"}}}
    paths = [
        {"path": "/v1", "pathType": "Exact", "backend": service},
        {"path": "/*", "pathType": "ImplementationSpecific", "backend": service},
    ]
    assert spec["rules"] == [{"host": host, "http": {"paths": paths}} for host in ("a.example.com", "*.example.org")]
    assert spec["tls"] == [{"hosts": ["*.example.org"], "secretName": "org-tls"}]


@pytest.mark.parametrize(
    ("values", "strategy"),
    [
        (
            {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": "25%"}},
            {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": "25%"}},
        ),
        ({"type": "Recreate"}, {"type": "Recreate"}),
    ],
)
def test_the_strategy_of_the_deployment(helm: Helm, values: Mapping[str, Any], strategy: Mapping[str, Any]) -> None:
    chart = helm.template({"searcher": {"strategy": values}})
    assert chart.named("Deployment", "searcher")["spec"]["strategy"] == strategy


def test_on_ipv6_all_listeners_accept_both_families(helm: Helm, default: Objects) -> None:
    chart = helm.template({"listenAddress": "::"})
    assert chart.env("searcher")["IMGSEARCH_SEARCH_HOST"] == "::"
    (chroma,) = chart.pod("chroma").containers
    assert chroma["args"] == ["run", "--host", "::", "--port", "8000", "--path", "/data"]
    # The metrics ports need no value: tests/imgsearch/test_metrics.py.
    assert changed(chart, default) == ["Deployment/team-searcher", "StatefulSet/team-chroma"]


@pytest.mark.parametrize(
    ("values", "source"),
    [
        ({"existingConfigMap": "team-ca", "key": "ca.pem"}, {"configMap": {"name": "team-ca"}}),
        ({"existingSecret": "team-ca", "key": "ca.pem"}, {"secret": {"secretName": "team-ca"}}),
    ],
    ids=["config-map", "secret"],
)
def test_every_container_trusts_a_private_ca(helm: Helm, values: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    chart = helm.template({"caBundle": values})
    for pod in chart.pods():
        assert {"name": "ca-bundle", **source} in pod.spec["volumes"], pod.owner
        for container in pod.containers:
            assert {"name": "SSL_CERT_FILE", "value": "/etc/imgsearch/ca/ca.pem"} in container["env"]
            assert CA in container["volumeMounts"]


def test_every_container_has_the_proxy_and_its_exceptions(helm: Helm) -> None:
    proxy = {"http": "http://proxy:3128", "https": "http://proxy:3129/", "noProxy": ["minio.storage"]}
    for pod in helm.template({"proxy": proxy}).pods():
        for container in pod.containers:
            env = {entry["name"]: entry.get("value") for entry in container["env"] if "PROXY" in entry["name"]}
            assert env == {
                "HTTP_PROXY": "http://proxy:3128",
                "HTTPS_PROXY": "http://proxy:3129/",
                "NO_PROXY": f"{NO_PROXY},minio.storage",
            }


def test_exceptions_alone_are_no_proxy(helm: Helm, default: Objects) -> None:
    assert changed(helm.template({"proxy": {"noProxy": ["minio.storage"]}}), default) == []


def test_who_leaves_the_cluster_reaches_the_proxy(helm: Helm) -> None:
    proxy = {"http": "http://proxy:9000", "https": "http://proxy:8000"}
    values = {"proxy": proxy, "networkPolicy": {"egressPorts": [22]}, "store": {"url": "chroma+https://vectors"}}
    assert open_ports_outside(helm.template(values)) == {
        **{component: {22, 8000, 9000} for component in ("plan", "embed")},
        **{component: {22, 443, 8000, 9000} for component in ("searcher", "evaluate")},
        "ingest": {443, 8000, 9000},  # its runs are on a volume
        "controller": {443, 6443},
        "test": set(),
    }


def test_a_proxy_on_an_open_port_adds_no_port(helm: Helm, default: Objects) -> None:
    chart = helm.template({"proxy": {"https": "http://proxy:443"}})
    assert chart.of("NetworkPolicy") == default.of("NetworkPolicy")


def test_the_pod_of_helm_test_has_resources_labels_and_annotations(helm: Helm, default: Objects) -> None:
    resources = {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}}
    values = {"resources": resources, "podAnnotations": {"note": "here"}, "podLabels": {"team": ""}}
    chart = helm.template({"test": values})
    pod = chart.named("Pod", "test")
    assert pod["metadata"]["labels"] == default.named("Pod", "test")["metadata"]["labels"] | {"team": ""}
    assert pod["spec"]["containers"][0]["resources"] == resources
    assert pod["metadata"]["annotations"] == default.named("Pod", "test")["metadata"]["annotations"] | {"note": "here"}
    assert changed(chart, default) == ["Pod/team-test"]


def test_the_jobs_of_a_run_have_all_of_it(everything: Objects) -> None:
    template = everything.named("PodTemplate", "embed")["template"]
    settings = Settings(run=RunSettings(id="r1", index="photos"))
    job = manifests.job(Stage.EMBED, settings, template, release=RELEASE, completions=1, parallelism=1)
    assert job["metadata"]["labels"]["team"] == "search"
    spec = job["spec"]["template"]["spec"]
    assert (spec["serviceAccountName"], spec["securityContext"]) == (
        f"{RELEASE}-worker",
        template["spec"]["securityContext"],
    )
    env = spec["containers"][0]["env"]
    assert env[: len(template["spec"]["containers"][0]["env"])] == template["spec"]["containers"][0]["env"]
    names = [variable["name"] for variable in env]
    assert names.index("SCRATCH") < names.index("CACHE")  # whose value refers to it
    assert names[-2:] == ["IMGSEARCH_RUN_ID", "IMGSEARCH_RUN_INDEX"]


def test_the_values_of_ci_have_each_of_these_values() -> None:
    """So that the API server takes them too: tests/cluster/test_chart.py."""
    text = (CHART / "ci" / "everything-values.yaml").read_text()
    for name in (
        *("digest", "commonLabels", "podLabels", "existingServiceAccounts", "podSecurityContext", "csi", "service"),
        *("extraEnv", "extraVolumes", "extraVolumeMounts", "extraHosts", "paths", "strategy", "listenAddress"),
        *("proxy", "caBundle", "test"),
    ):
        assert f"{name}:" in text, name
