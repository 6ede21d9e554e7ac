from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from controller.gpus.accelerators import Kind
from controller.gpus.affinity import NodePlacement
from controller.gpus.nodes import NodeMatch, Spot
from controller.jobs import manifests
from controller.jobs.state import Stage
from imgsearch import labels
from imgsearch.settings import (
    EmbedSettings,
    IndexSettings,
    JobSettings,
    LogSettings,
    MetricsSettings,
    RunSettings,
    Settings,
    StorageSettings,
)

SETTINGS = Settings(
    run=RunSettings(id="r1", index="photos", source="/photos", model="a/b"), storage=StorageSettings(uri="file:///s")
)
TEMPLATE: dict[str, Any] = {
    "spec": {
        "containers": [
            {"name": "embed", "command": ["python"], "env": [{"name": "HF_HOME", "value": "/cache"}]},
        ]
    }
}

L4 = NodePlacement((NodeMatch(Kind("L4"), "nvidia.com/gpu", {"gpu": ("l4",)}, 2, None),), Spot.NEVER, (Kind("L4"),))


def job(**changes: Any) -> dict[str, Any]:
    arguments = {"release": "team", "completions": 8, "parallelism": 2, **changes}
    settings, template = arguments.pop("settings", SETTINGS), arguments.pop("template", TEMPLATE)
    return manifests.job(Stage.EMBED, settings, template, **arguments)


def test_the_whole_job() -> None:
    names = {
        "app.kubernetes.io/name": "imgsearch",
        "app.kubernetes.io/instance": "team",
        "app.kubernetes.io/component": "embed",
        "imgsearch.dev/run": "r1",
        "imgsearch.dev/index": "photos",
    }
    manifest = job()
    hashes = manifest["metadata"].pop("annotations")
    assert list(hashes) == ["imgsearch.dev/spec-hash", "imgsearch.dev/template-hash"]
    assert all(len(value) == 16 for value in hashes.values())
    assert manifest == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "team-r1-embed",
            "labels": {**names, "app.kubernetes.io/managed-by": "imgsearch-controller"},
        },
        "spec": {
            "completions": 8,
            "parallelism": 2,
            "completionMode": "Indexed",
            "backoffLimitPerIndex": 3,
            "maxFailedIndexes": 8,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [143]}},
                    {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [2, 4]}},
                ]
            },
            "ttlSecondsAfterFinished": 604_800,
            "template": {
                "metadata": {"labels": names},
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [
                        {
                            "name": "embed",
                            "command": ["python"],
                            "env": [
                                {"name": "HF_HOME", "value": "/cache"},
                                {"name": "IMGSEARCH_RUN_ID", "value": "r1"},
                                {"name": "IMGSEARCH_RUN_INDEX", "value": "photos"},
                                {"name": "IMGSEARCH_RUN_MODEL", "value": "a/b"},
                                {"name": "IMGSEARCH_RUN_SOURCE", "value": "/photos"},
                                {"name": "IMGSEARCH_STORAGE_URI", "value": "file:///s"},
                            ],
                        }
                    ],
                },
            },
        },
    }


