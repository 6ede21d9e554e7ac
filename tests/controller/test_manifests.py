from __future__ import annotations

import copy
from typing import Any

from controller import manifests
from controller.jobs import Stage
from imgsearch import labels
from imgsearch.settings import RunSettings, Settings, StorageSettings

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
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
                    {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [2, 4]}},
                ]
            },
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


def test_the_hash_follows_what_lasts() -> None:
    def spec_hash(made: dict[str, Any]) -> str:
        return str(made["metadata"]["annotations"][labels.SPEC_HASH])

    assert spec_hash(job()) == spec_hash(job(parallelism=5))
    assert spec_hash(job()) != spec_hash(job(completions=9))
    assert spec_hash(job()) != spec_hash(job(template={"spec": {"containers": [{"name": "embed", "image": "x"}]}}))
