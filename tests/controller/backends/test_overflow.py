from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.backends.kubernetes.api import Api
from controller.backends.kubernetes.backend import KubernetesBackend
from controller.backends.overflow import OverflowBackend, check, merged, overdue
from controller.backends.skypilot.attempts import IndexState, IndexStep
from controller.backends.skypilot.backend import PARALLELISM, PYTHON, SKY_RELEASE, SkyBackend
from controller.backends.skypilot.placement import TASK
from controller.backends.skypilot.reconciler import SILENT_SECONDS
from controller.jobs.state import JobState, Phase, Stage
from controller.jobs.usage import Gpu
from controller.run.capacity import Capacity
from controller.run.loop import Pipeline
from controller.run.steps import Failed, Finished
from imgsearch import labels
from imgsearch.errors import UsageError
from imgsearch.settings import JobSettings, RunSettings, Settings, StorageSettings
from tests.controller import conftest, states
from tests.controller.apiserver import ApiServer
from tests.controller.machines import PREAMBLE, Clock, Machines
from tests.controller.objects import RELEASE, condition, pod, release
from tests.controller.workers import Ended, Unfinished, Workers, succeed

AFTER = 600.0
JOB = "team-r1-embed"
SETTINGS = Settings(
    run=RunSettings(id="r1", index="photos", source="s3://photos", model="a/b"),
    storage=StorageSettings(uri="s3://results"),
    jobs=JobSettings(retries=1),
)
UNSCHEDULED = [condition("PodScheduled", "False", message="0/1 nodes are available: 1 Insufficient nvidia.com/gpu")]
Connect = Callable[..., OverflowBackend]
Program = Callable[[str], None]


@pytest.fixture
def wall_clock(machines: Machines) -> Clock:
    return Clock(machines)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Says what rented machines run."""

    def write(text: str) -> None:
        run = f"{PYTHON} - <<'END'\n{PREAMBLE}{text}\nEND"
        task = {"resources": {"accelerators": "L4:1", "use_spot": True}, "run": run}
        (tmp_path / "embed.yaml").write_text(yaml.safe_dump(task))

    write("leave(images=9, bad=1)")
    return write


@pytest.fixture
def job_controller(server: ApiServer) -> JobController:
    for kind, objects in release().items():
        for manifest in objects:
            server.put(kind, manifest)
    return JobController(server)


@pytest.fixture
def connect(
    api: Api,
    job_controller: JobController,
    clock: conftest.Clock,
    machines: Machines,
    wall_clock: Clock,
    program: Program,
    tmp_path: Path,
) -> Iterator[Connect]:
    backends: list[OverflowBackend] = []

    def make(settings: Settings = SETTINGS) -> OverflowBackend:
        remote = KubernetesBackend(api, RELEASE, clock=clock, now=wall_clock.now)
        sky = SkyBackend(tmp_path, machines, env={}, files=tmp_path, now=wall_clock.now, sleep=wall_clock.sleep)
        backends.append(OverflowBackend(remote, sky, settings, after=AFTER, now=wall_clock.now))
        return backends[-1]

    yield make
    for overflow in backends:
        overflow.close()


@pytest.fixture
def overflowing(connect: Connect, wall_clock: Clock) -> Connect:
    """Makes a backend whose embed Job has waited long enough for rented machines."""

    def make(completions: int = 3, settings: Settings = SETTINGS) -> OverflowBackend:
        backend = connect(settings)
        create_embed_job(backend, completions, settings)
        pass_wait(wall_clock)
        return backend

    return make


class JobController:
    """The Job controller and the scheduler of Kubernetes, played by hand."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server

    @property
    def job(self) -> dict[str, Any]:
        return self.server.get("jobs", JOB)

    def put_pods(self, *indexes: int, phase: str = "Pending", **fields: Any) -> None:
        """There are these pods; those that are Pending have no node."""
        defaults = {"started": None, "conditions": UNSCHEDULED} if phase == "Pending" else {}
        for index in indexes:
            new_pod = pod(index, phase, job=JOB, uid=self.job["metadata"]["uid"], **{**defaults, **fields})
            self.server.put("pods", new_pod)

    def set_status(self, **status: Any) -> None:
        """The status of the Job."""
        self.server.put("jobs", {**self.job, "status": {"startTime": "2026-01-01T00:00:00Z", **status}})