def test_the_environment_of_a_job_gives_the_programs_the_same_settings() -> None:
    env = {entry["name"]: entry["value"] for entry in job()["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert Settings.from_env(env) == SETTINGS


def test_the_template_stays_as_it_was() -> None:
    original = copy.deepcopy(TEMPLATE)
    job()
    assert original == TEMPLATE


def test_variables_keep_their_order_so_that_a_value_may_refer_to_an_earlier_one() -> None:
    env = [{"name": "SCRATCH", "value": "/scratch"}, {"name": "CACHE", "value": "$(SCRATCH)/cache"}]
    template = {"spec": {"containers": [{"name": "embed", "env": env}]}}
    entries = job(template=template)["spec"]["template"]["spec"]["containers"][0]["env"]
    assert entries[:3] == [*env, {"name": "IMGSEARCH_RUN_ID", "value": "r1"}]


def test_jobs_have_the_labels_of_their_pods() -> None:
    template = {"metadata": {"labels": {"team": "search", labels.RUN: "other"}}, **TEMPLATE}
    for manifest in (
        job(template=template),
        manifests.detached([], SETTINGS, template, release="team"),
    ):
        pod_labels = manifest["spec"]["template"]["metadata"]["labels"]
        assert (pod_labels["team"], pod_labels[labels.RUN]) == ("search", "r1")
        assert manifest["metadata"]["labels"] == {**pod_labels, labels.MANAGED_BY: "imgsearch-controller"}


def test_no_more_pods_run_than_there_are_shards() -> None:
    assert job(completions=1, parallelism=9)["spec"]["parallelism"] == 1


def spec_hash(manifest: dict[str, Any]) -> str:
    return str(manifest["metadata"]["annotations"][labels.SPEC_HASH])


def test_the_hash_is_of_the_work() -> None:
    changed_jobs = [
        job(completions=9),
        job(settings=replace(SETTINGS, run=replace(SETTINGS.run, source="/other"))),
        job(settings=replace(SETTINGS, embed=EmbedSettings(thumbnail_px=128))),
        job(settings=replace(SETTINGS, storage=StorageSettings(uri="file:///elsewhere"))),
    ]
    assert len({spec_hash(manifest) for manifest in [job(), *changed_jobs]}) == 5


def test_the_hash_is_not_of_who_does_the_work_and_how_many() -> None:
    image = {"spec": {"containers": [{"name": "embed", "image": "imgsearch-embedder:0.2.0", "command": ["python"]}]}}
    equal_jobs = [
        job(parallelism=5),
        job(template=image),
        job(settings=replace(SETTINGS, jobs=JobSettings(retries=9, queue="gpus", gpu_hour_price=2.5))),
        job(settings=replace(SETTINGS, log=LogSettings(level="DEBUG"), metrics=MetricsSettings(port=9090))),
        job(settings=replace(SETTINGS, index=IndexSettings(recall=0.9))),
    ]
    assert {spec_hash(manifest) for manifest in equal_jobs} == {spec_hash(job())}


def test_the_hash_of_the_template_is_of_the_pods() -> None:
    def template_hash(**changes: Any) -> str:
        return str(job(**changes)["metadata"]["annotations"][labels.TEMPLATE_HASH])

    image = {"spec": {"containers": [{"name": "embed", "image": "imgsearch-embedder:0.2.0", "command": ["python"]}]}}
    assert template_hash(parallelism=5) == template_hash(settings=replace(SETTINGS, jobs=JobSettings(retries=9)))
    assert len({template_hash(), template_hash(template=image), template_hash(placement=L4)}) == 3
    assert len({template_hash(placement=replace(L4, **change)) for change in ({}, {"spot": None}, {"kinds": ()})}) == 3
    queues = [replace(SETTINGS, jobs=JobSettings(queue=queue)) for queue in (None, "gpus", "gpu")]
    assert len({template_hash(settings=settings) for settings in queues}) == 3, (
        "a Job would wait in a wrong queue for ever"
    )
    # A node that came or went is no reason to make a Job anew.
    assert template_hash(placement=replace(L4, matches=())) == template_hash(placement=L4)


def test_how_jobs_are_made_comes_from_the_settings() -> None:
    options = JobSettings(retries=1, deadline_seconds=600, ttl_seconds=None)
    spec = job(settings=replace(SETTINGS, jobs=options))["spec"]
    assert spec["backoffLimitPerIndex"] == 1
    assert spec["activeDeadlineSeconds"] == 600
    assert "ttlSecondsAfterFinished" not in spec
    assert "suspend" not in spec


def test_no_pod_gets_the_settings_of_its_job() -> None:
    manifest = job(settings=replace(SETTINGS, jobs=JobSettings(retries=9, queue="gpus")))
    assert manifest["spec"]["template"] == job()["spec"]["template"]


def test_a_queue_admits_the_embed_job_and_no_other() -> None:
    queued = replace(SETTINGS, jobs=JobSettings(queue="gpus"))
    manifest = job(settings=queued)
    assert manifest["spec"]["suspend"] is True
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    for stage in (Stage.PLAN, Stage.INGEST):
        other_job = manifests.job(stage, queued, TEMPLATE, release="team", completions=1, parallelism=1)
        assert "suspend" not in other_job["spec"]
        assert labels.QUEUE not in other_job["metadata"]["labels"]


def test_a_queue_may_admit_fewer_pods_than_the_job_has() -> None:
    """Kueue refuses the annotation on a Job of one pod."""

    def least(**changes: Any) -> str | None:
        annotation = "kueue.x-k8s.io/job-min-parallelism"
        value: str | None = job(**changes)["metadata"]["annotations"].get(annotation)
        return value

    queued = replace(SETTINGS, jobs=JobSettings(queue="gpus"))
    assert least(settings=queued, parallelism=2) == "1"
    assert least(settings=queued, parallelism=1) is None
    assert least(settings=queued, parallelism=2, completions=1) is None
    assert least(parallelism=2) is None


def test_pods_of_the_embedding_go_where_they_are_placed() -> None:
    template = job()["spec"]["template"]
    assert job(placement=L4)["spec"]["template"] == {
        "metadata": {**L4.applied(template)["metadata"], "labels": template["metadata"]["labels"]},
        "spec": L4.applied(template)["spec"],
    }
    plan = manifests.job(Stage.PLAN, SETTINGS, TEMPLATE, release="team", completions=1, parallelism=1, placement=L4)
    assert plan == manifests.job(Stage.PLAN, SETTINGS, TEMPLATE, release="team", completions=1, parallelism=1)


def test_init_containers_get_the_run_and_sidecars_do_not() -> None:
    template = {
        "spec": {
            "initContainers": [{"name": "model", "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {}}}]}],
            "containers": [{"name": "plan"}, {"name": "proxy"}],
        }
    }
    spec = job(template=template)["spec"]["template"]["spec"]
    variable = {"name": "IMGSEARCH_RUN_ID", "value": "r1"}
    assert variable in spec["initContainers"][0]["env"]
    assert {"name": "POD_NAME", "valueFrom": {"fieldRef": {}}} in spec["initContainers"][0]["env"]
    assert variable in spec["containers"][0]["env"]
    assert spec["containers"][1] == {"name": "proxy"}


def test_a_pod_keeps_the_values_of_the_release_except_those_that_a_job_needs() -> None:
    template = {
        "metadata": {"labels": {"team": "vision", labels.COMPONENT: "embed"}, "annotations": {"scrape": "yes"}},
        "spec": {
            "restartPolicy": "Always",
            "nodeSelector": {"pool": "gpu"},
            "containers": [{"name": "embed", "env": [{"name": "IMGSEARCH_RUN_ID", "value": "another"}]}],
        },
    }
    manifest = job(template=template)["spec"]["template"]
    assert manifest["metadata"]["labels"]["team"] == "vision"
    assert manifest["metadata"]["labels"][labels.RUN] == "r1"
    assert manifest["metadata"]["annotations"] == {"scrape": "yes"}
    assert manifest["spec"]["restartPolicy"] == "Never"
    assert manifest["spec"]["nodeSelector"] == {"pool": "gpu"}
    ids = [entry["value"] for entry in manifest["spec"]["containers"][0]["env"] if entry["name"] == "IMGSEARCH_RUN_ID"]
    assert ids == ["r1"]


def test_a_query_job_does_not_belong_to_the_run_that_it_reads() -> None:
    manifest = manifests.query_job("searcher", "report", SETTINGS, TEMPLATE, release="team", name="team-report-1")
    assert manifest["metadata"]["name"] == "team-report-1"
    pod = manifest["spec"]["template"]
    assert pod["spec"]["containers"][0]["command"] == ["python", "-m", "searcher", "report"]
    for labelled in (manifest, pod):
        assert labelled["metadata"]["labels"][labels.QUERY] == "team-report-1"
        assert labelled["metadata"]["labels"][labels.COMPONENT] == "ingest", "it may go where ingest may"
        assert not {labels.RUN, labels.INDEX} & labelled["metadata"]["labels"].keys()
    assert manifest["spec"]["ttlSecondsAfterFinished"] == 600
    env = {entry["name"]: entry["value"] for entry in pod["spec"]["containers"][0]["env"]}
    assert Settings.from_env(env) == SETTINGS


def test_an_evaluation_has_a_pod_of_its_own_which_may_load_models() -> None:
    assert manifests.query_pod("evaluate") == "evaluate"
    manifest = manifests.query_job("searcher", "evaluate", SETTINGS, TEMPLATE, release="team", name="team-evaluate-1")
    pod = manifest["spec"]["template"]
    assert pod["metadata"]["labels"][labels.COMPONENT] == "evaluate", "it may go where that may"


def test_a_detached_controller_is_a_job_with_the_command_line_as_its_arguments() -> None:
    arguments = ["run-pipeline", "/photos", "--run", "r1"]
    settings = replace(SETTINGS, jobs=JobSettings(retries=2, deadline_seconds=60))
    manifest = manifests.detached(arguments, settings, TEMPLATE, release="team")
    assert manifest["metadata"]["name"] == "team-r1-controller"
    assert manifest["metadata"]["labels"][labels.COMPONENT] == "controller"
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == arguments
    assert container["env"] == [{"name": "HF_HOME", "value": "/cache"}], "it reads the release's settings itself"
    assert manifest["spec"]["backoffLimit"] == 2
    assert "activeDeadlineSeconds" not in manifest["spec"], "that is for a stage"
    assert manifest["spec"]["podFailurePolicy"]["rules"] == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2, 4]}},
    ]
    assert manifest["spec"]["template"]["spec"]["restartPolicy"] == "Never"
