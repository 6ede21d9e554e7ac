"""Runs one Job as processes of this machine, one for each completion index.

The processes inherit the lock of the Job. After a killed controller, the next one sees from the lock that they still
run, and waits for them instead of starting a second process on the same shard.
"""

from __future__ import annotations

import fcntl
import json
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

from controller.backends.files import lock, write_json
from controller.jobs import conditions
from controller.jobs.indexes import format_indexes
from controller.jobs.manifests import final_codes
from controller.jobs.results import ErrorResult
from imgsearch.errors import ExitCode, os_reason

GRACE_SECONDS = 30.0
"""Time for a process to write its current part, like terminationGracePeriodSeconds."""
TAIL_BYTES = 16_384
FULL_DISK_BYTES = 16_384
"""A disk with less free space counts as full."""
CONTROLLER_ENDED = "its processes ended with their controller"


class Runner:
    """Runs the indexes of a Job, `parallelism` at a time, with the Job's retries."""

    def __init__(
        self, folder: Path, job: Mapping[str, Any], *, env: Mapping[str, str], changed: threading.Event
    ) -> None:
        self._folder = folder
        self._job = {**job, "status": {"startTime": now(), "active": 0}}
        self._spec = job["spec"]
        self._env = env
        self._changed = changed
        self._stopping = threading.Event()
        self._guard = threading.RLock()  # of the processes and of the Job's status
        self._processes: set[subprocess.Popen[bytes]] = set()
        self.end_reason = CONTROLLER_ENDED
        """The reason why the Job ends without a condition."""
        self._thread = threading.Thread(target=self._run, name=folder.name)

    def start(self) -> None:
        self._lock = (self._folder / "lock").open("w")
        try:
            lock(self._lock, fcntl.LOCK_EX)
            self._save()
        except BaseException:
            self._lock.close()
            raise
        self._thread.start()

    def terminate(self) -> None:
        """Sends SIGTERM to the processes, without waiting."""
        self._stopping.set()
        with self._guard:
            for process in self._processes:
                process.terminate()

    def stop(self) -> None:
        """Ends the processes, after GRACE_SECONDS by SIGKILL."""
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
                for future in as_completed([pool.submit(self._index, i) for i in range(self._spec["completions"])]):
                    index, succeeded = future.result()
                    if succeeded is not None:
                        (completed if succeeded else failed).add(index)
                    status["completedIndexes"] = format_indexes(completed)
                    status["failedIndexes"] = format_indexes(failed)
                    self._save()
                if not self._stopping.is_set():
                    status |= conditions.end_status(failed, now())
                    self._save()
            except OSError as error:  # a full disk: without a condition the Job counts as interrupted
                self._stopping.set()
                self.end_reason = os_reason(error)
                self._changed.set()

    def _index(self, index: int) -> tuple[int, bool | None]:
        """Runs one index until it succeeds or fails for good; None where the Job is being stopped."""
        result = self._folder / f"{index}.json"
        for attempt in range(self._spec["backoffLimitPerIndex"] + 1):
            if self._stopping.is_set():
                return index, None
            code = self._pod(index, result)
            if self._stopping.is_set():
                return index, None
            if code == ExitCode.DONE:
                return index, True
            if read_result(result) is None:
                write_json(result, ErrorResult(_exit_reason(code, self._folder)).to_json())
            if code in final_codes(self._spec):
                return index, False
            self._stopping.wait(2.0**attempt)
        return index, False

    def _pod(self, index: int, result: Path) -> int:
        """Runs the init containers, then the container. Returns the exit code of the first that fails, or 0."""
        pod = self._spec["template"]["spec"]
        for container in [*pod.get("initContainers", []), pod["containers"][0]]:
            if code := self._process(container, index, result):
                return code
        return ExitCode.DONE

    def _process(self, container: Mapping[str, Any], index: int, result: Path) -> int:
        env = {
            **self._env,
            **{entry["name"]: entry["value"] for entry in container["env"]},
            "JOB_COMPLETION_INDEX": str(index),
            "IMGSEARCH_LOG_RESULT_FILE": str(result),
        }
        result.unlink(missing_ok=True)  # that of an earlier attempt or of an init container
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
                start_new_session=True,  # Ctrl-C must reach the controller only, which then sends SIGTERM
                pass_fds=[self._lock.fileno()],
            )
            self._processes.add(process)
            self._save()
        return process

    def _save(self) -> None:
        with self._guard:
            self._job["status"]["active"] = len(self._processes)
            write_json(self._folder / "job.json", self._job)
        self._changed.set()


def is_locked(folder: Path) -> bool:
    """Whether a controller or a process still works on the Job of this folder."""
    try:
        with (folder / "lock").open() as file:
            lock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def read_result(file: Path) -> dict[str, Any] | None:
    """A termination message; None while there is none, or only a part of one."""
    try:
        return json.loads(file.read_text())  # type: ignore[no-any-return]
    except (FileNotFoundError, ValueError):
        return None


def tail(log: Path) -> list[bytes]:
    """The last lines of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().splitlines()


def _exit_reason(code: int, folder: Path) -> str:
    """The probable reason why a process left no result."""
    if code == -signal.SIGKILL:
        return "killed (SIGKILL): probably out of memory"
    if shutil.disk_usage(folder).free < FULL_DISK_BYTES:
        return f"no space left on the disk of {folder}: free some space, then run the same command again"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