def pipeline(backend: OverflowBackend, settings: Settings = SETTINGS) -> Pipeline:
    return Pipeline(backend, settings, release=RELEASE, capacity=Capacity(9), show=lambda _: None)


def create_embed_job(backend: OverflowBackend, completions: int = 3, settings: Settings = SETTINGS) -> None:
    """Creates the embed Job of the run."""
    backend.create(pipeline(backend, settings).manifest(Stage.EMBED, completions))


def pass_wait(wall_clock: Clock) -> None:
    wall_clock.time += timedelta(seconds=AFTER)


def wait_until(backend: OverflowBackend, predicate: Callable[[JobState], bool]) -> JobState:
    while not predicate(state := backend.jobs("r1")[Stage.EMBED]):
        backend.wait(0.02)
    return state


def poll(backend: OverflowBackend, times: int = 5) -> JobState:
    polls = iter(range(times))
    return wait_until(backend, lambda _: next(polls, None) is None)


def has_ended(state: JobState) -> bool:
    return state.phase in (Phase.COMPLETE, Phase.FAILED)


def without_node(command: list[str], index: int) -> Ended | Unfinished:
    """No pod of the embedding gets a node; the other stages succeed."""
    return Unfinished("Pending", conditions=UNSCHEDULED) if command[-1] == "embed" else succeed(command, index)


def rented_indexes(machines: Machines) -> list[int]:
    """Of the indexes that got a machine, in order."""
    assert all(name.startswith(f"{SKY_RELEASE}-r1-embed-") for name in machines.names)
    return [int(name.rpartition("-")[2]) for name in machines.names]


def test_what_has_waited_long_enough_goes_the_highest_index_first() -> None:
    now = datetime(2026, 1, 1, 1, tzinfo=UTC)
    time, second_later = "2026-01-01T00:50:00Z", "2026-01-01T00:50:01Z"
    job = states.job(Stage.EMBED, Phase.ACTIVE, waits={0: time, 1: second_later, 2: time, 3: time, 7: time})
    assert overdue(job, {7}, after=600, now=now, limit=9) == [3, 2, 0]
    assert overdue(job, {7}, after=600, now=now, limit=2) == [3, 2]
    assert overdue(job, {7}, after=600, now=now, limit=-1) == []
    assert overdue(job, {7}, after=599, now=now, limit=9) == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        (replace(SETTINGS, storage=StorageSettings(uri="file:///storage")), "storage file:///storage"),
        (replace(SETTINGS, run=replace(SETTINGS.run, source="/sources/photos")), "source /sources/photos"),
    ],
)
def test_what_only_the_cluster_can_reach_is_refused(settings: Settings, address: str) -> None:
    check(SETTINGS)
    with pytest.raises(UsageError, match=f"{address} in the cluster"):
        check(settings)


def test_a_job_with_a_rented_machine_has_begun() -> None:
    """Otherwise another image of the release would give the machine back in the middle of its work."""
    job = states.job(Stage.EMBED, Phase.ACTIVE, completions=3, begun=False)
    assert not merged(job, {2: IndexState()}).begun
    assert merged(job, {2: IndexState(step=IndexStep.RUNNING)}).begun
    assert merged(job, {2: IndexState(seconds=7)}).begun
    assert merged(replace(job, begun=True), {2: IndexState()}).begun


def test_a_folder_without_the_task_is_an_error_before_anything_waits(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "embed.yaml").unlink()
    with pytest.raises(UsageError, match=r"embed\.yaml"):
        connect()


