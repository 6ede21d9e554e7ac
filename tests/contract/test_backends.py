"""The three places that run Jobs, held to the same: processes here, machines of SkyPilot's, pods of a Kubernetes.

The programs are the real ones. Machines and pods are processes, too; what rents and schedules them is played."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from controller.backends import Backend, local
from controller.backends.kubernetes.api import Api
from controller.backends.kubernetes.backend import KubernetesBackend
from controller.backends.local import LocalBackend
from controller.backends.skypilot import backend
from controller.backends.skypilot.backend import SkyBackend
from controller.jobs import manifests
from controller.jobs.state import JobState, Phase, Stage
from controller.run.capacity import Capacity
from controller.run.loop import Pipeline
from controller.run.steps import Failed, Finished
from imgsearch.errors import PermanentError, UsageError
from imgsearch.settings import JobSettings, RunSettings, Settings, StorageSettings, StoreSettings
from tests import forks
from tests.controller.apifaults import refusal
from tests.controller.apiserver import NAMESPACE, ApiServer
from tests.controller.machines import Clock, Machines
from tests.controller.objects import RELEASE, Object, release
from tests.controller.workers import Ended, Unfinished, Workers
from tests.programs import program_env

Photos = Callable[[int], Path]


class Kubelets(Workers):
    """Pods that run their program for real."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        super().__init__(server, self._run)
        self._folder = folder
        self._env: dict[str, str] = {}

    def _run_pods(self, job: Object) -> None:
        container = job["spec"]["template"]["spec"]["containers"][0]
        self._env = {entry["name"]: entry["value"] for entry in container["env"]}
        super()._run_pods(job)

    def _run(self, command: list[str], index: int) -> Ended | Unfinished:
        message, output, errors = (self._folder / name for name in ("termination-log", "output", "errors"))
        for file in (message, output, errors):
            file.unlink(missing_ok=True)
        variables = {"JOB_COMPLETION_INDEX": str(index), "IMGSEARCH_LOG_RESULT_FILE": str(message)}
        _, _, program, verb = command  # python -m PROGRAM VERB
        process = forks.start(program, verb, env=program_env({**self._env, **variables}), output=output, errors=errors)
        process.join()
        result, code = json.loads(message.read_text()), process.exitcode
        assert code is not None
        return Ended(result, code, errors.read_text() + output.read_text().rpartition(json.dumps(result))[0])


@dataclass
class Environment:
    """One of the three, and how it can be made to vanish and to come back."""

    backend: Backend
    release: str
    connect: Callable[[], Backend]
    """Another controller of the same place."""
    disconnect: Callable[[], None] = lambda: None
    reconnect: Callable[[], None] = lambda: None

    def run(self, settings: Settings, on_change: Callable[[Mapping[Stage, JobState]], None] = lambda _: None) -> Any:
        return Pipeline(self.backend, settings, release=self.release, capacity=Capacity(2), show=on_change).run()


@contextmanager
def local_environment(folder: Path) -> Iterator[Environment]:
    backends: list[LocalBackend] = []

    def connect() -> LocalBackend:
        backends.append(LocalBackend(folder / "local", env=os.environ))
        return backends[-1]

    yield Environment(connect(), local.LOCAL_RELEASE, connect)
    for local_backend in backends:
        local_backend.close()


@contextmanager
def sky_environment(folder: Path) -> Iterator[Environment]:
    machines = Machines(folder / "machines")
    machines.wait_seconds = 0.5
    clock = Clock(machines)

    def connect() -> SkyBackend:
        return SkyBackend(folder, machines, env={}, now=clock.now, sleep=clock.sleep)

    def set_reachable(reachable: bool) -> None:
        machines.unreachable = not reachable

    yield Environment(
        connect(), backend.SKY_RELEASE, connect, partial(set_reachable, False), partial(set_reachable, True)
    )
    machines.close()


