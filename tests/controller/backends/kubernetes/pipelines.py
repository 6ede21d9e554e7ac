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


def settings(backend: KubernetesBackend) -> Settings:
    return replace(backend.settings(), run=RUN)


def pipeline(
    backend: KubernetesBackend,
    show: Callable[[Mapping[Stage, JobState]], None] = lambda _: None,
    capacity: Capacity | None = None,
) -> Pipeline:
    return Pipeline(
        backend,
        settings(backend),
        release=RELEASE,
        capacity=capacity or Capacity(2),
        show=show,
        scaler=backend,
        events=Events(backend._api, now=lambda: NOW),
    )


def job(backend: KubernetesBackend, stage: Stage = Stage.EMBED, completions: int = 3) -> dict[str, Any]:
    return pipeline(backend).manifest(stage, completions)


def wait_until(backend: KubernetesBackend, predicate: Callable[[dict[Stage, JobState]], bool]) -> dict[Stage, JobState]:
    while not predicate(jobs := backend.jobs("r1")):
        backend.wait(30)
    return jobs
