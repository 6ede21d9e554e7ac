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
from controller.backends.overflow import OverflowBackend, check, overdue
from controller.backends.skypilot import backend
from controller.backends.skypilot.backend import PARALLELISM, PYTHON, SkyBackend
from controller.backends.skypilot.placement import TASK
from controller.backends.skypilot.reconciler import PATIENCE_SECONDS
from controller.jobs.annotations import Overflow
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
from tests.controller.workers import Said, Stays, Workers, well

AFTER = 600.0
JOB = "team-r1-embed"
SETTINGS = Settings(
    run=RunSettings(id="r1", index="photos", source="s3://photos", model="a/b"),
    storage=StorageSettings(uri="s3://results"),
    jobs=JobSettings(retries=1),
)
WAITS = [condition("PodScheduled", "False", message="0/1 nodes are available: 1 Insufficient nvidia.com/gpu")]
Made = Callable[..., OverflowBackend]
Program = Callable[[str], None]


@pytest.fixture
def time(machines: Machines) -> Clock:
    return Clock(machines)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Says what rented machines run."""

    def write(text: str) -> None:
        run = f"{PYTHON} - <<'END'\n{PREAMBLE}{text}\nEND"
        task = {"resources": {"accelerators": "L4:2", "use_spot": True}, "run": run}
        (tmp_path / "embed.yaml").write_text(yaml.safe_dump(task))

    write("leave(images=9, bad=1)")
    return write


@pytest.fixture
def kubernetes(server: ApiServer) -> Kubernetes:
    for kind, objects in release().items():
        for each in objects:
            server.put(kind, each)
    return Kubernetes(server)


@pytest.fixture
def connected(
    api: Api,
    kubernetes: Kubernetes,
    clock: conftest.Clock,
    machines: Machines,
    time: Clock,
    program: Program,
    tmp_path: Path,
) -> Iterator[Made]:
    made: list[OverflowBackend] = []

    def make(settings: Settings = SETTINGS) -> OverflowBackend:
        remote = KubernetesBackend(api, RELEASE, clock=clock, now=time.now)
        sky = SkyBackend(tmp_path, machines, env={}, files=tmp_path, now=time.now, sleep=time.sleep)
        made.append(OverflowBackend(remote, sky, settings, after=AFTER, now=time.now))
        return made[-1]

    yield make
    for each in made:
        each.close()


class Kubernetes:
    """Its Job controller and its scheduler, played by hand."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server

    @property
    def job(self) -> dict[str, Any]:
        return self.server.get("jobs", JOB)

    def pods(self, *indexes: int, phase: str = "Pending", **told: Any) -> None:
        """There are these pods; those that are Pending have no node."""
        about = {"started": None, "conditions": WAITS} if phase == "Pending" else {}
        for index in indexes:
            made = pod(index, phase, job=JOB, uid=self.job["metadata"]["uid"], **{**about, **told})
            self.server.put("pods", made)

    def says(self, **status: Any) -> None:
        """The status of the Job."""
        self.server.put("jobs", {**self.job, "status": {"startTime": "2026-01-01T00:00:00Z", **status}})


def pipeline(cluster: OverflowBackend, settings: Settings = SETTINGS) -> Pipeline:
    return Pipeline(cluster, settings, release=RELEASE, capacity=Capacity(9), show=lambda _: None)


def begin(cluster: OverflowBackend, completions: int = 3, settings: Settings = SETTINGS) -> None:
    """The embed Job of this run is there."""
    cluster.create(pipeline(cluster, settings).manifest(Stage.EMBED, completions))


def late(time: Clock) -> None:
    time.time += timedelta(seconds=AFTER)


def until(cluster: OverflowBackend, met: Callable[[JobState], bool]) -> JobState:
    while not met(state := cluster.jobs("r1")[Stage.EMBED]):
        cluster.wait(0.02)
    return state


def looks(cluster: OverflowBackend, times: int = 5) -> JobState:
    left = iter(range(times))
    return until(cluster, lambda _: next(left, None) is None)


def over(state: JobState) -> bool:
    return state.phase in (Phase.COMPLETE, Phase.FAILED)


def numbers(machines: Machines) -> list[int]:
    """Of the indexes that got a machine, in order."""
    assert all(name.startswith(f"{backend.SKY_RELEASE}-r1-embed-") for name in machines.names)
    return [int(name.rpartition("-")[2]) for name in machines.names]