def test_nothing_goes_before_its_time_or_where_a_pod_has_its_node(
    connect: Connect, job_controller: JobController, machines: Machines, wall_clock: Clock
) -> None:
    backend = connect()
    create_embed_job(backend, 4)
    job_controller.put_pods(0, phase="Running")
    job_controller.put_pods(1, node="gpu-1")  # it has been bound, and its node has not begun yet
    job_controller.put_pods(2)
    job_controller.put_pods(3, created="2026-01-01T00:00:01Z")
    wall_clock.time += timedelta(seconds=AFTER - 1)
    poll(backend)
    assert machines.names == []
    wall_clock.time += timedelta(seconds=1)
    wait_until(backend, lambda _: bool(machines.names))
    assert rented_indexes(machines) == [2]


def test_the_highest_go_first_and_not_more_at_a_time_than_there_are_machines(
    overflowing: Connect, machines: Machines, program: Program, tmp_path: Path
) -> None:
    program("index > 5 and wait_for('go'); leave(images=9, bad=1)")
    backend = overflowing(9)
    wait_until(backend, lambda state: state.succeeded == {*range(6)})
    assert sorted(rented_indexes(machines)[:PARALLELISM]) == [5, 6, 7, 8]
    assert rented_indexes(machines)[PARALLELISM:] == [4, 3, 2, 1, 0]
    assert machines.max_running == PARALLELISM
    (tmp_path / "machines" / "go").touch()
    wait_until(backend, has_ended)


def test_a_machine_knows_the_run_and_no_queue_or_deadline_of_the_cluster(
    overflowing: Connect, machines: Machines, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, jobs=JobSettings(queue="gpus", deadline_seconds=60))
    backend = overflowing(1, settings)
    assert wait_until(backend, has_ended).phase is Phase.COMPLETE
    ((_, task),) = machines.submitted
    assert (task["envs"]["IMGSEARCH_RUN_ID"], task["envs"]["IMGSEARCH_STORAGE_URI"]) == ("r1", "s3://results")
    (job_file,) = (tmp_path / "sky").glob("*/job.json")
    assert "activeDeadlineSeconds" not in json.loads(job_file.read_text())["spec"]


def test_here_and_there_together_complete_the_job_and_its_last_pods_go(
    overflowing: Connect, job_controller: JobController, machines: Machines, wall_clock: Clock, server: ApiServer
) -> None:
    backend = overflowing()
    job_controller.put_pods(0, phase="Running")
    job_controller.put_pods(1, 2)
    state = wait_until(backend, lambda state: len(state.succeeded) == 2)
    assert (state.phase, state.images_done, job_controller.job["spec"].get("suspend")) == (Phase.ACTIVE, 20, None)
    job_controller.put_pods(0, phase="Succeeded", message={"images": 7, "bad": 0})
    job_controller.set_status(completedIndexes="0")
    state = wait_until(backend, has_ended)
    assert (state.phase, state.succeeded, state.failed) == (Phase.COMPLETE, {0, 1, 2}, set())
    assert (state.images_done, state.images_bad, state.waits) == (27, 2, {})
    assert state.finished == wall_clock.now().isoformat(timespec="seconds")
    assert job_controller.job["spec"]["suspend"] is True
    assert machines.running == []
    patches = server.count("patch")
    poll(backend)
    assert server.count("patch") == patches, "it is said once"


def test_everybody_reads_from_the_job_what_was_done_elsewhere_also_when_its_pods_are_gone(
    overflowing: Connect,
    job_controller: JobController,
    server: ApiServer,
    api: Api,
    machines: Machines,
    program: Program,
    tmp_path: Path,
) -> None:
    program("wait_for('go'); leave(images=9, bad=1)")
    backend = overflowing()
    job_controller.put_pods(0, phase="Succeeded", message={"images": 7, "bad": 0})
    job_controller.set_status(completedIndexes="0")
    wait_until(backend, lambda _: len(machines.running) == 2)
    poll(backend)  # at machines at work, so they have hours
    (tmp_path / "machines" / "go").touch()
    state = wait_until(backend, has_ended)
    poll(backend)  # they leave a record
    server.remove("pods", f"{JOB}-0-x")
    state_without_pods = KubernetesBackend(api, RELEASE).jobs("r1")[Stage.EMBED]
    assert (state_without_pods.phase, state_without_pods.succeeded, state_without_pods.finished) == (
        state.phase,
        state.succeeded,
        state.finished,
    )
    assert (state_without_pods.images_done, state_without_pods.images_bad) == (27, 2)
    assert state_without_pods.usage.by_gpu == state.usage.by_gpu
    assert state_without_pods.usage.by_gpu.keys() == {Gpu("L4", True)}
    assert state_without_pods.usage.total > 0