@contextmanager
def kubernetes_environment(folder: Path) -> Iterator[Environment]:
    server = ApiServer()
    for kind, objects in release().items():
        for manifest in objects:
            server.put(kind, manifest)
    backends: list[KubernetesBackend] = []

    def disconnect() -> None:
        for verb in ("list", "create", "watch"):
            server.inject(verb, "jobs", refusal(503, "the API server is being replaced"), times=3)

    with httpx.Client(base_url=server.url, timeout=30) as http, Kubelets(server, folder):

        def connect() -> KubernetesBackend:
            backends.append(KubernetesBackend(Api(http, NAMESPACE, address=server.url, sleep=lambda _: None), RELEASE))
            return backends[-1]

        yield Environment(connect(), RELEASE, connect, disconnect)
        for kubernetes_backend in backends:
            kubernetes_backend.close()
        server.close()


ENVIRONMENTS: dict[str, Callable[[Path], AbstractContextManager[Environment]]] = {
    "local": local_environment,
    "sky": sky_environment,
    "kubernetes": kubernetes_environment,
}


@pytest.fixture(params=[*ENVIRONMENTS])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Environment]:
    """A new one."""
    with ENVIRONMENTS[request.param](tmp_path) as environment:
        yield environment


@pytest.fixture
def settings(photos: Photos, demo_model: str, tmp_path: Path) -> Settings:
    return run_of(photos(6), demo_model, tmp_path)


def run_of(source: Path, model: str, folder: Path, *, shards: int = 2) -> Settings:
    """A run of six photos. Each shard starts a process, which imports torch."""
    return Settings(
        run=RunSettings(id="r1", index="photos", source=str(source), model=model, shard_images=6 // shards),
        storage=StorageSettings(uri=(folder / "storage").as_uri()),
        store=StoreSettings(url=f"chroma+file://{folder / 'chroma'}"),
        jobs=JobSettings(retries=1),
    )


@dataclass
class CompletedRun:
    """A run that has ended well, for tests that only look."""

    environment: Environment
    settings: Settings
    outcome: Finished | Failed
    jobs: Mapping[Stage, JobState]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same photos for every place: ids are made of their names."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(6):
        Image.new("RGB", (60, 40), (40 * number, 99, 7)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def runs(
    source: Path, demo_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], CompletedRun]]:
    """By place, its finished run; each is made once."""
    with ExitStack() as environments:

        @cache
        def run(name: str) -> CompletedRun:
            folder = tmp_path_factory.mktemp(name)
            environment = environments.enter_context(ENVIRONMENTS[name](folder))
            settings = run_of(source, demo_model, folder)
            return CompletedRun(environment, settings, *environment.run(settings))

        yield run


@pytest.fixture(params=[*ENVIRONMENTS])
def completed_run(request: pytest.FixtureRequest, runs: Callable[[str], CompletedRun]) -> CompletedRun:
    return runs(request.param)


def folder(settings: Settings) -> Path:
    return Path(settings.storage.uri.removeprefix("file://")) / "runs" / settings.run.id


def ids(settings: Settings) -> list[str]:
    files = sorted(folder(settings).glob("shards/*/part-*.parquet"))
    return [id for file in files for id in parquet.read_table(file, columns=["id"])["id"].to_pylist()]


def report(settings: Settings) -> dict[str, Any]:
    """What became of the run, but for when it was and how long it took."""
    document = json.loads((folder(settings) / "report.json").read_text())
    return {
        name: document[name]
        for name in document
        if not re.search("second|stages|published|finished|started|checksum", name)
    }


def shard_breaker(settings: Settings) -> Callable[[Mapping[Stage, JobState]], None]:
    """Breaks shard 1 as soon as it is planned."""

    def break_planned_shard(jobs: Mapping[Stage, JobState]) -> None:
        shard_file = folder(settings) / "plan" / "00001.parquet"
        if Stage.EMBED not in jobs and shard_file.exists():
            shard_file.rename(shard_file.with_suffix(".aside"))

    return break_planned_shard


def repair_shard(settings: Settings) -> None:
    moved_file = folder(settings) / "plan" / "00001.aside"
    moved_file.rename(moved_file.with_suffix(".parquet"))