def test_what_has_waited_long_enough_goes_the_highest_index_first() -> None:
    now = datetime(2026, 1, 1, 1, tzinfo=UTC)
    early, just = "2026-01-01T00:50:00Z", "2026-01-01T00:50:01Z"
    job = states.job(Stage.EMBED, Phase.ACTIVE, waits={0: early, 1: just, 2: early, 3: early, 7: early})
    assert overdue(job, {7}, after=600, now=now, room=9) == [3, 2, 0]
    assert overdue(job, {7}, after=600, now=now, room=2) == [3, 2]
    assert overdue(job, {7}, after=600, now=now, room=-1) == []
    assert overdue(job, {7}, after=599, now=now, room=9) == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (replace(SETTINGS, storage=StorageSettings(uri="file:///storage")), "storage file:///storage"),
        (replace(SETTINGS, run=replace(SETTINGS.run, source="/sources/photos")), "source /sources/photos"),
    ],
)
def test_what_only_the_cluster_can_reach_is_refused(settings: Settings, what: str) -> None:
    check(SETTINGS)
    with pytest.raises(UsageError, match=f"{what} in the cluster"):
        check(settings)


def test_a_folder_without_the_task_is_an_error_before_anything_waits(connected: Made, tmp_path: Path) -> None:
    (tmp_path / "embed.yaml").unlink()
    with pytest.raises(UsageError, match=r"embed\.yaml"):
        connected()


def test_nothing_goes_before_its_time_or_where_a_pod_has_its_node(
    connected: Made, kubernetes: Kubernetes, machines: Machines, time: Clock
) -> None:
    cluster = connected()
    begin(cluster, 4)
    kubernetes.pods(0, phase="Running")
    kubernetes.pods(1, node="gpu-1")  # it has been bound, and its node has not begun yet
    kubernetes.pods(2)
    kubernetes.pods(3, created="2026-01-01T00:00:01Z")
    time.time += timedelta(seconds=AFTER - 1)
    looks(cluster)
    assert machines.names == []
    time.time += timedelta(seconds=1)
    until(cluster, lambda _: bool(machines.names))
    assert numbers(machines) == [2]


def test_the_highest_go_first_and_not_more_at_a_time_than_there_are_machines(
    connected: Made, machines: Machines, time: Clock, program: Program, tmp_path: Path
) -> None:
    program("index > 5 and wait_for('go'); leave(images=9, bad=1)")
    cluster = connected()
    begin(cluster, 9)
    late(time)
    until(cluster, lambda state: state.succeeded == {*range(6)})
    assert sorted(numbers(machines)[:PARALLELISM]) == [5, 6, 7, 8]
    assert numbers(machines)[PARALLELISM:] == [4, 3, 2, 1, 0]
    assert machines.most == PARALLELISM
    (tmp_path / "machines" / "go").touch()
    until(cluster, over)


def test_a_machine_knows_the_run_and_no_queue_or_deadline_of_the_cluster(
    connected: Made, machines: Machines, time: Clock, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, jobs=JobSettings(queue="gpus", deadline_seconds=60))
    cluster = connected(settings)
    begin(cluster, 1, settings)
    late(time)
    assert until(cluster, over).phase is Phase.COMPLETE
    ((_, task),) = machines.submitted
    assert (task["envs"]["IMGSEARCH_RUN_ID"], task["envs"]["IMGSEARCH_STORAGE_URI"]) == ("r1", "s3://results")
    (kept,) = (tmp_path / "sky").glob("*/job.json")
    assert "activeDeadlineSeconds" not in json.loads(kept.read_text())["spec"]


def test_here_and_there_together_complete_the_job_and_its_last_pods_go(
    connected: Made, kubernetes: Kubernetes, machines: Machines, time: Clock, server: ApiServer
) -> None:
    cluster = connected()
    begin(cluster)
    kubernetes.pods(0, phase="Running")
    kubernetes.pods(1, 2)
    late(time)
    state = until(cluster, lambda state: len(state.succeeded) == 2)
    assert (state.phase, state.images_done, kubernetes.job["spec"].get("suspend")) == (Phase.ACTIVE, 20, None)
    kubernetes.pods(0, phase="Succeeded", message={"images": 7, "bad": 0})
    kubernetes.says(completedIndexes="0")
    state = until(cluster, over)
    assert (state.phase, state.succeeded, state.failed) == (Phase.COMPLETE, {0, 1, 2}, set())
    assert (state.images_done, state.images_bad, state.waits) == (27, 2, {})
    assert state.finished == time.now().isoformat(timespec="seconds")
    assert kubernetes.job["spec"]["suspend"] is True
    assert machines.there == []
    patches = server.count("patch")
    looks(cluster)
    assert server.count("patch") == patches, "it is said once"


