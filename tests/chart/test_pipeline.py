"""What the controller reads of a release: the ConfigMap, the PodTemplates, and what it may do."""

from __future__ import annotations

from typing import Any

import pytest

from controller.gpus.accelerators import Kind
from controller.gpus.affinity import placed
from controller.gpus.nodes import NodeMatch
from controller.jobs.state import Stage
from imgsearch.settings import (
    EmbedSettings,
    IndexSettings,
    JobSettings,
    LogSettings,
    RunSettings,
    Settings,
    StorageSettings,
    StoreSettings,
)
from tests.chart.helm import RELEASE, Helm, Objects

SPOT = {
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
}


def settings(chart: Objects) -> Settings:
    """As the controller reads them; a variable that is no setting is an error."""
    return Settings.from_env(chart.named("ConfigMap", "pipeline")["data"])


def test_the_config_map_is_settings_and_nothing_else(chart: Objects) -> None:
    assert settings(chart).run.model


def test_the_defaults_are_those_of_the_programs(default: Objects) -> None:
    assert settings(default) == Settings(
        run=RunSettings(model="ViT-B-32/laion2b_s34b_b79k"),
        storage=StorageSettings(uri="file:///storage"),
        store=StoreSettings(url=f"chroma+http://{RELEASE}-chroma:8000"),
        jobs=JobSettings(store_memory=4 * 2**30),
    )


def test_each_value_reaches_its_setting(everything: Objects) -> None:
    assert settings(everything) == Settings(
        run=RunSettings(model="ViT-L-14/laion2b_s32b_b82k", shard_images=20_000, part_images=1_000),
        index=IndexSettings(recall=0.95),
        storage=StorageSettings(uri="s3://team-images/imgsearch"),
        store=StoreSettings(url=f"chroma+http://{RELEASE}-chroma:8000"),
        embed=EmbedSettings(batch_images=256, max_pixels=100_000_000, thumbnail_px=320),
        jobs=JobSettings(
            parallelism=4,
            retries=5,
            deadline_seconds=86_400,
            ttl_seconds=None,
            autoscaler="gke",
            capacity_seconds=7_200,
            queue="gpus",
            gpu_hour_price=0.7,
            store_memory=16 * 2**30,
        ),
        log=LogSettings(level="DEBUG"),
    )


@pytest.mark.parametrize(
    ("resources", "memory"), [({"limits": None}, None), ({"limits": {"memory": 2e10}}, 2 * 10**10)]
)
def test_the_memory_of_the_charts_own_store_is_its_limit(
    helm: Helm, resources: dict[str, Any], memory: int | None
) -> None:
    assert settings(helm.template({"chroma": {"resources": resources}})).jobs.store_memory == memory


def test_a_store_elsewhere_takes_the_place_of_the_charts_own(external_store: Objects) -> None:
    url = "chroma+https://chroma.vectors.example.com"
    assert settings(external_store).store.url == url
    assert settings(external_store).jobs.store_memory == 64 * 2**30
    assert external_store.env("searcher")["IMGSEARCH_STORE_URL"] == url
    assert not [manifest for manifest in external_store.manifests if "chroma" in manifest["metadata"]["name"]]


def test_there_is_a_pod_template_for_each_stage_the_controller_and_evaluations(chart: Objects) -> None:
    templates = {manifest["metadata"]["name"]: manifest["template"] for manifest in chart.of("PodTemplate")}
    stages = [*map(str, Stage), "controller", "evaluate"]
    assert sorted(templates) == sorted(f"{RELEASE}-{stage}" for stage in stages)
    for stage in stages:
        template = templates[f"{RELEASE}-{stage}"]
        assert template["metadata"]["labels"]["app.kubernetes.io/component"] == stage
        assert template["spec"]["containers"][0]["name"] == stage
        assert template["spec"]["restartPolicy"] == "Never"


