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


def job(**changes: Any) -> dict[str, Any]:
    told = {"release": "team", "completions": 8, "parallelism": 2, **changes}
    return manifests.job(Stage.EMBED, told.pop("settings", SETTINGS), told.pop("template", TEMPLATE), **told)


def test_the_whole_job() -> None:
    names = {
        "app.kubernetes.io/name": "imgsearch",
        "app.kubernetes.io/instance": "team",
        "app.kubernetes.io/component": "embed",
        "imgsearch.dev/run": "r1",
        "imgsearch.dev/index": "photos",
    }
    made = job()
    spec_hash = made["metadata"]["annotations"].pop("imgsearch.dev/spec-hash")
    assert len(spec_hash) == 16
    assert made == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "team-r1-embed",
            "labels": {**names, "app.kubernetes.io/managed-by": "imgsearch-controller"},
            "annotations": {},
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
    before = copy.deepcopy(TEMPLATE)
    job()
    assert before == TEMPLATE


def test_no_more_pods_run_than_there_are_shards() -> None:
    assert job(completions=1, parallelism=9)["spec"]["parallelism"] == 1


def spec_hash(made: dict[str, Any]) -> str:
    return str(made["metadata"]["annotations"][labels.SPEC_HASH])


def test_the_hash_is_of_the_work() -> None:
    others = [
        job(completions=9),
        job(settings=replace(SETTINGS, run=replace(SETTINGS.run, source="/other"))),
        job(settings=replace(SETTINGS, embed=EmbedSettings(thumbnail_px=128))),
        job(settings=replace(SETTINGS, storage=StorageSettings(uri="file:///elsewhere"))),
    ]
    assert len({spec_hash(each) for each in [job(), *others]}) == 5


def test_the_hash_is_not_of_who_does_the_work_and_how_many() -> None:
    image = {"spec": {"containers": [{"name": "embed", "image": "imgsearch-embedder:0.2.0", "command": ["python"]}]}}
    same = [
        job(parallelism=5),
        job(template=image),
        job(settings=replace(SETTINGS, jobs=JobSettings(retries=9, queue="gpus", gpu_hour_price=2.5))),
        job(settings=replace(SETTINGS, log=LogSettings(level="DEBUG"), metrics=MetricsSettings(port=9090))),
    ]
    assert {spec_hash(each) for each in same} == {spec_hash(job())}


def test_how_jobs_are_made_comes_from_the_settings() -> None:
    about = JobSettings(retries=1, deadline_seconds=600, ttl_seconds=None)
    spec = job(settings=replace(SETTINGS, jobs=about))["spec"]
    assert spec["backoffLimitPerIndex"] == 1
    assert spec["activeDeadlineSeconds"] == 600
    assert "ttlSecondsAfterFinished" not in spec
    assert "suspend" not in spec


def test_no_pod_is_told_how_jobs_are_made() -> None:
    made = job(settings=replace(SETTINGS, jobs=JobSettings(retries=9, queue="gpus")))
    assert made["spec"]["template"] == job()["spec"]["template"]


def test_a_queue_admits_the_embed_job_and_no_other() -> None:
    queued = replace(SETTINGS, jobs=JobSettings(queue="gpus"))
    made = job(settings=queued)
    assert made["spec"]["suspend"] is True
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    for stage in (Stage.PLAN, Stage.INGEST):
        other = manifests.job(stage, queued, TEMPLATE, release="team", completions=1, parallelism=1)
        assert "suspend" not in other["spec"]
        assert labels.QUEUE not in other["metadata"]["labels"]


def test_pods_of_the_embedding_go_where_they_are_placed() -> None:
    placement = NodePlacement((NodeMatch(Kind("L4", 2), "nvidia.com/gpu", {"gpu": ("l4",)}, 2, None),), Spot.NEVER)
    before = job()["spec"]["template"]
    assert job(placement=placement)["spec"]["template"] == {
        "metadata": {**placement.applied(before)["metadata"], "labels": before["metadata"]["labels"]},
        "spec": placement.applied(before)["spec"],
    }
    plan = manifests.job(
        Stage.PLAN, SETTINGS, TEMPLATE, release="team", completions=1, parallelism=1, placement=placement
    )
    assert plan == manifests.job(Stage.PLAN, SETTINGS, TEMPLATE, release="team", completions=1, parallelism=1)


