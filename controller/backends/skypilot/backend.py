"""The Cluster of people without one: each completion index of a Job is a task on a machine that SkyPilot rents for it.

    <home>/sky/<job>/job.json       the Job as a cluster would keep it, without its status
    <home>/sky/<job>/indexes.json   how far each completion index is
    <home>/sky/<job>/<i>.log        what index i has logged, all tries
    <home>/sky/<job>/lock           held while somebody moves the Job on

There is no controller-manager: whoever waits for a run moves it on, one look at a time, and everything between two
looks is in these files and in the names of the tasks, which are computed. So a controller may be killed at any moment
and another one goes on; two at once take turns. Machines without any controller go on, and end by themselves.

What the tasks are, their images and GPUs, is in the files of the repository's folder sky/, as SkyPilot reads them.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import yaml

from controller.backends.files import runs_below
from controller.backends.kubernetes import pods
from controller.backends.skypilot import attempts
from controller.backends.skypilot.attempts import Index, Look, Seen, Step
from controller.gpus.accelerators import Kind
from controller.gpus.nodes import NVIDIA, Spot
from controller.jobs.manifests import job_name, must_be_same
from controller.jobs.results import Answer, answer, failure, progress
from controller.jobs.state import Gpu, IndexReport, JobState, Stage, job_state
from imgsearch import labels
from imgsearch.errors import ExitCode, PermanentError, TemporaryError, UsageError
from imgsearch.settings import PREFIX, LogSettings, Settings

log = logging.getLogger(__name__)

RELEASE = "imgsearch"
_PACKAGED = Path(__file__).with_name("task_files")
TASKS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).resolve().parents[3] / "sky"
"""The tasks as SkyPilot reads them: the copy that a wheel has, or the folder of a checkout."""
TASK = "imgsearch.dev/sky-task"
"""Annotation of a pod template: the task that it is, as JSON."""
PYTHON = "/opt/venv/bin/python"
"""Where our images have it; the login shell of SkyPilot has not their PATH."""
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
"""What a machine has to be told to read sources, to write the storage and to pull its image (sky/README.md)."""
NEVER = datetime.min.replace(tzinfo=UTC)
LOOK_SECONDS = 15.0
"""A look asks clouds, so it takes seconds itself."""
LOGS = 3
"""So many running tasks are asked how far they are at each look, in turn: each answer comes through SSH."""
PATIENCE_SECONDS = 600.0
"""So long SkyPilot may not answer before it is an error."""
ERRAND_SECONDS = 1800.0
"""A machine boots for minutes."""
PARALLELISM = 4
"""What the GPU quota of a new cloud account is mostly enough for."""


class Tasks(Protocol):
    """Runs tasks by name: SkyPilot (tasks.py). Every call raises TemporaryError where it does not
    answer."""

    def submit(self, name: str, task: Mapping[str, Any]) -> None:
        """Begins to look for a machine and returns. `task` is what a YAML file of SkyPilot's says. Raises UsageError
        where it is none."""

    def look(self, names: Sequence[str]) -> Mapping[str, Look]:
        """Each of these tasks as it stands now."""

    def log(self, name: str, lines: int | None = None) -> str:
        """What a task has logged, or only so many of its last lines; empty where nothing can be had any more."""

    def down(self, name: str) -> None:
        """Begins to give its machine back, and returns; one that is not there is no error."""


@dataclass(frozen=True)
class Taken:
    """The indexes of somebody else's Job that a SkyCluster has."""

    indexes: Mapping[int, Index]
    gpus: int
    """What each machine has."""
    gpu: Gpu


def settings(files: Path, env: Mapping[str, str]) -> Settings:
    """What the files of the tasks say, and before that the environment. Raises UsageError where storage or store are
    not said, or are on this machine."""
    told: dict[str, str] = {}
    for stage in Stage:
        given = _file(files, stage).get("envs") or {}
        told |= {name: str(value) for name, value in given.items() if value is not None}
    told |= {name: value for name, value in env.items() if name.startswith(f"{PREFIX}_")}
    made = Settings.from_env({name: value for name, value in told.items() if value})
    for name, url in (("STORAGE_URI", made.storage.uri), ("STORE_URL", made.store.url)):
        if not url or "file:" in url:
            raise UsageError(
                f"set {PREFIX}_{name} to what every machine can reach ({url or 'it is not set'}): see sky/README.md"
            )
    return made


