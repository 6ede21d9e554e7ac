"""Reconciles a Job with its tasks: checks them once, and starts, retries and ends tasks accordingly."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from controller.backends.skypilot import attempts
from controller.backends.skypilot.attempts import IndexState, IndexStep, TaskState, TaskStatus
from controller.backends.skypilot.jobfiles import NEVER, JobFolder
from controller.backends.skypilot.placement import TASK
from controller.jobs.results import PROGRESS_LINES, progress
from imgsearch.errors import TemporaryError

log = logging.getLogger(__name__)

LOGS = 3
"""Number of running tasks whose logs are read for progress at each check, in turn: each is an SSH connection."""
SILENT_SECONDS = 600.0
"""Time for which SkyPilot may not answer before that is an error."""


class Tasks(Protocol):
    """Runs tasks by name (SkyTasks in tasks.py). Every method raises TemporaryError where SkyPilot does not answer."""

    def submit(self, name: str, task: Mapping[str, Any]) -> None:
        """Requests a machine and returns at once. `task` has SkyPilot's YAML format; raises UsageError where it is
        invalid."""

    def states(self, names: Sequence[str]) -> Mapping[str, TaskState]:
        """The current state of each task."""

    def log(self, name: str, lines: int | None = None) -> str:
        """The log of a task, or its last `lines`; empty where none is available."""

    def down(self, name: str) -> None:
        """Starts to end its machine and returns at once. Does nothing where there is none."""


class Reconciler:
    """Checks Jobs while their locks are held. `secrets` are variables of the tasks that no file contains."""

    def __init__(self, tasks: Tasks, *, secrets: Mapping[str, str], now: Callable[[], datetime]) -> None:
        self._tasks = tasks
        self._secrets = secrets
        self._now = now
        self._log_read_at: dict[str, datetime] = {}
        self._silent_since: datetime | None = None

    def reconcile(self, folder: JobFolder) -> None:
        """Checks a Job once. Raises TemporaryError where SkyPilot has not answered for SILENT_SECONDS."""
        stored = folder.read()
        assert stored is not None
        try:
            self._advance(folder, stored.job, stored.indexes)
            self._silent_since = None
        except TemporaryError as error:
            self._silent_since = self._silent_since or self._now()
            if self._now() - self._silent_since >= timedelta(seconds=SILENT_SECONDS):
                raise
            log.warning("%s", error)
        finally:
            folder.write_indexes(stored.indexes, self._now())

    def _advance(self, folder: JobFolder, job: Mapping[str, Any], indexes: dict[int, IndexState]) -> None:
        """Changes `indexes` step by step, so that a later error loses nothing."""
        spec = job["spec"]
        self._apply_deadline(job, indexes)
        names = {number: task_name(folder.name, number) for number, index in indexes.items() if index.has_task}
        tasks = self._tasks.states([*names.values()]) if names else {}
        now = self._now()  # the call may take minutes, and its result is that of its end
        for number, name in names.items():
            task, before = tasks[name], indexes[number]
            exit = None
            if task.status is TaskStatus.ENDED and before.step is not IndexStep.STOPPING:
                text = self._tasks.log(name)
                folder.append_log(number, text)
                exit = attempts.parse_exit(text)
                done, total = progress(text.splitlines())
                indexes[number] = replace(before, done=done, total=total)
            indexes[number] = attempts.advanced(indexes[number], task, exit, spec, now)
            lost = before.step is IndexStep.RUNNING and indexes[number].step is IndexStep.QUEUED
            if lost and task.status is TaskStatus.GONE:
                log.warning("the machine of %s was lost; a new one is requested", name)
        for number, name in names.items():
            if indexes[number].step is IndexStep.STOPPING and tasks[name].machine:
                self._tasks.down(name)
        self._read_progress(folder.name, indexes)
        for number in attempts.next_attempts(indexes, spec["parallelism"], now):
            indexes[number] = attempts.submitted(indexes[number], now)
            # Stored before it exists, so that a killed controller leaves no unknown machine.
            folder.write_indexes(indexes, now)
            self._tasks.submit(task_name(folder.name, number), self._task(job, number))

    def _apply_deadline(self, job: Mapping[str, Any], indexes: dict[int, IndexState]) -> None:
        seconds = job["spec"].get("activeDeadlineSeconds")
        if seconds is None:
            return
        now = self._now()
        if now - datetime.fromisoformat(job["status"]["startTime"]) >= timedelta(seconds=seconds):
            for number, index in indexes.items():
                indexes[number] = attempts.given_up(index, f"deadline exceeded: {seconds} s", now)

    def _read_progress(self, job: str, indexes: dict[int, IndexState]) -> None:
        now = self._now()
        running = [number for number, index in indexes.items() if index.step is IndexStep.RUNNING]
        for number in sorted(running, key=lambda i: self._log_read_at.get(task_name(job, i), NEVER))[:LOGS]:
            name = task_name(job, number)
            self._log_read_at[name] = now
            done, total = progress(self._tasks.log(name, PROGRESS_LINES).splitlines())
            if total:
                indexes[number] = replace(indexes[number], done=done, total=total)

    def _task(self, job: Mapping[str, Any], index: int) -> dict[str, Any]:
        """The task of one index: that of the task file when the Job was created, with the run and the secrets."""
        template = job["spec"]["template"]
        container = template["spec"]["containers"][0]
        envs = {entry["name"]: entry["value"] for entry in container["env"]}
        task: dict[str, Any] = json.loads(template["metadata"]["annotations"][TASK])
        return {
            **task,
            "run": attempts.script(container["command"][-1]),
            "envs": {**envs, "JOB_COMPLETION_INDEX": str(index)},
            "secrets": self._secrets,
        }


def task_name(job: str, index: int) -> str:
    return f"{job}-{index}"