def test_init_containers_are_told_the_run_too_and_a_sidecar_is_not() -> None:
    template = {
        "spec": {
            "initContainers": [{"name": "model", "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {}}}]}],
            "containers": [{"name": "plan"}, {"name": "proxy"}],
        }
    }
    spec = job(template=template)["spec"]["template"]["spec"]
    told = {"name": "IMGSEARCH_RUN_ID", "value": "r1"}
    assert told in spec["initContainers"][0]["env"]
    assert {"name": "POD_NAME", "valueFrom": {"fieldRef": {}}} in spec["initContainers"][0]["env"]
    assert told in spec["containers"][0]["env"]
    assert spec["containers"][1] == {"name": "proxy"}


def test_what_the_release_says_of_a_pod_stays_but_where_a_job_needs_another_value() -> None:
    template = {
        "metadata": {"labels": {"team": "vision", labels.COMPONENT: "embed"}, "annotations": {"scrape": "yes"}},
        "spec": {
            "restartPolicy": "Always",
            "nodeSelector": {"pool": "gpu"},
            "containers": [{"name": "embed", "env": [{"name": "IMGSEARCH_RUN_ID", "value": "another"}]}],
        },
    }
    made = job(template=template)["spec"]["template"]
    assert made["metadata"]["labels"]["team"] == "vision"
    assert made["metadata"]["labels"][labels.RUN] == "r1"
    assert made["metadata"]["annotations"] == {"scrape": "yes"}
    assert made["spec"]["restartPolicy"] == "Never"
    assert made["spec"]["nodeSelector"] == {"pool": "gpu"}
    ids = [each["value"] for each in made["spec"]["containers"][0]["env"] if each["name"] == "IMGSEARCH_RUN_ID"]
    assert ids == ["r1"]


def test_an_errand_is_no_job_of_the_run_that_it_asks_about() -> None:
    made = manifests.errand("searcher", "report", SETTINGS, TEMPLATE, release="team", name="team-report-1")
    assert made["metadata"]["name"] == "team-report-1"
    pod = made["spec"]["template"]
    assert pod["spec"]["containers"][0]["command"] == ["python", "-m", "searcher", "report"]
    for each in (made, pod):
        assert each["metadata"]["labels"][labels.ERRAND] == "team-report-1"
        assert each["metadata"]["labels"][labels.COMPONENT] == "ingest", "it may go where ingest may"
        assert not {labels.RUN, labels.INDEX} & each["metadata"]["labels"].keys()
    assert made["spec"]["ttlSecondsAfterFinished"] == 600
    env = {entry["name"]: entry["value"] for entry in pod["spec"]["containers"][0]["env"]}
    assert Settings.from_env(env) == SETTINGS


def test_an_evaluation_has_a_pod_of_its_own_which_may_load_models() -> None:
    assert manifests.errand_pod("evaluate") == "evaluate"
    made = manifests.errand("searcher", "evaluate", SETTINGS, TEMPLATE, release="team", name="team-evaluate-1")
    pod = made["spec"]["template"]
    assert pod["metadata"]["labels"][labels.COMPONENT] == "evaluate", "it may go where that may"


def test_a_detached_controller_is_a_job_with_the_command_line_as_its_arguments() -> None:
    words = ["run-pipeline", "/photos", "--run", "r1"]
    about = replace(SETTINGS, jobs=JobSettings(retries=2, deadline_seconds=60))
    made = manifests.detached(words, about, TEMPLATE, release="team")
    assert made["metadata"]["name"] == "team-r1-controller"
    assert made["metadata"]["labels"][labels.COMPONENT] == "controller"
    container = made["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == words
    assert container["env"] == [{"name": "HF_HOME", "value": "/cache"}], "it reads the release's settings itself"
    assert made["spec"]["backoffLimit"] == 2
    assert "activeDeadlineSeconds" not in made["spec"], "that is for a stage"
    assert made["spec"]["podFailurePolicy"]["rules"] == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2, 4]}},
    ]
    assert made["spec"]["template"]["spec"]["restartPolicy"] == "Never"
