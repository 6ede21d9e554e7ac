"""The Cluster of one machine: each completion index of a Job is a process, and its status is a file.

    <home>/jobs/<job>/job.json    the Job as a cluster would keep it, status and all
    <home>/jobs/<job>/lock        held by whoever runs the Job, its processes included
    <home>/jobs/<job>/<i>.json    termination message of index i
    <home>/jobs/<job>/<i>.log     log of index i, all tries

The lock is inherited by the processes, so after a killed controller the next one sees that they are still at work
and waits for them, instead of starting a second process on the same shard.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from controller.backends.files import runs_below
from controller.jobs.manifests import final_codes, job_name, must_be_same
from controller.jobs.results import Answer, answer, failure, progress
from controller.jobs.state import IndexReport, JobState, Stage, format_indexes, job_state
from imgsearch.errors import ExitCode, TemporaryError, UsageError
from imgsearch.settings import Settings

RELEASE = "local"
GRACE_SECONDS = 30.0
"""How long a process may take to write the part in hand, as terminationGracePeriodSeconds."""
TAIL_BYTES = 16_384
INTERRUPTED = "its processes have ended with their controller"

PROGRAMS = {Stage.PLAN: "embedder", Stage.EMBED: "embedder", Stage.INGEST: "searcher"}


class LocalBackend:
    """Jobs as processes, their state below `home`. `env` is what the processes inherit."""

    def __init__(self, home: Path, *, env: Mapping[str, str]) -> None:
        self._jobs = home / "jobs"
        self._env = _program_env(env)
        self._runners: dict[str, Runner] = {}
        self._changed = threading.Event()

    def template(self, stage: Stage) -> Mapping[str, Any]:
        command = ["python", "-m", PROGRAMS[stage], str(stage)]
        return {"spec": {"containers": [{"name": str(stage), "command": command}]}}

    def jobs(self, run: str) -> dict[Stage, JobState]:
        found = {}
        for stage in Stage:
            folder = self._jobs / job_name(RELEASE, run, stage)
            if (state := self._state(folder)) is not None:
                found[stage] = state
        return found

    def runs(self) -> list[str]:
        """Runs that have a Job here, the latest last."""
        return runs_below(self._jobs)

    def create(self, job: Mapping[str, Any]) -> None:
        folder = self._jobs / job["metadata"]["name"]
        there = _read_job(folder)
        if there is not None:
            must_be_same(there, job)
            return
        folder.mkdir(parents=True, exist_ok=True)
        runner = Runner(folder, job, env=self._env, changed=self._changed)
        self._runners[folder.name] = runner
        runner.start()

    def delete(self, name: str) -> None:
        if runner := self._runners.pop(name, None):
            runner.stop()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._jobs / name)

    def widen(self, job: JobState, parallelism: int) -> None:
        pass  # one process uses every core

    def wait(self, seconds: float) -> None:
        self._changed.wait(seconds)
        self._changed.clear()

    def parallelism(self) -> int:
        return 1  # one process uses every core

    def troubles(self) -> list[str]:
        return []  # there is nothing here that could be half installed

    def stop(self) -> None:
        """Ends what runs: each process gets SIGTERM and writes its part in hand."""
        for runner in self._runners.values():
            runner.terminate()
        for runner in self._runners.values():
            runner.stop()

    def call(self, program: str, verb: str, settings: Settings) -> Answer:
        done = subprocess.run(
            [sys.executable, "-m", program, verb],
            env={**self._env, **settings.to_env(), "IMGSEARCH_LOG_RESULT_FILE": os.devnull},
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        try:
            answered = answer(done.stdout.decode())  # not as text: the line ends of a CSV file are its own
        except ValueError:
            told = done.stderr.decode(errors="replace").strip()
            raise TemporaryError(f"{program} {verb} ended with {done.returncode}: {told}") from None
        if done.returncode == ExitCode.DONE:
            return answered
        raise failure(done.returncode, answered.result.get("error", "it was interrupted"))

    def program(self, program: str, verb: str, settings: Settings) -> int:
        """Runs a program in the foreground, on this terminal, until it ends; returns its exit code."""
        process = subprocess.Popen([sys.executable, "-m", program, verb], env={**self._env, **settings.to_env()})
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # or SIGTERM: the program ends in order, and this with it
                process.terminate()

    def log(self, run: str, stage: Stage, index: int) -> str:
        file = self._jobs / job_name(RELEASE, run, stage) / f"{index}.log"
        if not file.exists():
            raise UsageError(f"run {run} has no {stage} log of shard {index} on this machine")
        return file.read_text()

    def check(self, job: Mapping[str, Any]) -> None:
        pass  # whatever the manifests make can run here

    def tell(self, job: JobState, reason: str, sentence: str, *, warning: bool) -> None:
        pass  # who looks here looks at the Job itself

    def _state(self, folder: Path) -> JobState | None:
        job = _read_job(folder)
        if job is None:
            return None
        if not job["status"].get("conditions") and not _is_locked(folder):
            job = _read_job(folder) or job  # it may have ended between the two looks
            if not job["status"].get("conditions"):
                runner = self._runners.get(folder.name)
                reason = runner.failure if runner else INTERRUPTED
                _conclude(job["status"], "Failed", "Interrupted", reason)
        reports = {}
        for file in folder.glob("*.log"):
            index = int(file.stem)
            reports[index] = IndexReport(_read_result(folder / f"{index}.json"), *progress(_tail(file)))
        return job_state(job, reports)


class Runner:
    """Runs one Job: a process an index, `parallelism` at a time, with the retries that the Job allows."""

    def __init__(
        self, folder: Path, job: Mapping[str, Any], *, env: Mapping[str, str], changed: threading.Event
    ) -> None:
        self._folder = folder
        self._job = {**job, "status": {"startTime": _now(), "active": 0}}
        self._spec = job["spec"]
        self._env = env
        self._changed = changed
        self._stopping = threading.Event()
        self._guard = threading.RLock()  # of the processes and of the Job's status
        self._processes: set[subprocess.Popen[bytes]] = set()
        self.failure = INTERRUPTED
        """Why the Job would stay without an end."""
        self._thread = threading.Thread(target=self._run, name=folder.name)

    def start(self) -> None:
        self._lock = (self._folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._save()
        self._thread.start()

    def terminate(self) -> None:
        """Asks the processes to end; `stop` waits for it."""
        self._stopping.set()
        with self._guard:
            for process in self._processes:
                process.terminate()

    def stop(self) -> None:
        self.terminate()
        self._thread.join(GRACE_SECONDS)
        with self._guard:
            for process in self._processes:
                process.kill()
        self._thread.join()

    def _run(self) -> None:
        completed: set[int] = set()
        failed: set[int] = set()
        status = self._job["status"]
        with self._lock, ThreadPoolExecutor(self._spec["parallelism"]) as pool:
            try:
                for ended in as_completed([pool.submit(self._index, i) for i in range(self._spec["completions"])]):
                    index, succeeded = ended.result()
                    if succeeded is not None:
                        (completed if succeeded else failed).add(index)
                    status["completedIndexes"] = format_indexes(completed)
                    status["failedIndexes"] = format_indexes(failed)
                    self._save()
                if not self._stopping.is_set():
                    if failed:
                        _conclude(status, "Failed", "FailedIndexes", f"indexes {format_indexes(failed)} failed")
                    else:
                        _conclude(status, "Complete", "CompletionsReached", "")
                        status["completionTime"] = _now()
                    self._save()
            except OSError as error:  # a full disk: without its conclusion the Job counts as interrupted
                self._stopping.set()
                self.failure = f"{error.strerror}: {error.filename}"
                self._changed.set()

    def _index(self, index: int) -> tuple[int, bool | None]:
        """Runs one index until it succeeds or has failed for good; None where the Job is being stopped."""
        result = self._folder / f"{index}.json"
        for attempt in range(self._spec["backoffLimitPerIndex"] + 1):
            if self._stopping.is_set():
                return index, None
            result.unlink(missing_ok=True)
            code = self._process(index, result)
            if self._stopping.is_set():
                return index, None
            if code == ExitCode.DONE:
                return index, True
            if _read_result(result) is None:
                result.write_text(json.dumps({"error": _death(code, self._folder)}))
            if code in final_codes(self._spec):
                return index, False
            self._stopping.wait(2.0**attempt)
        return index, False

    def _process(self, index: int, result: Path) -> int:
        container = self._spec["template"]["spec"]["containers"][0]
        env = {
            **self._env,
            **{entry["name"]: entry["value"] for entry in container["env"]},
            "JOB_COMPLETION_INDEX": str(index),
            "IMGSEARCH_LOG_RESULT_FILE": str(result),
        }
        with (self._folder / f"{index}.log").open("ab") as log:
            process = self._started(container["command"], env, log)
            if process is None:
                return ExitCode.INTERRUPTED
            code = process.wait()
        with self._guard:
            self._processes.discard(process)
            self._save()
        return code

    def _started(self, command: list[str], env: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes] | None:
        with self._guard:
            if self._stopping.is_set():
                return None
            process = subprocess.Popen(
                [sys.executable if word == "python" else word for word in command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # the result is in its file
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the controller, which then asks for an orderly end
                pass_fds=[self._lock.fileno()],
            )
            self._processes.add(process)
            self._save()
        return process

    def _save(self) -> None:
        with self._guard:
            self._job["status"]["active"] = len(self._processes)
            partial = self._folder / "job.json.partial"
            partial.write_text(json.dumps(self._job, indent=1))
            partial.replace(self._folder / "job.json")
        self._changed.set()


def _death(code: int, folder: Path) -> str:
    """Why a process left no result."""
    if code == -signal.SIGKILL:
        return "it was killed (SIGKILL): out of memory?"
    if shutil.disk_usage(folder).free < TAIL_BYTES:
        return f"no space left on the disk of {folder}: free some, then give the same command"
    return f"it was killed by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"


def _conclude(status: dict[str, Any], type: str, reason: str, message: str) -> None:
    status["conditions"] = [
        {"type": type, "status": "True", "reason": reason, "message": message, "lastTransitionTime": _now()}
    ]


def _is_locked(folder: Path) -> bool:
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _read_job(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / "job.json").read_text())  # type: ignore[no-any-return]
    except FileNotFoundError:
        return None


def _read_result(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text())  # type: ignore[no-any-return]
    except (FileNotFoundError, ValueError):  # not ended, or just being written
        return None


def _tail(log: Path) -> list[bytes]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().splitlines()


def _program_env(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of the programs: without settings of ours, and with this checkout on the path if it is one."""
    kept = {name: value for name, value in env.items() if not name.startswith("IMGSEARCH_")}
    root = Path(__file__).resolve().parents[2]
    if (root / "images" / "embedder").is_dir():
        paths = [str(root), str(root / "images"), *filter(None, [kept.get("PYTHONPATH")])]
        kept["PYTHONPATH"] = os.pathsep.join(paths)
    return kept


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
