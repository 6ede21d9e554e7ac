"""Backends run Jobs: as processes of this machine, in a Kubernetes cluster, or on machines that SkyPilot rents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from controller.jobs.results import Output
from controller.jobs.state import JobState, Stage
from imgsearch.settings import Settings


class JobBackend(Protocol):
    """The Jobs of one run, for the loop that drives it."""

    def template(self, stage: Stage) -> Mapping[str, Any]:
        """The core/v1 PodTemplateSpec of a stage's pods."""

    def jobs(self, run: str) -> dict[Stage, JobState]:
        """The existing Jobs of a run, with their current states."""

    def create(self, job: Mapping[str, Any]) -> None:
        """Creates a Job. Does nothing where it exists already; raises PermanentError where its name is taken by
        another."""

    def delete(self, name: str) -> None:
        """Deletes a Job with its pods and waits until these have ended. Does nothing where it does not exist."""

    def wait(self, seconds: float) -> None:
        """Returns after `seconds`, or earlier when a Job may have changed."""

    def close(self) -> None:
        """Frees the resources of this object. Processes of this machine end; other Jobs continue."""


class Queries(Protocol):
    """Questions about all runs, for the commands beside `run-pipeline`."""

    def runs(self) -> list[str]:
        """Runs that have a Job, the latest last."""

    def call(self, program: str, verb: str, settings: Settings) -> Output:
        """Runs a short program where the data is, and returns its output. Raises its error."""

    def log(self, run: str, stage: Stage, index: int) -> str:
        """The log of one index of a stage. Raises UsageError where it no longer exists."""

    def troubles(self) -> list[str]:
        """Problems of the backend itself, one sentence each."""

    def parallelism(self) -> int:
        """The default number of shards at a time."""


class Backend(JobBackend, Queries, Protocol):
    """A backend for every command."""


class Scaler(Protocol):
    """Changes the number of pods of a running Job."""

    def widen(self, job: JobState, parallelism: int) -> None:
        """Lets an active Job have more pods at a time."""


class EventRecorder(Protocol):
    """Records events of a Job for people who look at it later."""

    def record(self, job: JobState, reason: str, message: str, *, warning: bool) -> None: ...