def test_what_a_template_sets_is_no_setting_of_a_run(chart: Objects) -> None:
    """The run's own come from the controller, which would overwrite them."""
    for stage in (*map(str, Stage), "controller"):
        env = chart.env(stage)
        variables = {name: value for name, value in env.items() if name.startswith("IMGSEARCH_")}
        assert Settings.from_env(variables).metrics.port == (None if stage == "plan" else 9090)
        assert env["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        assert env["HOME"] == env["TMPDIR"] == "/tmp"


def test_what_loads_models_shares_their_volume(chart: Objects) -> None:
    for component in ("plan", "embed", "searcher", "evaluate"):
        assert chart.env(component)["HF_HOME"] == "/models/hub"
        for container in chart.pod(component).containers:
            assert {"name": "models", "mountPath": "/models"} in container["volumeMounts"]
    assert "HF_HOME" not in chart.env("ingest") | chart.env("controller")


def test_runs_are_on_the_volume_where_no_bucket_is_named(default: Objects) -> None:
    writes = {
        pod.component: "readOnly" not in mount
        for pod in default.pods()
        for mount in pod.spec["containers"][0].get("volumeMounts", [])
        if mount["mountPath"] == "/storage"
    }
    assert writes == {"plan": True, "embed": True, "ingest": True, "evaluate": False, "searcher": False}


def test_a_bucket_is_reached_by_a_secret_and_variables(everything: Objects) -> None:
    for component in ("plan", "embed", "ingest", "evaluate", "searcher"):
        pod = everything.pod(component)
        assert "storage" not in [volume["name"] for volume in pod.spec["volumes"]]
        assert pod.labels["azure.workload.identity/use"] == "true"
        for container in pod.containers:
            assert container["envFrom"] == [{"secretRef": {"name": "team-bucket"}}]
            assert {"name": "AWS_ALLOW_HTTP", "value": "true"} in container["env"]
        if component != "searcher":  # where extraEnv replaces it
            assert pod.env["AWS_REGION"] == "eu-central-1"
    assert "eks.amazonaws.com/role-arn" in everything.named("ServiceAccount", "worker")["metadata"]["annotations"]
    for component in ("controller", "chroma", "test"):
        assert "envFrom" not in everything.pod(component).spec["containers"][0]


def test_sources_are_mounted_read_only_where_images_are_read(everything: Objects) -> None:
    for component in ("plan", "embed", "searcher"):
        pod = everything.pod(component)
        mounts = {mount["mountPath"]: mount for mount in pod.spec["containers"][0]["volumeMounts"]}
        assert mounts["/sources/photos"] == {
            "name": "source-photos",
            "mountPath": "/sources/photos",
            "readOnly": True,
        }
        assert mounts["/sources/scans"]["subPath"] == "scans/2024"
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        assert volumes["source-scans"]["persistentVolumeClaim"] == {"claimName": "team-archive", "readOnly": True}
    assert not [volume for volume in everything.pod("ingest").spec["volumes"] if "source" in volume["name"]]


def test_the_hubs_token_goes_to_who_reads_from_the_hub(everything: Objects) -> None:
    components = {pod.component for pod in everything.pods() if "HF_TOKEN" in pod.env}
    assert components == {"plan", "embed", "searcher", "evaluate"}
    assert everything.env("embed")["HF_TOKEN"] == {"secretKeyRef": {"name": "hub-token", "key": "HF_TOKEN"}}


def test_models_can_be_on_an_empty_dir(helm: Helm) -> None:
    chart = helm.template({"models": {"claim": {"enabled": False}}})
    assert {"name": "models", "emptyDir": {}} in chart.pod("embed").spec["volumes"]
    assert f"{RELEASE}-models" not in [claim["metadata"]["name"] for claim in chart.of("PersistentVolumeClaim")]


def test_no_gpu_is_asked_for_by_default(default: Objects) -> None:
    pod = default.pod("embed")
    assert pod.spec["containers"][0]["resources"]["limits"].keys() == {"cpu", "memory"}
    assert not pod.spec.keys() & {"tolerations", "affinity", "nodeSelector"}


def terms(chart: Objects) -> list[set[str]]:
    """The alternatives of the node affinity, each as its expressions."""
    affinity = chart.pod("embed").spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return [
        {
            f"{expression['key']} {expression['operator']} {','.join(expression['values'])}"
            for expression in term["matchExpressions"]
        }
        for term in affinity["nodeSelectorTerms"]
    ]


def test_a_gpu_is_a_limit_a_toleration_and_an_affinity(helm: Helm) -> None:
    chart = helm.template({"embed": {"gpu": {"count": 1, "accelerators": ["nvidia-l4", "nvidia-a100-80gb"]}}})
    pod = chart.pod("embed")
    assert pod.spec["containers"][0]["resources"] == {
        "requests": {"cpu": "2", "memory": "4Gi"},
        "limits": {"cpu": "2", "memory": "6Gi", "nvidia.com/gpu": "1"},
    }
    assert pod.spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert terms(chart) == [{"cloud.google.com/gke-accelerator In nvidia-l4,nvidia-a100-80gb"}]


@pytest.mark.parametrize("resource", ["nvidia.com/mig-1g.5gb", "nvidia.com/gpu.shared", "gpu.intel.com/i915"])
def test_the_taint_of_a_gpu_node_has_the_name_of_the_resource_or_of_the_vendors_gpu(helm: Helm, resource: str) -> None:
    """As the controller tolerates them for `--accelerator`."""
    spec = helm.template({"embed": {"gpu": {"count": 1, "resourceName": resource}}}).pod("embed").spec
    assert spec["containers"][0]["resources"]["limits"][resource] == "1"
    released: dict[str, Any] = {"spec": {"containers": [{"name": "embed"}]}}
    match = NodeMatch(Kind("X"), resource, {}, total=1, free=1)
    assert spec["tolerations"] == placed(released, [match], spot=None)["spec"]["tolerations"]
    assert [toleration["key"] for toleration in spec["tolerations"]] == [resource, f"{resource.split('/')[0]}/gpu"]


def test_required_spot_nodes_are_those_of_any_cloud(everything: Objects) -> None:
    accelerators = "cloud.google.com/gke-accelerator In nvidia-l4,nvidia-tesla-t4"
    assert terms(everything) == [{f"{key} In {value}", accelerators} for key, value in SPOT.items()]
    tolerated = {
        (toleration["key"], toleration.get("value")) for toleration in everything.pod("embed").spec["tolerations"]
    }
    assert tolerated == {("team", None), ("nvidia.com/gpu", None), *SPOT.items()}


def test_avoided_spot_nodes_have_the_label_of_no_cloud(helm: Helm) -> None:
    chart = helm.template({"embed": {"spot": "avoid"}})
    assert terms(chart) == [{f"{key} NotIn {value}" for key, value in SPOT.items()}]
    assert "tolerations" not in chart.pod("embed").spec


def test_preferred_spot_nodes_are_tolerated_too_and_other_affinity_stays(helm: Helm) -> None:
    pod_anti_affinity: dict[str, Any] = {"preferredDuringSchedulingIgnoredDuringExecution": []}
    chart = helm.template({"embed": {"spot": "prefer", "affinity": {"podAntiAffinity": pod_anti_affinity}}})
    affinity = chart.pod("embed").spec["affinity"]
    preferred = affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert [entry["preference"]["matchExpressions"][0]["key"] for entry in preferred] == [*SPOT]
    assert affinity["podAntiAffinity"] == pod_anti_affinity
    assert {entry["key"] for entry in chart.pod("embed").spec["tolerations"]} == {*SPOT}


@pytest.mark.parametrize(
    "component", ["plan", "embed", "ingest", "evaluate", "controller", "searcher", "chroma", "test"]
)
def test_each_pod_goes_where_the_values_say(helm: Helm, component: str) -> None:
    placement: dict[str, Any] = {
        "nodeSelector": {"pool": "a"},
        "tolerations": [{"key": "pool", "operator": "Exists"}],
        "affinity": {"podAffinity": {}},
        "priorityClassName": "high",
        "resources": {"requests": {"cpu": "3"}},
    }
    chart = helm.template({component: placement | {"podAnnotations": {"note": "here"}}})
    spec = chart.pod(component).spec
    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert spec[name] == placement[name]
    assert spec["containers"][0]["resources"]["requests"]["cpu"] == "3"
    assert {pod.component for pod in chart.pods() if pod.spec.get("priorityClassName")} == {component}
    assert [manifest for manifest in chart.manifests if "note: here" in str(manifest).replace("'", "")]


def test_only_embedding_gets_the_gpus_runtime(helm: Helm) -> None:
    chart = helm.template({"embed": {"runtimeClassName": "nvidia"}})
    assert {
        pod.component: pod.spec.get("runtimeClassName") for pod in chart.pods() if "runtimeClassName" in pod.spec
    } == {"embed": "nvidia"}


def test_the_controller_may_do_what_it_does_and_no_more(default: Objects, helm: Helm) -> None:
    role = default.named("Role", "controller")
    assert role["rules"] == [
        {
            "apiGroups": ["batch"],
            "resources": ["jobs"],
            "verbs": ["get", "list", "watch", "create", "patch", "delete"],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {
            "apiGroups": [""],
            "resources": ["podtemplates"],
            "resourceNames": [f"{RELEASE}-{name}" for name in ("plan", "embed", "ingest", "evaluate", "controller")],
            "verbs": ["get"],
        },
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [f"{RELEASE}-pipeline"],
            "verbs": ["get"],
        },
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "list"]},
    ]
    with_queue = helm.template({"pipeline": {"queue": "gpus"}}).named("Role", "controller")
    workloads = {"apiGroups": ["kueue.x-k8s.io"], "resources": ["workloads"], "verbs": ["list"]}
    assert with_queue["rules"] == [*role["rules"], workloads]
    (subject,) = default.named("RoleBinding", "controller")["subjects"]
    assert subject["name"] == default.pod("controller").spec["serviceAccountName"]
    assert not {manifest["kind"] for manifest in default.manifests} & {"ClusterRole", "ClusterRoleBinding"}