def test_an_index_that_was_done_elsewhere_is_not_counted_twice_when_its_pod_is_done_too(
    overflowing: Connect, job_controller: JobController
) -> None:
    backend = overflowing(2)
    job_controller.put_pods(0, phase="Running")
    job_controller.put_pods(1)
    wait_until(backend, lambda state: state.succeeded == {1})
    job_controller.put_pods(1, phase="Succeeded", message={"images": 9, "bad": 1})
    job_controller.set_status(completedIndexes="1")
    state = poll(backend)
    assert (state.phase, state.succeeded, state.images_done, state.images_bad) == (Phase.ACTIVE, {1}, 10, 1)


def test_a_machine_whose_shard_a_pod_has_done_is_given_back_and_its_hours_count(
    overflowing: Connect, job_controller: JobController, machines: Machines, program: Program
) -> None:
    program("wait_for('never')")
    backend = overflowing(2)
    job_controller.put_pods(0, phase="Running")
    job_controller.put_pods(1)
    wait_until(backend, lambda _: bool(machines.running))
    poll(backend)
    job_controller.put_pods(1, phase="Succeeded", message={"images": 9, "bad": 1})
    job_controller.set_status(completedIndexes="1")
    state = wait_until(backend, lambda state: bool(state.usage.total))
    assert machines.running == []
    assert (state.phase, state.succeeded, state.failed, state.images_done) == (Phase.ACTIVE, {1}, set(), 10)


def test_when_kubernetes_ends_the_job_itself_the_machines_go_and_it_says_so_itself(
    overflowing: Connect, job_controller: JobController, machines: Machines, program: Program
) -> None:
    program("wait_for('never')")
    backend = overflowing(2)
    wait_until(backend, lambda _: len(machines.running) == 2)
    poll(backend)
    failed_condition = condition("Failed", message="it was active too long", lastTransitionTime="2026-01-01T01:00:00Z")
    job_controller.set_status(conditions=[failed_condition])
    state = wait_until(backend, has_ended)
    assert machines.running == []
    assert (state.phase, state.reason, state.failed) == (Phase.FAILED, "it was active too long", set())
    assert "suspend" not in job_controller.job["spec"]
    assert wait_until(backend, lambda state: bool(state.usage.total)).images_done == 0


def test_a_shard_that_fails_elsewhere_for_good_fails_the_run_with_its_sentence(
    connect: Connect, job_controller: JobController, machines: Machines, wall_clock: Clock, program: Program
) -> None:
    program("index == 1 and (leave(error='a.parquet is damaged'), sys.exit(4)); leave(images=10)")

    pass_wait(wall_clock)
    with Workers(job_controller.server, without_node):
        outcome, jobs = pipeline(connect()).run()
    assert outcome == Failed(Stage.EMBED, "1 of 3 shards failed; shard 1: a.parquet is damaged")
    assert (jobs[Stage.EMBED].succeeded, jobs[Stage.EMBED].failed) == ({0, 2}, {1})
    assert job_controller.job["spec"]["suspend"] is True
    assert rented_indexes(machines).count(1) == 1


def test_what_a_retry_may_mend_is_tried_again_elsewhere(
    overflowing: Connect, machines: Machines, program: Program
) -> None:
    program("t = here / 'tries'; t.open('a').write('x'); sys.exit(0 if t.stat().st_size > 1 else 3)")
    backend = overflowing(1)
    assert wait_until(backend, has_ended).phase is Phase.COMPLETE
    assert rented_indexes(machines) == [0, 0]


def test_a_retry_of_the_run_begins_anew(
    connect: Connect, job_controller: JobController, machines: Machines, wall_clock: Clock, program: Program
) -> None:
    program("leave(error='no access'); sys.exit(4)")
    pass_wait(wall_clock)
    with Workers(job_controller.server, without_node):
        assert isinstance(pipeline(connect()).run()[0], Failed)
        program("leave(images=10)")
        outcome, jobs = pipeline(connect()).run()
    assert outcome == Finished()
    assert jobs[Stage.EMBED].images_done == 30
    assert sorted(rented_indexes(machines)) == [0, 0, 1, 1, 2, 2]


