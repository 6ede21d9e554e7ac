"""Runs Jobs as processes of this machine, without Kubernetes. Files keep their state:

<home>/jobs/<job>/job.json    the Job with its status, as Kubernetes would store it
<home>/jobs/<job>/lock        locked while the Job runs (controller/backends/processes.py)
<home>/jobs/<job>/<i>.json    termination message of index i
<home>/jobs/<job>/<i>.log     log of index i, all attempts
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller.backends.files import read_job, runs_below
from controller.backends.processes import CONTROLLER_ENDED, Runner, is_locked, now, read_result, tail
from controller.jobs import conditions
from controller.jobs.manifests import job_name, must_be_same
from controller.jobs.results import ErrorResult, IndexReport, Output, exit_error, parse_output, progress
from controller.jobs.state import JobState, Stage, job_state
from imgsearch.errors import ExitCode, TemporaryError, UsageError
from imgsearch.settings import Settings

LOCAL_RELEASE = "local"
"""The release in the names of Jobs on this machine."""
PROGRAMS = {Stage.PLAN: "embedder", Stage.EMBED: "embedder", Stage.INGEST: "searcher"}


class LocalBackend:
    """Jobs below `home`. The processes inherit `env`."""

    def __init__(self, home: Path, *, env: Mapping[str, str]) -> None:
        self._jobs = home / "jobs"
        self._env = _program_env(env)
        self._runners: dict[str, Runner] = {}
        self._changed = threading.Event()

    def template(self, stage: Stage) -> Mapping[str, Any]:
        command = ["python", "-m", PROGRAMS[stage], str(stage)]
        pod = {"containers": [{"name": str(stage), "command": command}]}
        if stage is Stage.PLAN:  # as in a cluster: a model that cannot be used is found before the source is listed
            pod["initContainers"] = [{"name": "model", "command": ["python", "-m", "embedder", "model"]}]
        return {"spec": pod}

    def jobs(self, run: str) -> dict[Stage, JobState]:
        states = {stage: self._state(self._jobs / job_name(LOCAL_RELEASE, run, stage)) for stage in Stage}
        return {stage: state for stage, state in states.items() if state is not None}

    def create(self, job: Mapping[str, Any]) -> None:
        folder = self._jobs / job["metadata"]["name"]
        existing = read_job(folder)
        if existing is not None:
            must_be_same(existing, job)
            return
        folder.mkdir(parents=True, exist_ok=True)
        runner = Runner(folder, job, env=self._env, changed=self._changed)
        runner.start()
        self._runners[folder.name] = runner

    def delete(self, name: str) -> None:
        if runner := self._runners.pop(name, None):
            runner.stop()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._jobs / name)

    def wait(self, seconds: float) -> None:
        self._changed.wait(seconds)
        self._changed.clear()

    def close(self) -> None:
        """Ends the processes: each receives SIGTERM and writes its current part."""
        for runner in self._runners.values():
            runner.terminate()
        for runner in self._runners.values():
            runner.stop()

    def runs(self) -> list[str]:
        return runs_below(self._jobs)

    def call(self, program: str, verb: str, settings: Settings) -> Output:
        process = subprocess.run(
            [sys.executable, "-m", program, verb],
            env={**self._env, **settings.to_env(), "IMGSEARCH_LOG_RESULT_FILE": os.devnull},
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        try:
            response = parse_output(process.stdout.decode())  # text mode would change the line ends of a CSV file
        except ValueError:
            errors = process.stderr.decode(errors="replace").strip()
            raise TemporaryError(f"{program} {verb} exited with code {process.returncode}: {errors}") from None
        if process.returncode == ExitCode.DONE:
            return response
        raise exit_error(process.returncode, ErrorResult.from_json(response.result).error)

    def program(self, program: str, verb: str, settings: Settings) -> int:
        """Runs a program in the foreground, on this terminal, until it ends; returns its exit code."""
        process = subprocess.Popen([sys.executable, "-m", program, verb], env={**self._env, **settings.to_env()})
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # Ctrl-C or SIGTERM: the program shuts down first
                process.terminate()

    def log(self, run: str, stage: Stage, index: int) -> str:
        file = self._jobs / job_name(LOCAL_RELEASE, run, stage) / f"{index}.log"
        if not file.exists():
            raise UsageError(f"run {run} has no {stage} log of shard {index} on this machine")
        return file.read_text()

    def troubles(self) -> list[str]:
        return []  # this machine has no release that could be incomplete

    def parallelism(self) -> int:
        return 1  # one process uses every core

    def _state(self, folder: Path) -> JobState | None:
        job = read_job(folder)
        if job is None:
            return None
        if not job["status"].get("conditions") and not is_locked(folder):
            job = read_job(folder) or job  # it may have ended after the first read
            if not job["status"].get("conditions"):
                runner = self._runners.get(folder.name)
                reason = runner.end_reason if runner else CONTROLLER_ENDED
                job["status"] |= conditions.failed_status("Interrupted", reason, now())
        reports = {}
        for file in folder.glob("*.log"):
            index = int(file.stem)
            reports[index] = IndexReport(read_result(folder / f"{index}.json"), *progress(tail(file)))
        return job_state(job, reports)


def _program_env(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of the programs: without IMGSEARCH_ settings, and with this checkout, if it is one, on the
    path."""
    inherited = {name: value for name, value in env.items() if not name.startswith("IMGSEARCH_")}
    root = Path(__file__).resolve().parents[2]
    if (root / "images" / "embedder").is_dir():
        paths = [str(root), str(root / "images"), *filter(None, [inherited.get("PYTHONPATH")])]
        inherited["PYTHONPATH"] = os.pathsep.join(paths)
    return inherited