def test_a_run_ends_with_the_same_ids_and_the_same_report(
    completed_run: CompletedRun, runs: Callable[[str], CompletedRun]
) -> None:
    assert completed_run.outcome == Finished()
    assert {stage: job.phase for stage, job in completed_run.jobs.items()} == dict.fromkeys(Stage, Phase.COMPLETE)
    assert completed_run.jobs[Stage.PLAN].result["shards"] == 2
    assert completed_run.jobs[Stage.EMBED].succeeded == {0, 1}
    assert completed_run.jobs[Stage.EMBED].images_done == 6
    assert completed_run.jobs[Stage.INGEST].result["published"] == "r1"
    assert report(completed_run.settings)["images"] == len(set(ids(completed_run.settings))) == 6
    first = runs("local").settings
    assert (ids(completed_run.settings), report(completed_run.settings)) == (ids(first), report(first))


def test_a_shard_that_fails_fails_the_run_after_the_others_and_the_same_command_mends_it(
    environment: Environment, photos: Photos, demo_model: str, tmp_path: Path
) -> None:
    settings = run_of(photos(6), demo_model, tmp_path, shards=3)
    outcome, jobs = environment.run(settings, shard_breaker(settings))
    assert isinstance(outcome, Failed)
    assert outcome.stage is Stage.EMBED
    assert outcome.reason.startswith("1 of 3 shards failed; shard 1: ")
    assert "plan/00001.parquet" in outcome.reason
    assert (jobs[Stage.EMBED].succeeded, jobs[Stage.EMBED].failed) == ({0, 2}, {1})
    repair_shard(settings)
    assert environment.run(settings)[0] == Finished()
    assert len(ids(settings)) == 6
    assert environment.backend.runs() == ["r1"]
    for stage in Stage:
        environment.backend.delete(manifests.job_name(environment.release, "r1", stage))
    assert environment.backend.runs() == []
    assert environment.connect().jobs("r1") == {}
    assert folder(settings).is_dir(), "what was made stays"


def test_a_finished_run_is_left_as_it_is(completed_run: CompletedRun) -> None:
    times = {file: file.stat().st_mtime_ns for file in folder(completed_run.settings).rglob("*")}
    second = Environment(
        completed_run.environment.connect(), completed_run.environment.release, completed_run.environment.connect
    )
    assert second.run(completed_run.settings)[0] == Finished()
    assert {file: file.stat().st_mtime_ns for file in folder(completed_run.settings).rglob("*")} == times


def test_a_run_with_other_options_is_another(completed_run: CompletedRun) -> None:
    other_settings = replace(completed_run.settings, store=StoreSettings(url="chroma+http://elsewhere:1"))
    with pytest.raises(PermanentError, match="exists with other options"):
        completed_run.environment.run(other_settings)


@pytest.mark.parametrize("environment", ["sky", "kubernetes"], indirect=True)
def test_a_place_that_vanishes_for_a_while_costs_no_run(environment: Environment, settings: Settings) -> None:
    calls = 0

    def interrupt(jobs: Mapping[Stage, JobState]) -> None:
        nonlocal calls
        if Stage.EMBED in jobs:
            calls += 1
            if calls == 1:
                environment.disconnect()
            if calls == 5:
                environment.reconnect()

    assert environment.run(settings, interrupt)[0] == Finished()
    assert len(ids(settings)) == 6


@pytest.mark.parametrize("environment", ["sky", "kubernetes"], indirect=True)
def test_two_controllers_at_once_make_one_run(environment: Environment, settings: Settings) -> None:
    second = Environment(environment.connect(), environment.release, environment.connect)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(controller.run, settings) for controller in (environment, second)]
        assert [future.result()[0] for future in futures] == [Finished(), Finished()]
    assert len(ids(settings)) == 6


def test_what_is_asked_of_the_store_is_answered(completed_run: CompletedRun) -> None:
    (index,) = completed_run.environment.backend.call("searcher", "indexes", completed_run.settings).result["indexes"]
    assert (index["index"], index["run"], index["images"]) == ("photos", "r1", 6)
    missing_index = replace(completed_run.settings, run=RunSettings(index="cats"))
    with pytest.raises(UsageError, match="index 'cats'"):
        completed_run.environment.backend.call("searcher", "rollback", missing_index)


def test_each_shard_has_a_log_that_says_what_it_did(completed_run: CompletedRun) -> None:
    lines = completed_run.environment.backend.log("r1", Stage.EMBED, 1).splitlines()
    assert any('"done": 3' in line and '"shard": 1' in line for line in lines), lines
    with pytest.raises(UsageError):
        completed_run.environment.backend.log("r1", Stage.EMBED, 7)