def test_everybody_reads_from_the_job_what_was_done_elsewhere_also_when_its_pods_are_gone(
    connected: Made,
    kubernetes: Kubernetes,
    server: ApiServer,
    api: Api,
    machines: Machines,
    time: Clock,
    program: Program,
    tmp_path: Path,
) -> None:
    program("wait_for('go'); leave(images=9, bad=1)")
    cluster = connected()
    begin(cluster)
    late(time)
    kubernetes.pods(0, phase="Succeeded", message={"images": 7, "bad": 0})
    kubernetes.says(completedIndexes="0")
    until(cluster, lambda _: len(machines.there) == 2)
    looks(cluster)  # at machines at work, so they have hours
    (tmp_path / "machines" / "go").touch()
    before = until(cluster, over)
    looks(cluster)  # they leave a record
    server.remove("pods", f"{JOB}-0-x")
    after = KubernetesBackend(api, RELEASE).jobs("r1")[Stage.EMBED]
    assert (after.phase, after.succeeded, after.finished) == (before.phase, before.succeeded, before.finished)
    assert (after.images_done, after.images_bad) == (27, 2)
    assert after.usage.by_gpu == before.usage.by_gpu
    assert after.usage.by_gpu.keys() == {Gpu("L4", True)}
    assert after.usage.total > 0


def test_an_index_that_was_done_elsewhere_is_not_counted_twice_when_its_pod_is_done_too(
    connected: Made, kubernetes: Kubernetes, machines: Machines, time: Clock
) -> None:
    cluster = connected()
    begin(cluster, 2)
    kubernetes.pods(0, phase="Running")
    kubernetes.pods(1)
    late(time)
    until(cluster, lambda state: state.succeeded == {1})
    kubernetes.pods(1, phase="Succeeded", message={"images": 9, "bad": 1})
    kubernetes.says(completedIndexes="1")
    state = looks(cluster)
    assert (state.phase, state.succeeded, state.images_done, state.images_bad) == (Phase.ACTIVE, {1}, 10, 1)


def test_a_machine_whose_shard_a_pod_has_done_is_given_back_and_its_hours_count(
    connected: Made,
    kubernetes: Kubernetes,
    machines: Machines,
    time: Clock,
    program: Program,
) -> None:
    program("wait_for('never')")
    cluster = connected()
    begin(cluster, 2)
    kubernetes.pods(0, phase="Running")
    kubernetes.pods(1)
    late(time)
    until(cluster, lambda _: bool(machines.there))
    looks(cluster)
    kubernetes.pods(1, phase="Succeeded", message={"images": 9, "bad": 1})
    kubernetes.says(completedIndexes="1")
    state = until(cluster, lambda state: bool(state.usage.total))
    assert machines.there == []
    assert (state.phase, state.succeeded, state.failed, state.images_done) == (Phase.ACTIVE, {1}, set(), 10)


def test_when_kubernetes_ends_the_job_itself_the_machines_go_and_it_says_so_itself(
    connected: Made,
    kubernetes: Kubernetes,
    machines: Machines,
    time: Clock,
    program: Program,
) -> None:
    program("wait_for('never')")
    cluster = connected()
    begin(cluster, 2)
    late(time)
    until(cluster, lambda _: len(machines.there) == 2)
    looks(cluster)
    ended = condition("Failed", message="it was active too long", lastTransitionTime="2026-01-01T01:00:00Z")
    kubernetes.says(conditions=[ended])
    state = until(cluster, over)
    assert machines.there == []
    assert (state.phase, state.reason, state.failed) == (Phase.FAILED, "it was active too long", set())
    assert "suspend" not in kubernetes.job["spec"]
    assert until(cluster, lambda state: bool(state.usage.total)).images_done == 0


def test_a_shard_that_fails_elsewhere_for_good_fails_the_run_with_its_sentence(
    connected: Made, kubernetes: Kubernetes, machines: Machines, time: Clock, program: Program
) -> None:
    program("index == 1 and (leave(error='a.parquet is damaged'), sys.exit(4)); leave(images=10)")

    def play(command: list[str], index: int) -> Said | Stays:
        return Stays("Pending", conditions=WAITS) if command[-1] == "embed" else well(command, index)

    late(time)
    with Workers(kubernetes.server, play):
        end, jobs = pipeline(connected()).run()
    assert end == Failed(Stage.EMBED, "1 of 3 shards failed; shard 1: a.parquet is damaged")
    assert (jobs[Stage.EMBED].succeeded, jobs[Stage.EMBED].failed) == ({0, 2}, {1})
    assert kubernetes.job["spec"]["suspend"] is True
    assert numbers(machines).count(1) == 1