class SkyCluster:
    """Jobs as tasks of SkyPilot, their state below `home`. `env` is that of the controller, whose credentials for
    storage and sources the machines get. `jobs` and `wait` belong together: the first names a run, the second moves it
    on, as whoever creates its Job does."""

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
        self._asked_of: dict[str, datetime] = {}
        self._silent: datetime | None = None
        self._choice: tuple[tuple[Kind, ...], Spot | None] = (), None

    def choose(self, kinds: Sequence[Kind], spot: Spot | None) -> None:
        """On which GPUs and machines the next embed Jobs run, in place of what embed.yaml says; the cheapest first.
        Without kinds the GPUs stay what they are, and with `spot` None whether machines are spot machines."""
        self._choice = tuple(kinds), spot

    def template(self, stage: Stage) -> Mapping[str, Any]:
        task = _file(self._files, stage)
        if stage is Stage.EMBED and any(self._choice):
            task["resources"] = _chosen(task["resources"], *self._choice)
        envs = {name: str(value) for name, value in (task.get("envs") or {}).items() if value is not None}
        gpus, spot = _gpus(task["resources"])
        notes = {TASK: json.dumps(task)}
        if len(gpus) == 1:
            notes |= {labels.ACCELERATOR: next(iter(gpus)), labels.SPOT: spot}
        container = {
            "name": str(stage),
            "image": str(task["resources"].get("image_id", "")).removeprefix("docker:"),
            "command": ["bash", "-c", task["run"]],
            "env": [{"name": name, "value": value} for name, value in envs.items()],
            "resources": {"limits": {NVIDIA: str(max(gpus.values()))}} if gpus else {},
        }
        return {"metadata": {"annotations": notes}, "spec": {"containers": [container]}}

    def jobs(self, run: str) -> dict[Stage, JobState]:
        self._runs.add(run)
        found = {}
        for stage in Stage:
            if kept := self._read(self._folder(run, stage)):
                found[stage] = self._state(*kept)
        return found

    def runs(self) -> list[str]:
        return runs_below(self._jobs)

    def create(self, job: Mapping[str, Any]) -> None:
        folder = self._jobs / job["metadata"]["name"]
        self._runs.add(job["metadata"]["labels"][labels.RUN])
        with _locked(folder):
            if kept := self._read(folder):
                must_be_same(kept[0], job)
                return
            self._begin(folder, job, dict.fromkeys(range(job["spec"]["completions"]), Index()))

    def take(self, job: Mapping[str, Any], numbers: Collection[int]) -> None:
        """Runs these completion indexes of a Job whose others are somebody else's; more of them may be taken later,
        and those again that no place was to have. The annotation OVERFLOW_OF tells the Jobs of a name apart: what is
        left of another one is removed first. Raises UsageError where the name is that of a whole Job."""
        folder = self._jobs / job["metadata"]["name"]
        if kept := self._read(folder):
            whose = kept[0]["metadata"]["annotations"].get(labels.OVERFLOW_OF)
            if whose is None:
                run = job["metadata"]["labels"][labels.RUN]
                raise UsageError(f"run {run} is one of --backend sky on this machine: give another --run")
            if whose != job["metadata"]["annotations"][labels.OVERFLOW_OF]:
                self.delete(folder.name)
        self._runs.add(job["metadata"]["labels"][labels.RUN])
        with _locked(folder):
            kept = self._read(folder)
            there = kept[1] if kept else {}
            new = {i: Index() for i in numbers if i not in there or attempts.was_refused(there[i])}
            if new:
                self._begin(folder, kept[0] if kept else job, {**there, **new})

    def taken(self, run: str, job: str) -> Taken | None:
        """What there is of the embed Job with this uid; None where nothing of it was taken."""
        folder = self._folder(run, Stage.EMBED)
        kept = self._read(folder)
        if kept is None or kept[0]["metadata"]["annotations"].get(labels.OVERFLOW_OF) != job:
            return None
        self._runs.add(run)
        return Taken(kept[1], _per_machine(kept[0]), self._state(*kept).asked)

    def drop(self, run: str, numbers: Collection[int]) -> None:
        """Gives back the machines of these indexes of an embed Job that were taken: nobody wants them any more."""
        folder = self._folder(run, Stage.EMBED)
        with _locked(folder):
            kept = self._read(folder)
            assert kept is not None, "it was not taken"
            job, indexes = kept
            dropped = {i: attempts.given_up(indexes[i], "it was done elsewhere", self._now()) for i in numbers}
            if any(dropped[i] != indexes[i] for i in numbers):
                self._begin(folder, job, {**indexes, **dropped})

    def check(self, job: Mapping[str, Any]) -> None:
        if job["metadata"]["labels"].get(labels.QUEUE):
            raise UsageError("a Kueue queue admits Jobs of a cluster: leave out jobs.queue")

    def delete(self, name: str) -> None:
        folder = self._jobs / name
        if not folder.is_dir():
            return
        with _locked(folder):
            kept = self._read(folder)
            indexes = kept[1] if kept else {}
            left = [_task(name, i) for i, index in indexes.items() if index.step not in (Step.WANTS, Step.OVER)]
            while left:
                looks = self._tasks.look(left)
                left = [task for task in left if looks[task].machine or looks[task].seen is Seen.WAITING]
                for task in left:
                    self._tasks.down(task)
                if left:
                    self._sleep(LOOK_SECONDS)
            shutil.rmtree(folder)

    def widen(self, job: JobState, parallelism: int) -> None:
        folder = self._jobs / job.name
        with _locked(folder):
            if kept := self._read(folder):
                spec = {**kept[0]["spec"], "parallelism": parallelism}
                _save(folder / "job.json", {**kept[0], "spec": spec})

    def wait(self, seconds: float) -> None:
        """Moves on the runs that this object has had to do with. Raises TemporaryError where SkyPilot has not answered
        for long."""
        for run in sorted(self._runs):
            for stage in Stage:
                folder = self._folder(run, stage)
                if folder.is_dir():
                    with _locked(folder):
                        if self._is_due(folder):
                            self._move(folder)
        self._sleep(seconds)

    def tell(self, job: JobState, reason: str, sentence: str, *, warning: bool) -> None:
        pass  # who looks here looks at the Job itself

    def call(self, program: str, verb: str, settings: Settings) -> Answer:
        """A machine for one question: minutes, and cents."""
        # Quiet: a task's log has both of its streams in it.
        quiet = replace(settings, log=LogSettings(level="CRITICAL"))
        name = f"{RELEASE}-{verb}-{uuid.uuid4().hex[:6]}"
        task = _file(self._files, Stage.INGEST)
        task |= {
            "envs": quiet.to_env(),
            "run": attempts.script(f"{PYTHON} -m {program} {verb}"),
            "secrets": self._secrets,
        }
        try:
            self._tasks.submit(name, task)
            end = attempts.end(self._ended(name))
            if end is None:
                raise TemporaryError(f"{program} {verb} has ended without a word on its machine: try again")
            if end.code != ExitCode.DONE:
                sentence = (end.result or {}).get("error", f"it ended with exit code {end.code}")
                raise failure(end.code, str(sentence))
            return answer(end.printed)
        except ValueError as error:
            raise TemporaryError(f"{program} {verb} has not answered as it should: {error}") from error
        finally:
            self._tasks.down(name)

    def log(self, run: str, stage: Stage, index: int) -> str:
        folder = self._folder(run, stage)
        kept = self._read(folder)
        if kept is None or index not in kept[1]:
            raise UsageError(f"run {run} has no {stage} {index} here")
        before = (folder / f"{index}.log").read_text() if (folder / f"{index}.log").exists() else ""
        running = kept[1][index].step is Step.RUNS
        return before + (self._tasks.log(_task(folder.name, index)) if running else "")

    def parallelism(self) -> int:
        return PARALLELISM

    def troubles(self) -> list[str]:
        """Runs that nobody moves on: what their machines have done is seen only by who looks."""
        found = []
        for run in self.runs():
            for stage in Stage:
                folder = self._folder(run, stage)
                kept = self._read(folder)
                if kept and not _over(kept[1]) and self._age(folder) > timedelta(seconds=4 * LOOK_SECONDS):
                    found.append(f"no controller is at work on run {run} ({stage}): the same command goes on with it")
        return found

    def stop(self) -> None:
        pass  # machines go on, and end by themselves

    def _begin(self, folder: Path, job: Mapping[str, Any], indexes: Mapping[int, Index]) -> None:
        """Goes on with these indexes of a Job from now. Its lock is held."""
        started = {"startTime": self._now().isoformat(timespec="seconds")}
        _save(folder / "indexes.json", _written(indexes))
        _save(folder / "job.json", {**job, "status": job.get("status") or started})
        self._move(folder)

    def _state(self, job: Mapping[str, Any], indexes: Mapping[int, Index]) -> JobState:
        reports = {
            i: IndexReport(index.result if index.succeeded is not None else None, index.done, index.total)
            for i, index in indexes.items()
        }
        return job_state(
            {**job, "status": attempts.status(job, indexes)},
            reports,
            waiting=attempts.waiting(indexes),
            waiting_since=attempts.waiting_since(indexes),
            gpu_hours={Gpu(): _per_machine(job) * attempts.machine_hours(indexes, self._now())},
        )

    def _is_due(self, folder: Path) -> bool:
        kept = self._read(folder)
        return kept is not None and not _over(kept[1]) and self._age(folder) >= timedelta(seconds=LOOK_SECONDS)

    def _age(self, folder: Path) -> timedelta:
        """Since it was last looked at, by whomever."""
        looked = datetime.fromisoformat(json.loads((folder / "indexes.json").read_text())["looked"])
        return self._now() - looked

    def _move(self, folder: Path) -> None:
        """One look at the tasks of a Job, and what follows from it. Its lock is held."""
        kept = self._read(folder)
        assert kept is not None
        job, indexes = kept
        try:
            self._advance(folder, job, indexes)
            self._silent = None
        except TemporaryError as error:
            self._silent = self._silent or self._now()
            if self._now() - self._silent >= timedelta(seconds=PATIENCE_SECONDS):
                raise
            log.warning("%s", error)
        finally:
            _save(folder / "indexes.json", _written(indexes, self._now()))

    def _advance(self, folder: Path, job: Mapping[str, Any], indexes: dict[int, Index]) -> None:
        """Changes `indexes` as it goes: what is known is kept, also where the next question has no answer."""
        spec = job["spec"]
        self._mind_deadline(job, indexes)
        known = {i: _task(folder.name, i) for i, index in indexes.items() if index.step not in (Step.WANTS, Step.OVER)}
        looks = self._tasks.look([*known.values()]) if known else {}
        now = self._now()  # a look may take minutes, and what it sees is as of its end
        for i, name in known.items():
            look, before = looks[name], indexes[i]
            end = None
            if look.seen is Seen.ENDED and before.step is not Step.LEAVES:
                text = self._tasks.log(name)
                with (folder / f"{i}.log").open("a") as kept:
                    kept.write(text)
                end = attempts.end(text)
                done, total = progress(text.splitlines())
                indexes[i] = replace(before, done=done, total=total)
            indexes[i] = attempts.advanced(indexes[i], look, end, spec, now)
            if before.step is Step.RUNS and indexes[i].step is Step.WANTS and look.seen is Seen.GONE:
                log.warning("the machine of %s was taken away: it gets another", name)
        for i, name in known.items():
            if indexes[i].step is Step.LEAVES and looks[name].machine:
                self._tasks.down(name)
        self._ask(folder.name, indexes)
        for i in attempts.next_tries(indexes, spec["parallelism"], now):
            indexes[i] = attempts.submitted(indexes[i], now)
            # Before it is there: what is kept names it, whatever happens next.
            _save(folder / "indexes.json", _written(indexes, now))
            self._tasks.submit(_task(folder.name, i), self._made(job, i))

    def _mind_deadline(self, job: Mapping[str, Any], indexes: dict[int, Index]) -> None:
        seconds = job["spec"].get("activeDeadlineSeconds")
        if seconds is None:
            return
        now = self._now()
        if now - datetime.fromisoformat(job["status"]["startTime"]) >= timedelta(seconds=seconds):
            for i, index in indexes.items():
                indexes[i] = attempts.given_up(index, f"its stage was active longer than {seconds} s", now)

    def _ask(self, job: str, indexes: dict[int, Index]) -> None:
        """How far the running ones are."""
        now = self._now()
        running = [i for i, index in indexes.items() if index.step is Step.RUNS]
        for i in sorted(running, key=lambda i: self._asked_of.get(_task(job, i), NEVER))[:LOGS]:
            self._asked_of[_task(job, i)] = now
            done, total = progress(self._tasks.log(_task(job, i), 50).splitlines())
            if total:
                indexes[i] = replace(indexes[i], done=done, total=total)

    def _made(self, job: Mapping[str, Any], index: int) -> dict[str, Any]:
        """The task of one index: what its file said when the Job was made, and the run. Credentials are not kept."""
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

    def _ended(self, errand: str) -> str:
        """The log of an errand once it has ended."""
        given_up = self._now() + timedelta(seconds=ERRAND_SECONDS)
        while True:
            look = self._tasks.look([errand])[errand]
            if look.seen is Seen.ENDED:
                return self._tasks.log(errand)
            if look.seen is Seen.REFUSED:
                raise PermanentError(look.why)
            if look.seen in (Seen.NOWHERE, Seen.GONE):
                raise TemporaryError(look.why or f"the machine of {errand} was taken away: try again")
            if self._now() >= given_up:
                raise TemporaryError(f"{errand} has not answered in {ERRAND_SECONDS:.0f} s: {look.why or look.seen}")
            self._sleep(LOOK_SECONDS)

    def _folder(self, run: str, stage: Stage) -> Path:
        return self._jobs / job_name(RELEASE, run, stage)

    def _read(self, folder: Path) -> tuple[dict[str, Any], dict[int, Index]] | None:
        try:
            job = json.loads((folder / "job.json").read_text())
            kept = json.loads((folder / "indexes.json").read_text())["indexes"]
        except FileNotFoundError:
            return None
        return job, {int(i): Index.from_json(each) for i, each in kept.items()}


