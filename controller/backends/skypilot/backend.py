"""Runs Jobs as SkyPilot tasks, without Kubernetes: each completion index has a machine that SkyPilot rents for it.

No server advances the Jobs: the controller that waits for a run does, one check at a time. All state is in files
(jobfiles.py) and in computed task names. You may kill the controller at any moment, and another one continues; two at
once take turns. Machines without a controller continue, and end by themselves.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from controller.backends.files import runs_below
from controller.backends.skypilot import attempts
from controller.backends.skypilot.attempts import IndexState, IndexStep, TaskStatus
from controller.backends.skypilot.jobfiles import JobFolder, StoredJob
from controller.backends.skypilot.placement import pod_template
from controller.backends.skypilot.reconciler import Reconciler, Tasks, task_name
from controller.backends.skypilot.taskfiles import TASKS, read_task
from controller.gpus.pods import requested_gpus
from controller.jobs.manifests import job_name, must_be_same, quiet
from controller.jobs.results import ErrorResult, IndexReport, Output, exit_error, parse_output
from controller.jobs.state import JobState, Stage, job_state
from controller.jobs.usage import Gpu
from imgsearch import labels
from imgsearch.errors import ExitCode, PermanentError, TemporaryError, UsageError
from imgsearch.settings import Settings

SKY_RELEASE = "imgsearch"
"""The release in the names of Jobs and tasks on rented machines."""
PYTHON = "/opt/venv/bin/python"
"""The Python of our images; it is not on the PATH of SkyPilot's login shell."""
SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_SKIP_SIGNATURE",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "HF_TOKEN",
    "SKYPILOT_DOCKER_USERNAME",
    "SKYPILOT_DOCKER_PASSWORD",
    "SKYPILOT_DOCKER_SERVER",
)
"""Variables that a machine needs to read sources, to write the storage and to pull its image (sky/README.md)."""
CHECK_SECONDS = 15.0
"""Time between two checks of the tasks. A check itself takes seconds, since it calls clouds."""
QUERY_SECONDS = 1800.0
"""Time for a short command to end: its machine boots for minutes."""
PARALLELISM = 4
"""The GPU quota of a new cloud account is usually enough for these."""


@dataclass(frozen=True)
class Taken:
    """Indexes of a Kubernetes Job that run on rented machines."""

    indexes: Mapping[int, IndexState]
    gpus: int
    """GPUs of each machine."""
    gpu: Gpu