def test_what_a_retry_may_mend_is_tried_again_elsewhere(
    connected: Made, machines: Machines, time: Clock, program: Program
) -> None:
    program("t = here / 'tries'; t.open('a').write('x'); sys.exit(0 if t.stat().st_size > 1 else 3)")
    cluster = connected()
    begin(cluster, 1)
    late(time)
    assert until(cluster, over).phase is Phase.COMPLETE
    assert numbers(machines) == [0, 0]


def test_a_retry_of_the_run_begins_anew(
    connected: Made, kubernetes: Kubernetes, machines: Machines, time: Clock, program: Program
) -> None:
    def play(command: list[str], index: int) -> Said | Stays:
        return Stays("Pending", conditions=WAITS) if command[-1] == "embed" else well(command, index)

    program("leave(error='no access'); sys.exit(4)")
    late(time)
    with Workers(kubernetes.server, play):
        assert isinstance(pipeline(connected()).run()[0], Failed)
        program("leave(images=10)")
        end, jobs = pipeline(connected()).run()
    assert end == Finished()
    assert jobs[Stage.EMBED].images_done == 30
    assert sorted(numbers(machines)) == [0, 0, 1, 1, 2, 2]


def test_what_is_left_of_another_job_of_its_name_is_removed_first(
    connected: Made, server: ApiServer, machines: Machines, time: Clock, program: Program
) -> None:
    program("wait_for('never')")
    cluster = connected()
    begin(cluster, 2)
    late(time)
    until(cluster, lambda _: len(machines.there) == 2)
    server.remove("jobs", JOB)  # by somebody else
    program("leave(images=10)")
    cluster = connected()
    begin(cluster, 2)
    assert until(cluster, over).images_done == 20
    assert sorted(numbers(machines)) == [0, 0, 1, 1]
    assert machines.there == []


def test_a_whole_run_on_rented_machines_is_not_taken_for_an_overflow(
    connected: Made, machines: Machines, time: Clock, tmp_path: Path
) -> None:
    sky = SkyBackend(tmp_path, machines, env={}, files=tmp_path, now=time.now, sleep=time.sleep)
    cluster = connected()
    whole = pipeline(cluster).manifest(Stage.EMBED, 1)
    task = sky.template(Stage.EMBED)["metadata"]["annotations"][TASK]
    whole["spec"]["template"]["metadata"].setdefault("annotations", {})[TASK] = task
    whole["metadata"]["name"] = f"{backend.SKY_RELEASE}-r1-embed"
    sky.create(whole)
    begin(cluster, 1)
    late(time)
    with pytest.raises(UsageError, match="run r1 exists on this machine with --backend sky"):
        looks(cluster)
    cluster.delete(JOB)
    assert Stage.EMBED in sky.jobs("r1")


def test_a_controller_that_was_killed_is_followed_by_one_that_rents_nothing_twice(
    connected: Made, kubernetes: Kubernetes, machines: Machines, time: Clock, program: Program, tmp_path: Path
) -> None:
    program("index == 2 or wait_for('go'); leave(images=9, bad=1)")
    first = connected()
    begin(first)
    kubernetes.pods(0, 1, 2)
    late(time)
    until(first, lambda state: state.succeeded == {2})
    (tmp_path / "machines" / "go").touch()
    state = until(connected(), over)
    assert (state.phase, state.images_done) == (Phase.COMPLETE, 30)
    assert sorted(numbers(machines)) == [0, 1, 2]


def test_a_controller_on_another_machine_adds_to_what_the_job_says(
    connected: Made, kubernetes: Kubernetes, machines: Machines, time: Clock, program: Program, tmp_path: Path
) -> None:
    program("index == 2 or wait_for('go'); leave(images=9, bad=1)")
    first = connected()
    begin(first)
    late(time)
    until(first, lambda state: state.succeeded == {2})
    machines.close()
    (tmp_path / "sky").rename(tmp_path / "gone")
    (tmp_path / "machines" / "go").touch()
    state = until(connected(), over)
    assert (state.phase, state.images_done, state.images_bad) == (Phase.COMPLETE, 30, 3)
    assert numbers(machines).count(2) == 1


