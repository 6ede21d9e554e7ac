"""A run on the fake API server: its settings, its pipeline and its Jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from controller.backends.kubernetes.backend import KubernetesBackend
from controller.backends.kubernetes.events import Events
from controller.jobs.state import JobState, Stage
from controller.run.capacity import Capacity
from controller.run.loop import Pipeline
from imgsearch.settings import RunSettings, Settings
from tests.controller.objects import RELEASE

RUN = RunSettings(id="r1", index="photos", source="/sources/photos", model="a/b")
NOW = datetime(2026, 1, 1, 2, tzinfo=UTC)
Connect = Callable[..., KubernetesBackend]


def settings(cluster: KubernetesBackend) -> Settings:
    return replace(cluster.settings(), run=RUN)


def pipeline(
    cluster: KubernetesBackend,
    show: Callable[[Mapping[Stage, JobState]], None] = lambda _: None,
    capacity: Capacity | None = None,
) -> Pipeline:
    return Pipeline(
        cluster,
        settings(cluster),
        release=RELEASE,
        capacity=capacity or Capacity(2),
        show=show,
        scaler=cluster,
        events=Events(cluster._api, now=lambda: NOW),
    )


def job(cluster: KubernetesBackend, stage: Stage = Stage.EMBED, completions: int = 3) -> dict[str, Any]:
    return pipeline(cluster).manifest(stage, completions)


def wait_until(cluster: KubernetesBackend, predicate: Callable[[dict[Stage, JobState]], bool]) -> dict[Stage, JobState]:
    while not predicate(jobs := cluster.jobs("r1")):
        cluster.wait(30)
    return jobs
