"""Machines that somebody rents by name, each of them a process here: what SkyPilot is to a SkyBackend."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from controller.backends.skypilot.attempts import TaskState, TaskStatus
from controller.backends.skypilot.backend import CHECK_SECONDS, PYTHON
from imgsearch.errors import TemporaryError
from tests.programs import program_env

PREAMBLE = """
import json, os, pathlib, signal, sys, time
index = int(os.environ["JOB_COMPLETION_INDEX"])
here = pathlib.Path.cwd().parent
def leave(**result):
    pathlib.Path(os.environ["IMGSEARCH_LOG_RESULT_FILE"]).write_text(json.dumps(result))
def wait_for(name):
    while not (here / name).exists():
        time.sleep(0.01)
"""
"""How a test's program begins that a machine runs."""


class Machines:
    """Runs the scripts of tasks for real. Tests say what else becomes of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.submitted: list[tuple[str, Mapping[str, Any]]] = []
        self.returned: list[str] = []
        self.state_calls = 0
        self.max_running = 0
        """So many there were at a time."""
        self.unavailable = ""
        """Why no place has a machine; empty: there is one."""
        self.refusal = ""
        """Why none ever will."""
        self.unreachable = False
        """It does not answer."""
        self.wait_seconds = 0.05
        """Seconds that `wait` waits for each task: many where all of them end by themselves, however slow they are."""
        self.booting = False
        """Machines are made ready, and are never done with it."""
        self.keeps_returned = False
        """What is given back is still there."""
        self._failed: dict[str, TaskState] = {}

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.submitted]

    @property
    def running(self) -> list[str]:
        return [*self._processes]

    def submit(self, name: str, task: Mapping[str, Any]) -> None:
        self._check_reachable()
        assert name not in self._processes, f"{name} has a machine already"
        self.submitted.append((name, task))
        self._failed.pop(name, None)
        if self.unavailable:
            self._failed[name] = TaskState(TaskStatus.UNAVAILABLE, self.unavailable)
        elif self.refusal:
            self._failed[name] = TaskState(TaskStatus.REFUSED, self.refusal)
        else:
            self._start(name, task)
        self.max_running = max(self.max_running, len(self._processes))

    def states(self, names: Sequence[str]) -> Mapping[str, TaskState]:
        self._check_reachable()
        self.state_calls += 1
        return {name: self._state(name) for name in names}

    def log(self, name: str, lines: int | None = None) -> str:
        self._check_reachable()
        file = self._folder / name / "log"
        if name not in self._processes or not file.exists():
            return ""
        return "".join(file.read_text().splitlines(keepends=True)[-(lines or 0) :])

    def down(self, name: str) -> None:
        self._check_reachable()
        self.returned.append(name)
        if not self.keeps_returned:
            self.preempt(name)

    def preempt(self, name: str) -> None:
        """As a cloud does with a spot machine."""
        if process := self._processes.pop(name, None):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait(self) -> None:
        """Until a task has ended, if there is one that does."""
        for process in [*self._processes.values()]:
            if process.poll() is None:
                try:
                    process.wait(self.wait_seconds)
                except subprocess.TimeoutExpired:
                    continue
                return

    def close(self) -> None:
        for name in self.running:
            self.preempt(name)

    def _check_reachable(self) -> None:
        if self.unreachable:
            raise TemporaryError("SkyPilot does not answer")

    def _state(self, name: str) -> TaskState:
        if name in self._failed:
            return self._failed[name]
        process = self._processes.get(name)
        if process is None:
            return TaskState(TaskStatus.GONE)
        if self.booting:
            return TaskState(TaskStatus.WAITING, "it boots", machine=True)
        return TaskState(TaskStatus.RUNNING if process.poll() is None else TaskStatus.ENDED, machine=True)

    def _start(self, name: str, task: Mapping[str, Any]) -> None:
        home = self._folder / name
        home.mkdir(parents=True, exist_ok=True)
        inherited = {variable: value for variable, value in os.environ.items() if not variable.startswith("IMGSEARCH_")}
        env = {**inherited, **program_env({}), "HOME": str(home), **task["envs"], **task["secrets"]}
        with (home / "log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                ["/bin/bash", "-c", task["run"].replace(PYTHON, sys.executable)],
                cwd=home,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


class Clock:
    """A look passes with every sleep."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def sleep(self, seconds: float) -> None:
        self._machines.wait()
        self.time += timedelta(seconds=max(seconds, CHECK_SECONDS))
