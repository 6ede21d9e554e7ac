"""Plays the controller-manager and the kubelets: makes the pods of each Job, and ends them as a test has it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.jobs.indexes import format_indexes
from tests.controller.apiserver import ApiServer
from tests.controller.objects import Object, condition, pod


@dataclass(frozen=True)
class Ended:
    """How a pod ends: what it leaves, its exit code, and what it has printed before."""

    result: Mapping[str, Any]
    code: int = 0
    output: str = ""


@dataclass(frozen=True)
class Unfinished:
    """A pod that does not end."""

    phase: str = "Running"
    log: str = ""
    conditions: list[dict[str, str]] = field(default_factory=list)
    node: str = ""
    ends_by: str = ""
    """Its deletionTimestamp, if it was deleted."""


PodBehaviour = Callable[[list[str], int], Ended | Unfinished]
"""What becomes of a pod, by its command and its index."""

RESULTS: dict[str, dict[str, Any]] = {
    "plan": {"shards": 3, "images": 30, "bytes": 1},
    "embed": {"images": 10, "bad": 0},
    "ingest": {"index": "photos", "images": 30, "bad": 0, "published": "r1"},
}


def succeed(command: list[str], index: int) -> Ended | Unfinished:
    """Every stage ends as it should."""
    return Ended(RESULTS[command[-1]])


class Workers(threading.Thread):
    """A context manager: works while it is entered."""

    def __init__(self, server: ApiServer, behave: PodBehaviour = succeed) -> None:
        super().__init__(name="workers")
        self._server = server
        self._behave = behave
        self._seen_uids: set[str] = set()
        self._stopped = False

    def __enter__(self) -> Workers:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._server.changed:
            self._stopped = True
            self._server.changed.notify_all()
        self.join()

    def run(self) -> None:
        while not self._stopped:
            with self._server.changed:
                self._server.changed.wait_for(lambda: self._stopped or self._new_jobs())
                jobs = self._new_jobs()
            for job in jobs:
                self._seen_uids.add(job["metadata"]["uid"])
                self._run_pods(job)

    def _new_jobs(self) -> list[Object]:
        return [
            job
            for job in self._server.objects("jobs")
            if job["metadata"]["uid"] not in self._seen_uids
            and "deletionTimestamp" not in job["metadata"]
            and not job.get("status", {}).get("conditions")
        ]

    def _run_pods(self, job: Object) -> None:
        template, completions = job["spec"]["template"], job["spec"].get("completions", 1)
        indexes_by_success: dict[bool, set[int]] = {True: set(), False: set()}
        for index in range(completions):
            end = self._behave(template["spec"]["containers"][0]["command"], index)
            pending = self._pod(job, index, "Pending")
            if isinstance(end, Unfinished):
                self._server.logs[pending["metadata"]["name"]] = end.log
                fields = {} if end.phase == "Running" else {"started": None}
                unfinished = self._pod(job, index, end.phase, conditions=end.conditions, node=end.node, **fields)
                if end.ends_by:
                    unfinished["metadata"]["deletionTimestamp"] = end.ends_by
                self._server.put("pods", unfinished)
                continue
            self._server.put("pods", pending)
            self._server.logs[pending["metadata"]["name"]] = f"{end.output}{json.dumps(end.result)}\n"
            has_succeeded = end.code == 0
            phase = "Succeeded" if has_succeeded else "Failed"
            self._server.put(
                "pods", self._pod(job, index, phase, message=end.result, terminated={"exitCode": end.code})
            )
            indexes_by_success[has_succeeded].add(index)
            self._set_status(job, indexes_by_success, active=completions - index - 1)
        if indexes_by_success[False]:
            self._set_status(
                job,
                indexes_by_success,
                conditions=[condition("Failed", reason="FailedIndexes", message="an index failed")],
            )
        elif len(indexes_by_success[True]) == completions:
            self._set_status(job, indexes_by_success, conditions=[condition("Complete")])

    def _pod(self, job: Object, index: int, phase: str, **fields: Any) -> Object:
        metadata = job["metadata"]
        new_pod = pod(index, phase, job=metadata["name"], uid=metadata["uid"], **fields)
        batch_labels = {
            name: new_pod["metadata"]["labels"][name] for name in new_pod["metadata"]["labels"] if "batch." in name
        }
        new_pod["metadata"]["labels"] = {**job["spec"]["template"]["metadata"]["labels"], **batch_labels}
        return new_pod

    def _set_status(self, job: Object, indexes_by_success: Mapping[bool, set[int]], **status: Any) -> None:
        with self._server.changed:
            current = {job_object["metadata"]["uid"]: job_object for job_object in self._server.objects("jobs")}.get(
                job["metadata"]["uid"]
            )
            if current is None:
                return
            indexes_by_field = {
                "completedIndexes": indexes_by_success[True],
                "failedIndexes": indexes_by_success[False],
            }
            fields = {name: format_indexes(numbers) for name, numbers in indexes_by_field.items() if numbers}
            self._server.put("jobs", {**current, "status": {"startTime": "2026-01-01T00:00:00Z", **fields, **status}})