def test_what_is_left_of_another_job_of_its_name_is_removed_first(
    overflowing: Connect, connect: Connect, server: ApiServer, machines: Machines, program: Program
) -> None:
    program("wait_for('never')")
    backend = overflowing(2)
    wait_until(backend, lambda _: len(machines.running) == 2)
    server.remove("jobs", JOB)  # by somebody else
    program("leave(images=10)")
    backend = connect()
    create_embed_job(backend, 2)
    assert wait_until(backend, has_ended).images_done == 20
    assert sorted(rented_indexes(machines)) == [0, 0, 1, 1]
    assert machines.running == []


def test_a_whole_run_on_rented_machines_is_not_taken_for_an_overflow(
    connect: Connect, machines: Machines, wall_clock: Clock, tmp_path: Path
) -> None:
    sky = SkyBackend(tmp_path, machines, env={}, files=tmp_path, now=wall_clock.now, sleep=wall_clock.sleep)
    backend = connect()
    manifest = pipeline(backend).manifest(Stage.EMBED, 1)
    task = sky.template(Stage.EMBED)["metadata"]["annotations"][TASK]
    manifest["spec"]["template"]["metadata"].setdefault("annotations", {})[TASK] = task
    manifest["metadata"]["name"] = f"{SKY_RELEASE}-r1-embed"
    sky.create(manifest)
    create_embed_job(backend, 1)
    pass_wait(wall_clock)
    with pytest.raises(UsageError, match="run r1 exists on this machine with --backend sky"):
        poll(backend)
    backend.delete(JOB)
    assert Stage.EMBED in sky.jobs("r1")


def test_a_controller_that_was_killed_is_followed_by_one_that_rents_nothing_twice(
    overflowing: Connect,
    connect: Connect,
    job_controller: JobController,
    machines: Machines,
    program: Program,
    tmp_path: Path,
) -> None:
    program("index == 2 or wait_for('go'); leave(images=9, bad=1)")
    first = overflowing()
    job_controller.put_pods(0, 1, 2)
    wait_until(first, lambda state: state.succeeded == {2})
    (tmp_path / "machines" / "go").touch()
    state = wait_until(connect(), has_ended)
    assert (state.phase, state.images_done) == (Phase.COMPLETE, 30)
    assert sorted(rented_indexes(machines)) == [0, 1, 2]


def test_a_controller_on_another_machine_adds_to_what_the_job_says(
    overflowing: Connect, connect: Connect, machines: Machines, program: Program, tmp_path: Path
) -> None:
    program("index == 2 or wait_for('go'); leave(images=9, bad=1)")
    first = overflowing()
    wait_until(first, lambda state: state.succeeded == {2})
    machines.close()
    (tmp_path / "sky").rename(tmp_path / "gone")
    (tmp_path / "machines" / "go").touch()
    state = wait_until(connect(), has_ended)
    assert (state.phase, state.images_done, state.images_bad) == (Phase.COMPLETE, 30, 3)
    assert rented_indexes(machines).count(2) == 1


def test_what_no_place_may_have_stays_with_the_cluster_and_is_said_once(
    overflowing: Connect,
    connect: Connect,
    job_controller: JobController,
    machines: Machines,
    caplog: pytest.LogCaptureFixture,
) -> None:
    machines.refusal = "no cloud has an L4"
    backend = overflowing(9)
    job_controller.put_pods(*range(9))
    state = poll(backend, 20)
    assert (state.phase, state.failed, len(machines.names)) == (Phase.ACTIVE, set(), PARALLELISM)
    assert caplog.text.count("no cloud has an L4") == 1
    assert state.waiting_since, "who gives up without a node gives up"
    machines.refusal = ""  # a person has seen to it, and gives the same command
    assert wait_until(connect(), has_ended).phase is Phase.COMPLETE


