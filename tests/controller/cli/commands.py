"""The command line on a cluster, for the tests of its commands."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

from controller.jobs.state import Stage
from imgsearch import labels
from tests.controller.apiserver import NAMESPACE, ApiServer
from tests.controller.objects import RELEASE, condition
from tests.controller.workers import Ended, Unfinished, succeed
from tests.programs import CONTROLLER, WIDE, program_env

SOURCE = "/sources/photos"
RELEASE_OPTIONS = ("--release", RELEASE, "-n", NAMESPACE)
FLAGS = f"--release {RELEASE} --namespace {NAMESPACE}"
REPORT = {"run": "r1", "index": "photos", "images": 30, "bad": 2}
INDEX = {"index": "photos", "run": "r0", "images": 30, "recall": {"images": {"10": 1.0}, "texts": {"10": 0.9432}}}
Cli = Callable[..., subprocess.CompletedProcess[str]]
DONE = {"completedIndexes": "0", "conditions": [condition("Complete")]}


def answer_queries(command: list[str], index: int) -> Ended | Unfinished:
    """The stages end well, and query jobs answer."""
    results: dict[str, dict[str, Any]] = {
        "indexes": {"indexes": [INDEX]},
        "runs": {"runs": [{**REPORT, "source": SOURCE, "published": "2026-01-01"}], "left_out": 4},
        "report": REPORT,
        "planned": {"planned": False, "base": None},
    }
    return Ended(results[command[-1]]) if command[-1] in results else succeed(command, index)


def job(server: ApiServer, stage: Stage, run: str = "r1", **status: Any) -> dict[str, Any]:
    """A Job of a run, as it is after `status`."""
    names = {labels.INSTANCE: RELEASE, labels.RUN: run, labels.INDEX: "photos", labels.COMPONENT: str(stage)}
    metadata = {"name": f"{RELEASE}-{run}-{stage}", "labels": names, "annotations": {labels.SPEC_HASH: "x"}}
    spec = {"completions": 1, "parallelism": 1, "template": {"spec": {"containers": [{"name": str(stage)}]}}}
    return server.put("jobs", {"metadata": metadata, "spec": spec, "status": status})


def start_controller(env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*CONTROLLER, *arguments, *RELEASE_OPTIONS],
        env=program_env({**env, **WIDE}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def gpu_node(name: str, gpu: str, gpus: int) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"cloud.google.com/gke-accelerator": gpu}},
        "status": {"allocatable": {"nvidia.com/gpu": str(gpus)}, "conditions": [condition("Ready")]},
    }
