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
class Said:
    """How a pod ends: what it leaves, its exit code, and what it has printed before."""

    result: Mapping[str, Any]
    code: int = 0
    printed: str = ""


@dataclass(frozen=True)
class Stays:
    """A pod that does not end."""

    phase: str = "Running"
    log: str = ""
    conditions: list[dict[str, str]] = field(default_factory=list)


Play = Callable[[list[str], int], Said | Stays]
"""What becomes of a pod, by its command and its index."""

RESULTS: dict[str, dict[str, Any]] = {
    "plan": {"shards": 3, "images": 30, "bytes": 1},
    "embed": {"images": 10, "bad": 0},
    "ingest": {"index": "photos", "images": 30, "bad": 0, "published": "r1"},
}


def well(command: list[str], index: int) -> Said | Stays:
    """Every stage ends as it should."""
    return Said(RESULTS[command[-1]])


class Workers(threading.Thread):
    """A context manager: works while it is entered."""

    def __init__(self, server: ApiServer, play: Play = well) -> None:
        super().__init__(name="workers")
        self._server = server
        self._play = play
        self._seen: set[str] = set()
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
                self._server.changed.wait_for(lambda: self._stopped or self._new())
                jobs = self._new()
            for job in jobs:
                self._seen.add(job["metadata"]["uid"])
                self._work(job)

    def _new(self) -> list[Object]:
        return [
            job
            for job in self._server.all("jobs")
            if job["metadata"]["uid"] not in self._seen
            and "deletionTimestamp" not in job["metadata"]
            and not job.get("status", {}).get("conditions")
        ]

    def _work(self, job: Object) -> None:
        template, completions = job["spec"]["template"], job["spec"].get("completions", 1)
        ended: dict[bool, set[int]] = {True: set(), False: set()}
        for index in range(completions):
            act = self._play(template["spec"]["containers"][0]["command"], index)
            made = self._pod(job, index, "Pending")
            if isinstance(act, Stays):
                self._server.logs[made["metadata"]["name"]] = act.log
                bound = {} if act.phase == "Running" else {"started": None}
                self._server.put("pods", self._pod(job, index, act.phase, conditions=act.conditions, **bound))
                continue
            self._server.put("pods", made)
            self._server.logs[made["metadata"]["name"]] = f"{act.printed}{json.dumps(act.result)}\n"
            done = act.code == 0
            phase = "Succeeded" if done else "Failed"
            self._server.put("pods", self._pod(job, index, phase, message=act.result, ended={"exitCode": act.code}))
            ended[done].add(index)
            self._say(job, ended, active=completions - index - 1)
        if ended[False]:
            self._say(job, ended, conditions=[condition("Failed", reason="FailedIndexes", message="an index failed")])
        elif len(ended[True]) == completions:
            self._say(job, ended, conditions=[condition("Complete")])

    def _pod(self, job: Object, index: int, phase: str, **told: Any) -> Object:
        about = job["metadata"]
        made = pod(index, phase, job=about["name"], uid=about["uid"], **told)
        own = {name: made["metadata"]["labels"][name] for name in made["metadata"]["labels"] if "batch." in name}
        made["metadata"]["labels"] = {**job["spec"]["template"]["metadata"]["labels"], **own}
        return made

    def _say(self, job: Object, ended: Mapping[bool, set[int]], **status: Any) -> None:
        with self._server.changed:
            there = {each["metadata"]["uid"]: each for each in self._server.all("jobs")}.get(job["metadata"]["uid"])
            if there is None:
                return
            indexes = {"completedIndexes": ended[True], "failedIndexes": ended[False]}
            written = {name: format_indexes(those) for name, those in indexes.items() if those}
            self._server.put("jobs", {**there, "status": {"startTime": "2026-01-01T00:00:00Z", **written, **status}})