def test_the_controller_lists_nodes_and_pods_everywhere_where_it_is_let(everything: Objects) -> None:
    (role,) = everything.of("ClusterRole")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["list"]}]
    (binding,) = everything.of("ClusterRoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    (subject,) = binding["subjects"]
    assert subject["name"] == everything.pod("controller").spec["serviceAccountName"]


def test_the_cron_job_is_a_run_pipeline_that_updates(everything: Objects) -> None:
    cron = everything.named("CronJob", "reindex")["spec"]
    assert (cron["schedule"], cron["timeZone"], cron["suspend"]) == ("30 2 * * 1-5", "Europe/Berlin", False)
    assert cron["concurrencyPolicy"] == "Forbid"
    (container,) = cron["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container.pop("args") == [
        *("run-pipeline", "/sources/photos", "--index", "team.photos", "--update"),
        *("--release", RELEASE, "--namespace", "search", "--accelerator", "L4:1,T4:1", "--parallelism", "8"),
    ]
    template = everything.named("PodTemplate", "controller")["template"]
    assert container == template["spec"]["containers"][0]
    # Its Jobs have the labels of their pods, for policies and costs.
    assert cron["jobTemplate"]["metadata"] == {"labels": template["metadata"]["labels"]}


def test_the_jobs_of_the_cron_job_have_labels_only(helm: Helm) -> None:
    controller = {"podLabels": {"tier": "jobs"}, "podAnnotations": {"note": "here"}}
    values = {"reindex": {"enabled": True, "source": "s3://photos"}, "controller": controller}
    chart = helm.template({**values, "commonLabels": {"team": "search"}})
    assert chart.named("CronJob", "reindex")["spec"]["jobTemplate"]["metadata"] == {
        "labels": {
            "app.kubernetes.io/name": "imgsearch",
            "app.kubernetes.io/instance": RELEASE,
            "app.kubernetes.io/component": "controller",
            "team": "search",
            "tier": "jobs",
        }
    }
