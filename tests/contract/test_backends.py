"""The three places that run Jobs, held to the same: processes here, machines of SkyPilot's, pods of a Kubernetes.

The programs are the real ones. Machines and pods are processes, too; what rents and schedules them is played."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
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
from tests.controller.apiserver import NAMESPACE, ApiServer, refusing
from tests.controller.machines import Clock, Machines
from tests.controller.objects import RELEASE, Object, release
from tests.controller.workers import Said, Stays, Workers
from tests.programs import program_env

Photos = Callable[[int], Path]


class Kubelets(Workers):
    """Pods that run their program for real."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        super().__init__(server, self._run)
        self._folder = folder
        self._env: dict[str, str] = {}

    def _work(self, job: Object) -> None:
        container = job["spec"]["template"]["spec"]["containers"][0]
        self._env = {entry["name"]: entry["value"] for entry in container["env"]}
        super()._work(job)

    def _run(self, command: list[str], index: int) -> Said | Stays:
        message = self._folder / "termination-log"
        message.unlink(missing_ok=True)
        told = {"JOB_COMPLETION_INDEX": str(index), "IMGSEARCH_LOG_RESULT_FILE": str(message)}
        done = subprocess.run(
            [sys.executable, *command[1:]], env=program_env({**self._env, **told}), capture_output=True, text=True
        )
        result = json.loads(message.read_text())
        return Said(result, done.returncode, done.stderr + done.stdout.rpartition(json.dumps(result))[0])


@dataclass
class Place:
    """One of the three, and how it can be made to vanish and to come back."""

    cluster: Backend
    release: str
    again: Callable[[], Backend]
    """Another controller of the same place."""
    vanish: Callable[[], None] = lambda: None
    back: Callable[[], None] = lambda: None

    def run(self, settings: Settings, see: Callable[[Mapping[Stage, JobState]], None] = lambda _: None) -> Any:
        return Pipeline(self.cluster, settings, release=self.release, capacity=Capacity(2), show=see).run()


@contextmanager
def here(folder: Path) -> Iterator[Place]:
    made: list[LocalBackend] = []

    def again() -> LocalBackend:
        made.append(LocalBackend(folder / "local", env=os.environ))
        return made[-1]

    yield Place(again(), local.LOCAL_RELEASE, again)
    for each in made:
        each.close()


@contextmanager
def sky(folder: Path) -> Iterator[Place]:
    machines = Machines(folder / "machines")
    machines.patience = 0.5
    clock = Clock(machines)

    def again() -> SkyBackend:
        return SkyBackend(folder, machines, env={}, now=clock.now, sleep=clock.sleep)

    def answers(well: bool) -> None:
        machines.silent = not well

    yield Place(again(), backend.SKY_RELEASE, again, partial(answers, False), partial(answers, True))
    machines.close()


@contextmanager
def kubernetes(folder: Path) -> Iterator[Place]:
    server = ApiServer()
    for kind, objects in release().items():
        for each in objects:
            server.put(kind, each)
    made: list[KubernetesBackend] = []

    def vanish() -> None:
        for verb in ("list", "create", "watch"):
            server.trouble(verb, "jobs", refusing(503, "the API server is being replaced"), times=3)

    with httpx.Client(base_url=server.url, timeout=30) as http, Kubelets(server, folder):

        def again() -> KubernetesBackend:
            made.append(KubernetesBackend(Api(http, NAMESPACE, address=server.url, sleep=lambda _: None), RELEASE))
            return made[-1]

        yield Place(again(), RELEASE, again, vanish)
        for each in made:
            each.close()
        server.close()


PLACES: dict[str, Callable[[Path], AbstractContextManager[Place]]] = {
    "here": here,
    "sky": sky,
    "kubernetes": kubernetes,
}