def test_what_no_place_may_have_stays_with_the_cluster_and_is_said_once(
    connected: Made, kubernetes: Kubernetes, machines: Machines, time: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    machines.refused = "no cloud has an L4"
    cluster = connected()
    begin(cluster, 9)
    kubernetes.pods(*range(9))
    late(time)
    state = looks(cluster, 20)
    assert (state.phase, state.failed, len(machines.names)) == (Phase.ACTIVE, set(), PARALLELISM)
    assert caplog.text.count("no cloud has an L4") == 1
    assert state.waiting_since, "who gives up without a node gives up"
    machines.refused = ""  # a person has seen to it, and gives the same command
    assert until(connected(), over).phase is Phase.COMPLETE


def test_while_skypilot_is_silent_the_cluster_goes_on(
    connected: Made, kubernetes: Kubernetes, machines: Machines, time: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = connected()
    begin(cluster, 2)
    late(time)
    machines.silent = True
    began = time.now()
    until(cluster, lambda _: (time.now() - began).total_seconds() > 2 * PATIENCE_SECONDS)
    assert [record.name for record in caplog.records].count("controller.backends.overflow") == 1
    kubernetes.pods(0, phase="Succeeded", message={"images": 10, "bad": 0})
    kubernetes.says(completedIndexes="0")
    assert until(cluster, lambda state: state.succeeded == {0}).phase is Phase.ACTIVE
    machines.silent = False
    assert until(cluster, over).phase is Phase.COMPLETE
    assert numbers(machines) == [1]


def test_a_job_that_a_queue_has_suspended_overflows_since_it_was_made(
    connected: Made, kubernetes: Kubernetes, machines: Machines, time: Clock, server: ApiServer
) -> None:
    settings = replace(SETTINGS, jobs=JobSettings(queue="gpus"))
    cluster = connected(settings)
    begin(cluster, 2, settings)
    server.put("jobs", {**kubernetes.job, "status": {"conditions": [condition("Suspended")]}})
    time.time += timedelta(seconds=AFTER - 1)
    assert looks(cluster).phase is Phase.SUSPENDED
    assert machines.names == []
    time.time += timedelta(seconds=1)
    assert until(cluster, over).phase is Phase.COMPLETE
    assert server.get("jobs", JOB)["metadata"]["annotations"][labels.OVERFLOW]


def test_a_run_is_not_given_up_while_rented_machines_are_at_work_on_it(
    connected: Made,
    kubernetes: Kubernetes,
    machines: Machines,
    time: Clock,
    program: Program,
) -> None:
    program("wait_for('never')")
    cluster = connected()
    begin(cluster, 2)
    kubernetes.pods(0, 1)
    late(time)
    machines.nowhere = "no L4 in any region"
    state = until(cluster, lambda state: len(state.waiting) == 2)
    assert state.waiting == {WAITS[0]["message"]: 2, "rented machines: no L4 in any region": 2}
    capacity = Capacity(1, patience=60, now=time.now)
    asked = state.waiting_since
    assert datetime.fromisoformat(asked) >= datetime(2026, 1, 1, 0, 10, tzinfo=UTC), "when a machine was asked for"
    time.time += timedelta(seconds=60)
    assert capacity.given_up(cluster.jobs("r1")[Stage.EMBED])
    machines.nowhere = ""
    state = until(cluster, lambda state: len(machines.there) == 2 and not state.waiting_since)
    assert state.waiting == {WAITS[0]["message"]: 2}
    time.time += timedelta(hours=9)
    assert capacity.given_up(cluster.jobs("r1")[Stage.EMBED]) is None


def test_what_runs_elsewhere_says_how_far_it_is(
    connected: Made, machines: Machines, time: Clock, program: Program
) -> None:
    line = json.dumps({"event": "embedding", "done": 4, "total": 10})
    program(f"print('{line}', flush=True); wait_for('never')")
    cluster = connected()
    begin(cluster, 1)
    late(time)
    assert until(cluster, lambda state: state.images_done > 0).images_done == 4


def test_a_run_that_is_given_up_leaves_no_machine(
    connected: Made, kubernetes: Kubernetes, machines: Machines, time: Clock
) -> None:
    def play(command: list[str], index: int) -> Said | Stays:
        return Stays("Pending", conditions=WAITS) if command[-1] == "embed" else well(command, index)

    def show(_: object) -> None:
        if machines.names:
            late(time)

    machines.booting = True
    late(time)
    cluster, capacity = connected(), Capacity(9, patience=2 * AFTER, now=time.now)
    with Workers(kubernetes.server, play):
        end, _ = Pipeline(cluster, SETTINGS, release=RELEASE, capacity=capacity, show=show).run()
    assert isinstance(end, Failed)
    assert "no node had room" in end.reason
    assert len(machines.names) == 3
    assert machines.there == []


def test_of_many_shards_that_failed_only_the_first_say_why() -> None:
    said = Overflow(failed=dict.fromkeys(range(200), "x" * 9000)).to_json()
    assert len(json.dumps(said)) < 60_000
    assert Overflow.from_json(said).failed.keys() == {*range(200)}