def _file(files: Path, stage: Stage) -> dict[str, Any]:
    file = files / f"{stage}.yaml"
    try:
        task: dict[str, Any] = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise UsageError(
            f"there is no {file}: name the folder of the tasks with --sky-tasks (sky/ in the repository is one)"
        ) from None
    except yaml.YAMLError as error:
        raise UsageError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(task, dict) or not isinstance(task.get("run"), str) or "resources" not in task:
        raise UsageError(f"{file} is no task: it needs `resources` and `run`")
    return task


def _task(job: str, index: int) -> str:
    return f"{job}-{index}"


def _per_machine(job: Mapping[str, Any]) -> int:
    """GPUs."""
    return sum(pods.gpus(job["spec"]["template"]["spec"]).values())


def _over(indexes: Mapping[int, Index]) -> bool:
    return all(index.step is Step.OVER for index in indexes.values())


def _chosen(resources: Mapping[str, Any], kinds: Sequence[Kind], spot: Spot | None) -> dict[str, Any]:
    """The resources of a task, with other GPUs or machines."""
    either = [{"accelerators": f"{kind.name}:{kind.count}"} for kind in kinds] or _alternatives(resources)
    if spot is not None:
        # SkyPilot takes the cheapest that is to be had, which is a spot machine where there is one.
        wanted = {Spot.ONLY: [True], Spot.NEVER: [False], Spot.PREFER: [True, False]}[spot]
        either = [{**each, "use_spot": use} for use in wanted for each in either]
    return {**{name: value for name, value in resources.items() if name != "ordered"}, "any_of": either}


def _alternatives(resources: Mapping[str, Any]) -> list[dict[str, Any]]:
    return resources.get("any_of") or resources.get("ordered") or [{}]


def _gpus(resources: Mapping[str, Any]) -> tuple[dict[str, int], str]:
    """How many of which a machine may have, and what is asked of spot machines, in the words of Spot."""
    found: dict[str, int] = {}
    spots = set()
    for one in _alternatives(resources):
        asked = {**resources, **one}.get("accelerators") or {}
        if isinstance(asked, str):
            name, _, count = asked.partition(":")
            asked = {name: count or 1}
        found |= {name: int(count) for name, count in dict(asked).items()}
        spots.add(bool({**resources, **one}.get("use_spot")))
    return found, Spot.PREFER if len(spots) > 1 else Spot.ONLY if True in spots else Spot.NEVER


def _written(indexes: Mapping[int, Index], looked: datetime = NEVER) -> dict[str, Any]:
    return {"looked": looked.isoformat(), "indexes": {i: asdict(index) for i, index in indexes.items()}}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """For one look: controllers take turns."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _save(file: Path, content: Mapping[str, Any]) -> None:
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(json.dumps(content, indent=1))
    os.replace(partial, file)