@pytest.fixture(params=[*PLACES])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A new one."""
    with PLACES[request.param](tmp_path) as made:
        yield made


@pytest.fixture
def settings(photos: Photos, demo_model: str, tmp_path: Path) -> Settings:
    return run_of(photos(6), demo_model, tmp_path)


def run_of(source: Path, model: str, folder: Path) -> Settings:
    """A run of three shards."""
    return Settings(
        run=RunSettings(id="r1", index="photos", source=str(source), model=model, shard_images=2),
        storage=StorageSettings(uri=(folder / "storage").as_uri()),
        store=StoreSettings(url=f"chroma+file://{folder / 'chroma'}"),
        jobs=JobSettings(retries=1),
    )


@dataclass
class Done:
    """A run that has ended well, for tests that only look."""

    place: Place
    settings: Settings
    end: Finished | Failed
    jobs: Mapping[Stage, JobState]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same photos for every place: ids are made of their names."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(6):
        Image.new("RGB", (60, 40), (40 * number, 99, 7)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def runs(source: Path, demo_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Done]]:
    """By place, its finished run; each is made once."""
    with ExitStack() as open_places:

        @cache
        def run(name: str) -> Done:
            folder = tmp_path_factory.mktemp(name)
            place = open_places.enter_context(PLACES[name](folder))
            settings = run_of(source, demo_model, folder)
            return Done(place, settings, *place.run(settings))

        yield run


@pytest.fixture(params=[*PLACES])
def done(request: pytest.FixtureRequest, runs: Callable[[str], Done]) -> Done:
    return runs(request.param)


def folder(settings: Settings) -> Path:
    return Path(settings.storage.uri.removeprefix("file://")) / "runs" / settings.run.id


def ids(settings: Settings) -> list[str]:
    parts = sorted(folder(settings).glob("shards/*/part-*.parquet"))
    return [id for part in parts for id in parquet.read_table(part, columns=["id"])["id"].to_pylist()]


def report(settings: Settings) -> dict[str, Any]:
    """What became of the run, but for when it was and how long it took."""
    told = json.loads((folder(settings) / "report.json").read_text())
    return {name: told[name] for name in told if not re.search("second|stages|published|finished|started", name)}


def breaking(settings: Settings) -> Callable[[Mapping[Stage, JobState]], None]:
    """Breaks shard 1 as soon as it is planned."""

    def see(jobs: Mapping[Stage, JobState]) -> None:
        planned = folder(settings) / "plan" / "00001.parquet"
        if Stage.EMBED not in jobs and planned.exists():
            planned.rename(planned.with_suffix(".aside"))

    return see


def mend(settings: Settings) -> None:
    aside = folder(settings) / "plan" / "00001.aside"
    aside.rename(aside.with_suffix(".parquet"))


def test_a_run_ends_with_the_same_ids_and_the_same_report(done: Done, runs: Callable[[str], Done]) -> None:
    assert done.end == Finished()
    assert {stage: job.phase for stage, job in done.jobs.items()} == dict.fromkeys(Stage, Phase.COMPLETE)
    assert done.jobs[Stage.PLAN].result["shards"] == 3
    assert done.jobs[Stage.EMBED].succeeded == {0, 1, 2}
    assert done.jobs[Stage.EMBED].images_done == 6
    assert done.jobs[Stage.INGEST].result["published"] == "r1"
    assert report(done.settings)["images"] == len(set(ids(done.settings))) == 6
    first = runs("here").settings
    assert (ids(done.settings), report(done.settings)) == (ids(first), report(first))


def test_a_shard_that_fails_fails_the_run_after_the_others_and_the_same_command_mends_it(
    place: Place, settings: Settings
) -> None:
    end, jobs = place.run(settings, breaking(settings))
    assert isinstance(end, Failed)
    assert end.stage is Stage.EMBED
    assert end.reason.startswith("1 of 3 shards failed; shard 1: ")
    assert "plan/00001.parquet" in end.reason
    assert (jobs[Stage.EMBED].succeeded, jobs[Stage.EMBED].failed) == ({0, 2}, {1})
    mend(settings)
    assert place.run(settings)[0] == Finished()
    assert len(ids(settings)) == 6
    assert place.cluster.runs() == ["r1"]
    for stage in Stage:
        place.cluster.delete(manifests.job_name(place.release, "r1", stage))
    assert place.cluster.runs() == []
    assert place.again().jobs("r1") == {}
    assert folder(settings).is_dir(), "what was made stays"


def test_a_finished_run_is_left_as_it_is(done: Done) -> None:
    before = {file: file.stat().st_mtime_ns for file in folder(done.settings).rglob("*")}
    again = Place(done.place.again(), done.place.release, done.place.again)
    assert again.run(done.settings)[0] == Finished()
    assert {file: file.stat().st_mtime_ns for file in folder(done.settings).rglob("*")} == before


def test_a_run_with_other_options_is_another(done: Done) -> None:
    other = replace(done.settings, store=StoreSettings(url="chroma+http://elsewhere:1"))
    with pytest.raises(PermanentError, match="exists with other options"):
        done.place.run(other)


@pytest.mark.parametrize("place", ["sky", "kubernetes"], indirect=True)
def test_a_place_that_vanishes_for_a_while_costs_no_run(place: Place, settings: Settings) -> None:
    looks = 0

    def see(jobs: Mapping[Stage, JobState]) -> None:
        nonlocal looks
        if Stage.EMBED in jobs:
            looks += 1
            if looks == 1:
                place.vanish()
            if looks == 5:
                place.back()

    assert place.run(settings, see)[0] == Finished()
    assert len(ids(settings)) == 6


@pytest.mark.parametrize("place", ["sky", "kubernetes"], indirect=True)
def test_two_controllers_at_once_make_one_run(place: Place, settings: Settings) -> None:
    other = Place(place.again(), place.release, place.again)
    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(each.run, settings) for each in (place, other)]
        assert [end.result()[0] for end in ends] == [Finished(), Finished()]
    assert len(ids(settings)) == 6


def test_what_is_asked_of_the_store_is_answered(done: Done) -> None:
    (index,) = done.place.cluster.call("searcher", "indexes", done.settings).result["indexes"]
    assert (index["index"], index["run"], index["images"]) == ("photos", "r1", 6)
    nothing = replace(done.settings, run=RunSettings(index="cats"))
    with pytest.raises(UsageError, match="index 'cats'"):
        done.place.cluster.call("searcher", "rollback", nothing)


def test_each_shard_has_a_log_that_says_what_it_did(done: Done) -> None:
    logged = done.place.cluster.log("r1", Stage.EMBED, 2).splitlines()
    assert any('"done": 2' in line and '"shard": 2' in line for line in logged), logged
    with pytest.raises(UsageError):
        done.place.cluster.log("r1", Stage.EMBED, 7)
