"""The Prometheus metrics of a run, while a controller drives it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from controller.jobs.state import JobState, Phase, Stage, planned


class RunMetrics(Collector):
    """Gauges of one run, computed from the last state of its Jobs, so a deleted Job has no gauges. Thread-safe."""

    def __init__(self, run: str, index: str) -> None:
        self.registry = CollectorRegistry()
        self._run = run
        self._index = index
        self._jobs: Mapping[Stage, JobState] = {}
        self.registry.register(self)

    def show(self, jobs: Mapping[Stage, JobState]) -> None:
        self._jobs = jobs

    def collect(self) -> Iterator[GaugeMetricFamily]:
        jobs = self._jobs
        yield self._gauge(
            "state",
            "1 for the current state of a stage.",
            ("stage", "state"),
            {(stage, phase): phase is job.phase for stage, job in jobs.items() for phase in Phase},
        )
        yield self._gauge(
            "shards",
            "Shards of a stage.",
            ("stage", "state"),
            {(stage, state): count for stage, job in jobs.items() for state, count in _shards(job).items()},
        )
        yield self._gauge(
            "images",
            "Images planned, finished and bad.",
            ("state",),
            {(state,): count for state, count in _images(jobs).items()},
        )
        yield self._gauge(
            "waiting_pods",
            "Pods that do not run yet. Refused pods count where no pod exists.",
            ("stage",),
            {(stage,): _waiting(job) for stage, job in jobs.items()},
        )
        yield self._gauge(
            "lost_pods",
            "Pods that cannot end, because their node does not answer.",
            ("stage",),
            {(stage,): sum(node.pods for node in job.lost_nodes) for stage, job in jobs.items()},
        )
        yield self._gauge(
            "gpu_hours",
            "GPU hours that the pods of a stage have used so far.",
            ("stage",),
            {(stage,): job.usage.total for stage, job in jobs.items()},
        )

    def _gauge(
        self, name: str, help: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]
    ) -> GaugeMetricFamily:
        gauge = GaugeMetricFamily(f"imgsearch_run_{name}", help, labels=["run", "index", *labels])
        for label_values, value in values.items():
            gauge.add_metric([self._run, self._index, *label_values], value)
        return gauge


def _waiting(job: JobState) -> int:
    return sum(job.waiting.values()) if job.active else sum([*job.waiting.values(), *job.refused.values()])


def _shards(job: JobState) -> dict[str, int]:
    return {
        "planned": job.completions,
        "done": len(job.succeeded),
        "failed": len(job.failed),
        "active": job.active,
    }


def _images(jobs: Mapping[Stage, JobState]) -> dict[str, int]:
    images = {}
    if Stage.PLAN in jobs:
        plan = planned(jobs)
        images["planned"] = plan.images if plan else 0
    if embed := jobs.get(Stage.EMBED):
        images |= {"finished": embed.images_done, "bad": embed.images_bad}
    return images