class SkyBackend:
    """Jobs below `home`. The machines receive the credentials for storage and sources from `env`. Call `jobs` before
    `wait`: the first names a run, and `wait` advances the runs that were named or created."""

    def __init__(
        self,
        home: Path,
        tasks: Tasks,
        *,
        env: Mapping[str, str],
        files: Path = TASKS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._jobs = home / "sky"
        self._tasks = tasks
        self._secrets = {name: env[name] for name in SECRETS if env.get(name)}
        self._files = files
        self._now = now
        self._sleep = sleep
        self._runs: set[str] = set()
        self._reconciler = Reconciler(tasks, secrets=self._secrets, now=now)

    def template(self, stage: Stage) -> Mapping[str, Any]:
        return pod_template(str(stage), read_task(self._files, stage))

    def jobs(self, run: str) -> dict[Stage, JobState]:
        self._runs.add(run)
        stored = {stage: self._folder(run, stage).read() for stage in Stage}
        return {stage: self._state(job) for stage, job in stored.items() if job}

    def create(self, job: Mapping[str, Any]) -> None:
        folder = JobFolder(self._jobs / job["metadata"]["name"])
        self._runs.add(job["metadata"]["labels"][labels.RUN])
        with folder.locked():
            if stored := folder.read():
                must_be_same(stored.job, job)
                return
            self._start(folder, job, dict.fromkeys(range(job["spec"]["completions"]), IndexState()))

    def delete(self, name: str) -> None:
        folder = JobFolder(self._jobs / name)
        if not folder.exists:
            return
        with folder.locked():
            stored = folder.read()
            indexes = stored.indexes if stored else {}
            left = [task_name(name, i) for i, index in indexes.items() if index.has_task]
            while left:
                states = self._tasks.states(left)
                left = [task for task in left if states[task].machine or states[task].status is TaskStatus.WAITING]
                for task in left:
                    self._tasks.down(task)
                if left:
                    self._sleep(CHECK_SECONDS)
            folder.remove()

    def wait(self, seconds: float) -> None:
        """Advances the runs that this object knows. Raises TemporaryError where SkyPilot does not answer for long."""
        for run in sorted(self._runs):
            for stage in Stage:
                folder = self._folder(run, stage)
                if folder.exists:
                    with folder.locked():
                        if self._is_due(folder):
                            self._reconciler.reconcile(folder)
        self._sleep(seconds)

    def close(self) -> None:
        pass  # machines continue, and end by themselves

    def take(self, job: Mapping[str, Any], numbers: Collection[int]) -> None:
        """Runs these indexes of a Kubernetes Job. More may be taken later, and refused ones again. The annotation
        OVERFLOW_OF distinguishes Jobs of one name: the files of another one are removed first. Raises UsageError where
        the name is that of a Job of this backend."""
        folder = JobFolder(self._jobs / job["metadata"]["name"])
        if stored := folder.read():
            owner = stored.job["metadata"]["annotations"].get(labels.OVERFLOW_OF)
            if owner is None:
                run = job["metadata"]["labels"][labels.RUN]
                raise UsageError(f"run {run} exists on this machine with --backend sky: use another --run")
            if owner != job["metadata"]["annotations"][labels.OVERFLOW_OF]:
                self.delete(folder.name)
        self._runs.add(job["metadata"]["labels"][labels.RUN])
        with folder.locked():
            stored = folder.read()
            indexes = stored.indexes if stored else {}
            new = {i: IndexState() for i in numbers if i not in indexes or attempts.was_refused(indexes[i])}
            if new:
                self._start(folder, stored.job if stored else job, {**indexes, **new})

    def taken(self, run: str, uid: str) -> Taken | None:
        """The indexes that were taken of the embed Job with this uid; None where none were."""
        stored = self._folder(run, Stage.EMBED).read()
        if stored is None or stored.job["metadata"]["annotations"].get(labels.OVERFLOW_OF) != uid:
            return None
        self._runs.add(run)
        return Taken(stored.indexes, _gpus_per_machine(stored.job), self._state(stored).usage.requested)

    def drop(self, run: str, numbers: Collection[int]) -> None:
        """Ends the machines of these taken indexes, because pods have finished them."""
        folder = self._folder(run, Stage.EMBED)
        with folder.locked():
            stored = folder.read()
            assert stored is not None, "the indexes were not taken"
            old = stored.indexes
            dropped = {i: attempts.given_up(old[i], "finished by a pod", self._now()) for i in numbers}
            if any(dropped[i] != old[i] for i in numbers):
                self._start(folder, stored.job, {**old, **dropped})

    def check(self, job: Mapping[str, Any]) -> None:
        """Raises UsageError for a Job that this backend cannot run."""
        if job["metadata"]["labels"].get(labels.QUEUE):
            raise UsageError("jobs.queue needs a cluster with Kueue: remove it, or remove --backend sky")

    def runs(self) -> list[str]:
        return runs_below(self._jobs)

    def call(self, program: str, verb: str, settings: Settings) -> Output:
        """Rents a machine for one command: this takes minutes."""
        name = f"{SKY_RELEASE}-{verb}-{uuid.uuid4().hex[:6]}"
        task = read_task(self._files, Stage.INGEST)
        task |= {
            "envs": quiet(settings).to_env(),
            "run": attempts.script(f"{PYTHON} -m {program} {verb}"),
            "secrets": self._secrets,
        }
        try:
            self._tasks.submit(name, task)
            exit = attempts.parse_exit(self._query_log(name))
            if exit is None:
                raise TemporaryError(f"{program} {verb} exited without a result on its machine: try again")
            if exit.code != ExitCode.DONE:
                error = ErrorResult.from_json(exit.result).error if exit.result else f"exited with code {exit.code}"
                raise exit_error(exit.code, error)
            return parse_output(exit.printed)
        except ValueError as error:
            raise TemporaryError(f"invalid output of {program} {verb}: {error}") from error
        finally:
            self._tasks.down(name)

    def log(self, run: str, stage: Stage, index: int) -> str:
        folder = self._folder(run, stage)
        stored = folder.read()
        if stored is None or index not in stored.indexes:
            raise UsageError(f"run {run} has no {stage} log of shard {index} on this machine")
        running = stored.indexes[index].step is IndexStep.RUNNING
        return folder.read_log(index) + (self._tasks.log(task_name(folder.name, index)) if running else "")

    def troubles(self) -> list[str]:
        """Runs that no controller advances."""
        troubles = []
        for run in self.runs():
            for stage in Stage:
                folder = self._folder(run, stage)
                stored = folder.read()
                if stored and not stored.ended and self._age(folder) > timedelta(seconds=4 * CHECK_SECONDS):
                    troubles.append(f"run {run} ({stage}) has no controller: give the same command again to resume it")
        return troubles

    def parallelism(self) -> int:
        return PARALLELISM

    def _start(self, folder: JobFolder, job: Mapping[str, Any], indexes: Mapping[int, IndexState]) -> None:
        """Stores a Job with these indexes and checks it for the first time. Its lock is held."""
        status = {"startTime": self._now().isoformat(timespec="seconds")}
        folder.write_indexes(indexes)
        folder.write_job({**job, "status": job.get("status") or status})
        self._reconciler.reconcile(folder)

    def _state(self, stored: StoredJob) -> JobState:
        job, indexes = stored.job, stored.indexes
        reports = {
            number: IndexReport(index.result if index.succeeded is not None else None, index.done, index.total)
            for number, index in indexes.items()
        }
        return job_state(
            {**job, "status": attempts.status(job, indexes)},
            reports,
            waiting=attempts.waiting(indexes),
            waiting_since=attempts.waiting_since(indexes),
            gpu_hours={Gpu(): _gpus_per_machine(job) * attempts.machine_hours(indexes, self._now())},
        )

    def _is_due(self, folder: JobFolder) -> bool:
        stored = folder.read()
        return stored is not None and not stored.ended and self._age(folder) >= timedelta(seconds=CHECK_SECONDS)

    def _age(self, folder: JobFolder) -> timedelta:
        """Time since the last check, by any controller."""
        return self._now() - folder.checked_at()

    def _query_log(self, name: str) -> str:
        """The log of a short command, once it has ended."""
        deadline = self._now() + timedelta(seconds=QUERY_SECONDS)
        while True:
            task = self._tasks.states([name])[name]
            if task.status is TaskStatus.ENDED:
                return self._tasks.log(name)
            if task.status is TaskStatus.REFUSED:
                raise PermanentError(task.reason)
            if task.status in (TaskStatus.UNAVAILABLE, TaskStatus.GONE):
                raise TemporaryError(task.reason or f"the machine of {name} was lost: try again")
            if self._now() >= deadline:
                reason = task.reason or task.status
                raise TemporaryError(f"task {name} did not end within {QUERY_SECONDS:.0f} s ({reason}): try again")
            self._sleep(CHECK_SECONDS)

    def _folder(self, run: str, stage: Stage) -> JobFolder:
        return JobFolder(self._jobs / job_name(SKY_RELEASE, run, stage))


def _gpus_per_machine(job: Mapping[str, Any]) -> int:
    return sum(requested_gpus(job["spec"]["template"]["spec"]).values())