def test_while_skypilot_is_silent_the_cluster_goes_on(
    overflowing: Connect,
    job_controller: JobController,
    machines: Machines,
    wall_clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = overflowing(2)
    machines.unreachable = True
    start = wall_clock.now()
    wait_until(backend, lambda _: (wall_clock.now() - start).total_seconds() > 2 * SILENT_SECONDS)
    assert [record.name for record in caplog.records].count("controller.backends.overflow") == 1
    job_controller.put_pods(0, phase="Succeeded", message={"images": 10, "bad": 0})
    job_controller.set_status(completedIndexes="0")
    assert wait_until(backend, lambda state: state.succeeded == {0}).phase is Phase.ACTIVE
    machines.unreachable = False
    assert wait_until(backend, has_ended).phase is Phase.COMPLETE
    assert rented_indexes(machines) == [1]


def test_a_job_that_a_queue_has_suspended_overflows_since_it_was_made(
    connect: Connect, job_controller: JobController, machines: Machines, wall_clock: Clock, server: ApiServer
) -> None:
    settings = replace(SETTINGS, jobs=JobSettings(queue="gpus"))
    backend = connect(settings)
    create_embed_job(backend, 2, settings)
    server.put("jobs", {**job_controller.job, "status": {"conditions": [condition("Suspended")]}})
    wall_clock.time += timedelta(seconds=AFTER - 1)
    assert poll(backend).phase is Phase.SUSPENDED
    assert machines.names == []
    wall_clock.time += timedelta(seconds=1)
    assert wait_until(backend, has_ended).phase is Phase.COMPLETE
    assert server.get("jobs", JOB)["metadata"]["annotations"][labels.OVERFLOW]


def test_a_run_is_not_given_up_while_rented_machines_are_at_work_on_it(
    overflowing: Connect, job_controller: JobController, machines: Machines, wall_clock: Clock, program: Program
) -> None:
    program("wait_for('never')")
    backend = overflowing(2)
    job_controller.put_pods(0, 1)
    machines.unavailable = "no L4 in any region"
    state = wait_until(backend, lambda state: len(state.waiting) == 2)
    assert state.waiting == {UNSCHEDULED[0]["message"]: 2, "rented machines: no L4 in any region": 2}
    capacity = Capacity(1, wait_seconds=60, now=wall_clock.now)
    waiting_since = state.waiting_since
    assert datetime.fromisoformat(waiting_since) >= datetime(2026, 1, 1, 0, 10, tzinfo=UTC), (
        "when a machine was asked for"
    )
    wall_clock.time += timedelta(seconds=60)
    assert capacity.given_up(backend.jobs("r1")[Stage.EMBED])
    machines.unavailable = ""
    state = wait_until(backend, lambda state: len(machines.running) == 2 and not state.waiting_since)
    assert state.waiting == {UNSCHEDULED[0]["message"]: 2}
    wall_clock.time += timedelta(hours=9)
    assert capacity.given_up(backend.jobs("r1")[Stage.EMBED]) is None


def test_what_runs_elsewhere_says_how_far_it_is(overflowing: Connect, program: Program) -> None:
    line = json.dumps({"event": "embedding", "done": 4, "total": 10})
    program(f"print('{line}', flush=True); wait_for('never')")
    backend = overflowing(1)
    assert wait_until(backend, lambda state: state.images_done > 0).images_done == 4


def test_a_run_that_is_given_up_leaves_no_machine(
    connect: Connect, job_controller: JobController, machines: Machines, wall_clock: Clock
) -> None:
    def show(_: object) -> None:
        if machines.names:
            pass_wait(wall_clock)

    machines.booting = True
    pass_wait(wall_clock)
    backend, capacity = connect(), Capacity(9, wait_seconds=2 * AFTER, now=wall_clock.now)
    with Workers(job_controller.server, without_node):
        outcome, _ = Pipeline(backend, SETTINGS, release=RELEASE, capacity=capacity, show=show).run()
    assert isinstance(outcome, Failed)
    assert "no node had room" in outcome.reason
    assert len(machines.names) == 3
    assert machines.running == []
