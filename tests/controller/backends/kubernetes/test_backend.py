from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.backends.kubernetes.api import PAGE, Api
from controller.backends.kubernetes.backend import KubernetesBackend
from controller.backends.kubernetes.events import Events
from controller.backends.kubernetes.progress import LOG_SECONDS, LOGS
from controller.backends.kubernetes.query_jobs import START_SECONDS
from controller.jobs.annotations import JobRecord
from controller.jobs.state import JobState, Phase, Stage
from controller.jobs.usage import Gpu
from controller.run.capacity import Capacity
from controller.run.loop import Pipeline
from controller.run.steps import Failed, Finished
from imgsearch import labels
from imgsearch.errors import ImgsearchError, PermanentError, TemporaryError, UsageError
from imgsearch.settings import RunSettings, Settings
from tests.controller.apiserver import ApiServer, hanging, losing, refusing, saying
from tests.controller.conftest import Clock
from tests.controller.objects import RELEASE, condition, pod, release
from tests.controller.workers import RESULTS, Said, Stays, Workers, well

RUN = RunSettings(id="r1", index="photos", source="/sources/photos", model="a/b")
NOW = datetime(2026, 1, 1, 2, tzinfo=UTC)
Made = Callable[..., KubernetesBackend]


@pytest.fixture
def installed(server: ApiServer) -> ApiServer:
    """The server, with a release of the chart."""
    for kind, objects in release().items():
        for each in objects:
            server.put(kind, each)
    return server


@pytest.fixture
def connected(api: Api, installed: ApiServer, clock: Clock) -> Iterator[Made]:
    made: list[KubernetesBackend] = []

    def make(**told: Any) -> KubernetesBackend:
        made.append(KubernetesBackend(api, RELEASE, **{"clock": clock, "now": lambda: NOW, **told}))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def cluster(connected: Made) -> KubernetesBackend:
    return connected()


def settings(cluster: KubernetesBackend) -> Settings:
    return replace(cluster.settings(), run=RUN)


def pipeline(
    cluster: KubernetesBackend,
    show: Callable[[Mapping[Stage, JobState]], None] = lambda _: None,
    capacity: Capacity | None = None,
) -> Pipeline:
    return Pipeline(
        cluster,
        settings(cluster),
        release=RELEASE,
        capacity=capacity or Capacity(2),
        show=show,
        scaler=cluster,
        events=Events(cluster._api, now=lambda: NOW),
    )


def job(cluster: KubernetesBackend, stage: Stage = Stage.EMBED, completions: int = 3) -> dict[str, Any]:
    return pipeline(cluster).manifest(stage, completions)


def until(cluster: KubernetesBackend, met: Callable[[dict[Stage, JobState]], bool]) -> dict[Stage, JobState]:
    while not met(jobs := cluster.jobs("r1")):
        cluster.wait(30)
    return jobs


def test_a_run_goes_from_plan_to_publication(cluster: KubernetesBackend, server: ApiServer) -> None:
    shown: list[Mapping[Stage, JobState]] = []
    with Workers(server):
        end, jobs = pipeline(cluster, shown.append).run()
    assert end == Finished()
    assert server.added("jobs") == ["team-r1-plan", "team-r1-embed", "team-r1-ingest"]
    assert {stage: job.phase for stage, job in jobs.items()} == dict.fromkeys(Stage, Phase.COMPLETE)
    assert jobs[Stage.EMBED].images_done == 30
    assert jobs[Stage.INGEST].result == RESULTS["ingest"]
    assert shown[0] == {}
    (event,) = server.all("events")
    assert (event["type"], event["reason"]) == ("Normal", "RunPublished")
    assert event["message"] == "index photos: 30 images searchable, 0 bad"
    assert event["involvedObject"]["uid"] == server.get("jobs", "team-r1-ingest")["metadata"]["uid"]
    assert cluster.runs() == ["r1"]


def test_pods_are_told_the_run_and_are_made_as_the_release_has_them(cluster: KubernetesBackend) -> None:
    made = job(cluster)["spec"]["template"]
    env = {entry["name"]: entry["value"] for entry in made["spec"]["containers"][0]["env"]}
    assert Settings.from_env(env) == settings(cluster)
    assert made["spec"]["containers"][0]["image"] == "imgsearch"
    assert made["spec"]["restartPolicy"] == "Never"


def test_a_failed_shard_fails_the_run_after_the_others(cluster: KubernetesBackend, server: ApiServer) -> None:
    def play(command: list[str], index: int) -> Said | Stays:
        broken = command[-1] == "embed" and index == 1
        return Said({"error": "a.parquet is damaged"}, code=4) if broken else well(command, index)

    with Workers(server, play):
        end, jobs = pipeline(cluster).run()
    assert end == Failed(Stage.EMBED, "1 of 3 shards failed; shard 1: a.parquet is damaged")
    assert jobs[Stage.EMBED].succeeded == {0, 2}
    (event,) = server.all("events")
    assert (event["type"], event["reason"]) == ("Warning", "RunFailed")
    assert "a.parquet is damaged" in event["message"]


def test_the_same_command_tries_again_what_failed(connected: Made, server: ApiServer) -> None:
    def play(command: list[str], index: int) -> Said | Stays:
        return Said({"error": "no space left"}, code=3) if command[-1] == "embed" else well(command, index)

    with Workers(server, play):
        assert isinstance(pipeline(connected()).run()[0], Failed)
    with Workers(server):
        server.remove("jobs", "team-r1-plan")  # its time to live was over
        assert pipeline(connected()).run()[0] == Finished()
    assert server.added("jobs").count("team-r1-embed") == 2


def test_a_finished_run_is_left_as_it_is(connected: Made, server: ApiServer) -> None:
    with Workers(server):
        pipeline(connected()).run()
        assert pipeline(connected()).run()[0] == Finished()
    assert len(server.added("jobs")) == 3
    assert len(server.all("events")) == 1, "it is published once"


def test_two_controllers_at_once_make_nothing_twice(connected: Made, server: ApiServer) -> None:
    with Workers(server), ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(pipeline(connected()).run) for _ in range(2)]
        assert [end.result()[0] for end in ends] == [Finished(), Finished()]
    assert sorted(server.added("jobs")) == ["team-r1-embed", "team-r1-ingest", "team-r1-plan"]


def test_a_controller_that_comes_later_goes_on(connected: Made, server: ApiServer) -> None:
    first = connected()
    first.create(job(first, Stage.PLAN, 1))
    with Workers(server):
        until(first, lambda jobs: jobs[Stage.PLAN].phase is Phase.COMPLETE)
        assert pipeline(connected()).run()[0] == Finished()
    assert len(server.added("jobs")) == 3


def test_what_pods_have_said_is_kept_on_their_jobs_since_they_go(connected: Made, server: ApiServer) -> None:
    def play(command: list[str], index: int) -> Said | Stays:
        if command[-1] != "embed":
            return well(command, index)
        return Said({"error": "its file is damaged"}, 4) if index == 1 else Said({"images": 9, "bad": 1})

    with Workers(server, play):
        end, before = pipeline(connected()).run()
    assert isinstance(end, Failed)
    for each in server.all("pods"):
        server.remove("pods", each["metadata"]["name"])
    after = connected().jobs("r1")
    assert after[Stage.PLAN].result == RESULTS["plan"]
    embed = after[Stage.EMBED]
    assert (embed.images_done, embed.images_bad) == (20, 2)
    assert embed.errors() == {1: "its file is damaged"} == before[Stage.EMBED].errors()
    assert server.count("patch") == 2  # once a Job, and by nobody who only looks


def test_a_person_who_may_only_look_can_watch_all_the_same(cluster: KubernetesBackend, server: ApiServer) -> None:
    server.trouble("patch", "jobs", refusing(403, "jobs is forbidden", reason="Forbidden"), times=99)
    with Workers(server):
        assert pipeline(cluster).run()[0] == Finished()
    assert server.count("patch") == 1


def test_a_plan_whose_result_is_lost_is_made_again(connected: Made, server: ApiServer) -> None:
    first = connected()
    first.create(job(first, Stage.PLAN, 1))
    server.put("jobs", {**server.get("jobs", "team-r1-plan"), "status": {"conditions": [condition("Complete")]}})
    with Workers(server):
        assert pipeline(connected()).run()[0] == Finished()
    assert server.added("jobs").count("team-r1-plan") == 2


def test_what_pods_said_last_is_heard_also_where_their_watch_is_behind(
    cluster: KubernetesBackend, server: ApiServer
) -> None:
    server.trouble("watch", "pods", hanging, times=99)
    with Workers(server):
        end, jobs = pipeline(cluster).run()
    assert end == Finished()
    assert server.added("jobs").count("team-r1-plan") == 1
    assert jobs[Stage.EMBED].images_done == 30


def test_a_pod_that_is_gone_without_a_word_is_asked_for_once(cluster: KubernetesBackend, server: ApiServer) -> None:
    cluster.create(job(cluster))
    ended = {"completedIndexes": "0-2", "conditions": [condition("Complete")]}
    server.put("jobs", {**server.get("jobs", "team-r1-embed"), "status": ended})
    until(cluster, lambda jobs: jobs[Stage.EMBED].phase is Phase.COMPLETE)
    lists = server.count("list")
    for _ in range(10):
        cluster.jobs("r1")
    assert server.count("list") == lists


def test_a_create_whose_answer_was_lost_ends_well(
    cluster: KubernetesBackend, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    for verb, kind in (("create", "jobs"), ("patch", "jobs"), ("create", "events")):
        server.trouble(verb, kind, losing)
    with Workers(server):
        assert pipeline(cluster).run()[0] == Finished()
    assert len(server.added("jobs")) == 3
    assert len(server.all("events")) == 1
    assert not [message for message in caplog.messages if "Event" in message]


def test_a_name_that_another_spec_has_is_an_error(connected: Made, server: ApiServer) -> None:
    cluster = connected()
    cluster.create(job(cluster))
    cluster.create(job(cluster))
    with pytest.raises(PermanentError, match="Job team-r1-embed exists with another spec"):
        cluster.create(job(cluster, completions=4))
    foreign = server.get("jobs", "team-r1-embed")
    del foreign["metadata"]["annotations"]
    server.put("jobs", foreign)
    with pytest.raises(PermanentError, match="exists with another spec"):
        cluster.create(job(cluster))


def test_a_run_of_other_options_is_refused_before_anything_is_made(connected: Made, server: ApiServer) -> None:
    cluster = connected()
    cluster.create(job(cluster, Stage.PLAN, 1))
    other = replace(settings(cluster), run=replace(RUN, source="/sources/other"))
    with pytest.raises(PermanentError, match="run r1 exists with other options"):
        Pipeline(cluster, other, release=RELEASE, capacity=Capacity(2), show=lambda _: None).run()
    assert len(server.added("jobs")) == 1


def test_a_job_that_is_being_deleted_is_no_job_of_the_run_and_is_waited_for(
    cluster: KubernetesBackend, server: ApiServer
) -> None:
    made = job(cluster)
    cluster.create(made)
    server.lingering = True
    with ThreadPoolExecutor(2) as pool:
        deleted = pool.submit(cluster.delete, "team-r1-embed")
        server.until(lambda: server.count("delete") == 1)
        until(cluster, lambda jobs: jobs == {})
        created = pool.submit(cluster.create, made)
        server.until(lambda: server.count("create", "jobs") == 2)
        assert not deleted.done()
        assert not created.done()
        server.remove("jobs", "team-r1-embed")
        deleted.result(60)
        created.result(60)
    assert server.added("jobs") == ["team-r1-embed", "team-r1-embed"]
    assert Stage.EMBED in cluster.jobs("r1")


def test_a_job_is_checked_without_being_made(cluster: KubernetesBackend, server: ApiServer) -> None:
    cluster.check(job(cluster))
    assert server.all("jobs") == []
    cluster.create(job(cluster))
    cluster.check(job(cluster, completions=9))
    server.trouble("create", "jobs", refusing(422, "spec.template: Invalid value", reason="Invalid"))
    with pytest.raises(UsageError, match="Invalid value"):
        cluster.check(job(cluster))


def test_what_cannot_be_told_does_not_fail_the_run(
    cluster: KubernetesBackend, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.trouble("create", "events", refusing(403, "events is forbidden"))
    with Workers(server):
        assert pipeline(cluster).run()[0] == Finished()
    assert [message for message in caplog.messages if "team-r1-ingest" in message and "events is forbidden" in message]


def test_a_query_job_answers_and_leaves_nothing(cluster: KubernetesBackend, server: ApiServer) -> None:
    def play(command: list[str], index: int) -> Said | Stays:
        assert command == ["python", "-m", "searcher", "bad"]
        return Said({"run": "r1", "bytes": 24}, printed="key,stage,reason\na.jpg,decode,[x] is no image\n")

    with Workers(server, play):
        told = cluster.call("searcher", "bad", settings(cluster))
    assert told.result == {"run": "r1", "bytes": 24}
    assert told.text == "key,stage,reason\na.jpg,decode,[x] is no image\n"
    assert server.all("jobs") == []
    assert server.all("pods") == []
    (made,) = server.added("jobs")
    assert made.startswith("team-bad-")
    assert cluster.jobs("r1") == {}, "it is no Job of the run that it asks about"


@pytest.mark.parametrize(("code", "kind"), [(2, UsageError), (3, TemporaryError), (4, PermanentError)])
def test_a_query_job_fails_with_the_programs_sentence(
    cluster: KubernetesBackend, server: ApiServer, code: int, kind: type[ImgsearchError]
) -> None:
    with (
        Workers(server, lambda command, index: Said({"error": "no index is called 'x'"}, code=code)),
        pytest.raises(kind, match="no index is called 'x'"),
    ):
        cluster.call("searcher", "rollback", settings(cluster))
    assert server.all("jobs") == []


def test_a_query_job_whose_create_was_lost_answers_all_the_same(cluster: KubernetesBackend, server: ApiServer) -> None:
    server.trouble("create", "jobs", losing)
    with Workers(server, lambda command, index: Said({"indexes": []})):
        assert cluster.call("searcher", "indexes", settings(cluster)).result == {"indexes": []}
    assert server.all("jobs") == []


def test_a_query_job_that_says_nothing_usable_is_an_error(cluster: KubernetesBackend, server: ApiServer) -> None:
    server.trouble("log", "pods", saying(200, "no JSON\n"))
    with (
        Workers(server, lambda command, index: Said({})),
        pytest.raises(TemporaryError, match="searcher indexes"),
    ):
        cluster.call("searcher", "indexes", settings(cluster))
    assert server.all("jobs") == []


def test_a_query_job_that_does_not_begin_ends_with_the_schedulers_reason(connected: Made, server: ApiServer) -> None:
    told = "0/3 nodes are available: 3 Insufficient memory."

    def later() -> float:
        clock.now += START_SECONDS / 2
        return clock.now

    clock = Clock()
    cluster = connected(clock=later)
    unscheduled = Stays("Pending", conditions=[condition("PodScheduled", "False", message=told)])
    with (
        Workers(server, lambda command, index: unscheduled),
        pytest.raises(TemporaryError, match=rf"300 s \({told}\)"),
    ):
        cluster.call("searcher", "indexes", settings(cluster))
    assert server.all("jobs") == []


def test_a_query_job_that_runs_may_take_longer_but_not_for_ever(
    installed: ApiServer, connected: Made, clock: Clock
) -> None:
    def later() -> float:
        if any(pod["status"].get("phase") == "Running" for pod in installed.all("pods")):
            clock.now += START_SECONDS / 2
        return clock.now

    cluster = connected(clock=later)
    with (
        Workers(installed, lambda command, index: Stays()),
        pytest.raises(TemporaryError, match=r"3600 s \(it still runs\)"),
    ):
        cluster.call("searcher", "evaluate", settings(cluster))


def test_the_log_of_a_shard_is_that_of_its_last_pod(cluster: KubernetesBackend, server: ApiServer) -> None:
    server.put("pods", pod(1, "Failed", name="first", created="2026-01-01T00:00:00Z", ended={"exitCode": 3}))
    server.put("pods", pod(1, "Running", name="second", created="2026-01-01T00:01:00Z"))
    server.put("pods", pod(2, "Running", name="other"))
    server.logs.update(first="old\n", second="new\n", other="another\n")
    assert cluster.log("r1", Stage.EMBED, 1) == "new\n"
    with pytest.raises(UsageError, match="run r1 has no pod of embed 7"):
        cluster.log("r1", Stage.EMBED, 7)


def test_pods_of_the_release_that_do_not_run_are_named(cluster: KubernetesBackend, server: ApiServer) -> None:
    def own(name: str, **told: Any) -> dict[str, Any]:
        made = pod(name=name, **told)
        made["metadata"]["labels"] = {labels.INSTANCE: RELEASE}
        return made

    server.put("pods", own("team-searcher-1", conditions=[condition("Ready")]))
    server.put("pods", own("team-hook-1", phase="Succeeded", ended={}))
    server.put("pods", pod(0, "Pending", waiting={"reason": "ErrImagePull"}))  # of a run: status tells of it
    assert cluster.troubles() == []
    server.put("pods", own("team-chroma-0", phase="Pending", waiting={"reason": "ImagePullBackOff", "message": "no x"}))
    assert cluster.troubles() == ["pod team-chroma-0 is not ready: ImagePullBackOff: no x"]


def node(gpus: int) -> dict[str, Any]:
    allocatable = {"cpu": "8", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    return {"metadata": {"name": f"node-{gpus}"}, "status": {"allocatable": allocatable}}


@pytest.mark.parametrize(
    ("asked", "nodes", "at_a_time"), [(1, [4, 0, 2], 6), (2, [4, 1], 2), (1, [], 1), (4, [2], 1), (0, [4], 1)]
)
def test_parallelism_is_what_the_gpus_are_enough_for(
    cluster: KubernetesBackend, server: ApiServer, asked: int, nodes: list[int], at_a_time: int
) -> None:
    for template in release(gpus=asked)["podtemplates"]:
        server.put("podtemplates", template)
    for gpus in nodes:
        server.put("nodes", node(gpus))
    assert cluster.parallelism() == at_a_time


def test_who_may_not_look_at_nodes_gets_one_shard_at_a_time(cluster: KubernetesBackend, server: ApiServer) -> None:
    for template in release(gpus=1)["podtemplates"]:
        server.put("podtemplates", template)
    server.put("nodes", node(4))
    server.trouble("list", "nodes", refusing(403, "nodes is forbidden"))
    assert cluster.parallelism() == 1


SPOT = {"cloud.google.com/gke-accelerator": "nvidia-l4", "cloud.google.com/gke-spot": "true"}
PREFERRING = {labels.ACCELERATOR: "T4", labels.SPOT: "never"}


def on_node(server: ApiServer, name: str, told: Mapping[str, str]) -> None:
    """A node that takes no pods any more, as a spot node does in its last seconds."""
    server.put("nodes", {"metadata": {"name": name, "labels": dict(told)}, "spec": {"unschedulable": True}})


def held(cluster: KubernetesBackend, server: ApiServer, *names: str) -> dict[str, Any]:
    """The embed Job, each of its pods on one of these nodes, one GPU for an hour; where no node tells, they asked for
    T4 and no spot nodes."""
    manifest = job(cluster, completions=9)
    manifest["spec"]["template"]["metadata"]["annotations"] = PREFERRING
    made = server.put("jobs", manifest)
    for index, name in enumerate(names):
        server.put("pods", pod(index, "Succeeded", uid=made["metadata"]["uid"], message={}, gpus=1, node=name))
    return made


def test_gpu_hours_are_of_what_the_nodes_have(cluster: KubernetesBackend, server: ApiServer) -> None:
    on_node(server, "a", SPOT)
    on_node(server, "b", {"nvidia.com/gpu.product": "NVIDIA-A10G"})
    on_node(server, "c", {"karpenter.sh/capacity-type": "spot"})
    held(cluster, server, "a", "a", "b", "c", "gone")
    state = cluster.jobs("r1")[Stage.EMBED]
    assert state.usage.by_gpu == {Gpu("L4", True): 2, Gpu("A10G", False): 1, Gpu("T4", True): 1, Gpu("T4", False): 1}
    assert state.usage.total == 5


def test_each_node_is_looked_at_once(cluster: KubernetesBackend, server: ApiServer) -> None:
    on_node(server, "a", SPOT)
    made = held(cluster, server, "a", "gone")
    for _ in range(9):
        cluster.jobs("r1")
    assert server.count("list", "nodes") == 1
    server.remove("nodes", "a")
    on_node(server, "b", SPOT)
    server.put("pods", pod(2, "Succeeded", uid=made["metadata"]["uid"], message={}, gpus=1, node="b"))
    seen = until(cluster, lambda jobs: jobs[Stage.EMBED].usage.total == 3)
    assert seen[Stage.EMBED].usage.by_gpu == {Gpu("L4", True): 2, Gpu("T4", False): 1}
    assert server.count("list", "nodes") == 2


def test_a_run_without_gpus_looks_at_no_node(cluster: KubernetesBackend, server: ApiServer) -> None:
    made = server.put("jobs", job(cluster))
    server.put("pods", pod(0, uid=made["metadata"]["uid"], node="a"))
    assert cluster.jobs("r1")[Stage.EMBED].usage.by_gpu == {}
    assert server.count("list", "nodes") == 0


def test_who_may_not_look_at_nodes_is_told_what_pods_asked_for(cluster: KubernetesBackend, server: ApiServer) -> None:
    on_node(server, "a", SPOT)
    server.trouble("list", "nodes", refusing(403, "nodes is forbidden"))
    held(cluster, server, "a")
    for _ in range(9):
        assert cluster.jobs("r1")[Stage.EMBED].usage.by_gpu == {Gpu("T4", False): 1}
    assert server.count("list", "nodes") == 1, "the answer would be the same"


def test_what_ran_is_kept_on_a_job_that_has_ended(
    cluster: KubernetesBackend, connected: Made, server: ApiServer
) -> None:
    on_node(server, "a", SPOT)
    made = held(cluster, server, "a")
    cluster.jobs("r1")
    cluster.wait(0)
    done = {"completedIndexes": "0", "conditions": [condition("Complete")]}
    server.put("jobs", {**server.get("jobs", made["metadata"]["name"]), "status": done})
    until(cluster, lambda jobs: jobs[Stage.EMBED].record != JobRecord())
    server.remove("nodes", "a")
    assert connected().jobs("r1")[Stage.EMBED].usage.by_gpu == {Gpu("L4", True): 1}


def test_where_there_is_no_release_the_sentence_says_what_to_do(connected: Made, server: ApiServer) -> None:
    cluster = connected()
    server.remove("configmaps", "team-pipeline")
    server.remove("podtemplates", "team-embed")
    with pytest.raises(UsageError, match=r"namespace search has no release 'team' .*helm install team … -n search"):
        cluster.settings()
    with pytest.raises(UsageError, match="PodTemplate team-embed"):
        cluster.template(Stage.EMBED)


def test_why_a_job_gets_no_pods_is_told(cluster: KubernetesBackend, server: ApiServer, clock: Clock) -> None:
    cluster.create(job(cluster))
    assert cluster.jobs("r1")[Stage.EMBED].waiting == {}
    about = server.get("jobs", "team-r1-embed")["metadata"]
    server.put(
        "events",
        {
            "metadata": {"name": "refused"},
            "involvedObject": {"uid": about["uid"]},
            "reason": "FailedCreate",
            "message": "exceeded quota: gpus",
        },
    )
    clock.now += LOG_SECONDS
    for _ in range(10):
        assert cluster.jobs("r1")[Stage.EMBED].waiting == {"exceeded quota: gpus": 2}
    assert server.count("list", "events") == 2


def test_a_job_gets_more_pods_when_gpus_become_free(
    cluster: KubernetesBackend, server: ApiServer, clock: Clock
) -> None:
    def play(command: list[str], index: int) -> Said | Stays:
        return Stays() if command[-1] == "embed" else well(command, index)

    looks: list[int] = []

    def room() -> int:
        looks.append(0)
        return 5

    def soon(jobs: Mapping[Stage, JobState]) -> None:
        clock.now += 10.0
        if Stage.EMBED not in jobs or jobs[Stage.EMBED].phase is not Phase.ACTIVE:
            return
        there = server.get("jobs", "team-r1-embed")
        done = {"completedIndexes": "0-2", "conditions": [condition("Complete")]}
        server.put("jobs", {**there, "status": done if there["spec"]["parallelism"] == 3 else {"active": 1}})

    with Workers(server, play):
        capacity = Capacity(1, most=9, room=room, clock=clock)
        end, _ = pipeline(cluster, soon, capacity).run()
    assert end == Finished()
    assert server.count("patch", "jobs") >= 1
    assert looks == [0]


def test_an_embedding_that_gets_no_node_is_given_up_and_leaves_no_pods(
    cluster: KubernetesBackend, server: ApiServer
) -> None:
    waits = condition("PodScheduled", "False", reason="Unschedulable", message="0/2 nodes are available: 2 busy.")

    def play(command: list[str], index: int) -> Said | Stays:
        return Stays("Pending", conditions=[waits]) if command[-1] == "embed" else well(command, index)

    with Workers(server, play):
        end, _ = pipeline(cluster, capacity=Capacity(2, patience=600, now=lambda: NOW)).run()
    assert isinstance(end, Failed)
    assert "no node had room within" in end.reason
    assert "0/2 nodes are available: 2 busy." in end.reason
    assert [each["metadata"]["name"] for each in server.all("jobs")] == ["team-r1-plan"]
    assert [event["reason"] for event in server.all("events")] == ["NoCapacity"]


@pytest.mark.parametrize("size", [10, 10_000])
def test_a_look_costs_the_same_for_a_run_of_any_size(
    cluster: KubernetesBackend, server: ApiServer, clock: Clock, size: int
) -> None:
    made = server.put("jobs", job(cluster, completions=size))
    for index in range(size):
        server.put("pods", pod(index, uid=made["metadata"]["uid"], name=f"p-{index:05d}"))
        server.logs[f"p-{index:05d}"] = json.dumps({"done": 7, "total": 10}) + "\n"
    assert cluster.jobs("r1")[Stage.EMBED].images_done == 7 * LOGS
    assert server.count("list") == 1 + -(-size // PAGE)
    before = len(server.requests)
    for _ in range(100):
        clock.now += 1.0
        cluster.jobs("r1")
    assert len(server.requests) - before == LOGS * 100 / LOG_SECONDS
    asked = LOGS * (1 + 100 / LOG_SECONDS)
    assert cluster.jobs("r1")[Stage.EMBED].images_done == 7 * min(size, asked), "they are asked in turn"
    assert {each.verb for each in server.requests[before:]} == {"log"}


def test_a_node_that_does_not_answer_holds_nobody_up(
    cluster: KubernetesBackend, server: ApiServer, clock: Clock
) -> None:
    made = server.put("jobs", job(cluster))
    for index in range(3):
        server.put("pods", pod(index, uid=made["metadata"]["uid"]))
    server.trouble("log", "pods", refusing(500, "dial tcp 10.0.0.7:10250: no route to host"), times=99)
    assert cluster.jobs("r1")[Stage.EMBED].phase is Phase.ACTIVE
    assert clock.slept == []
    assert server.count("log") == 1


def test_a_detached_controller_is_a_job_that_the_next_one_replaces(
    cluster: KubernetesBackend, server: ApiServer
) -> None:
    words = ["run-pipeline", "/sources/photos"]
    cluster.start_controller(cluster.controller_job(words, settings(cluster)))
    cluster.start_controller(cluster.controller_job(words, settings(cluster)))
    made = server.get("jobs", "team-r1-controller")
    assert made["spec"]["template"]["spec"]["containers"][0]["args"] == words
    assert cluster.jobs("r1") == {}
    assert cluster.runs() == ["r1"]
    server.put("jobs", {**made, "status": {"conditions": [condition("Failed")]}})
    cluster.start_controller(cluster.controller_job(words, settings(cluster)))
    assert server.added("jobs") == ["team-r1-controller"] * 2


def test_stopping_lets_the_jobs_go_on(cluster: KubernetesBackend, server: ApiServer) -> None:
    cluster.create(job(cluster))
    cluster.jobs("r1")
    cluster.wait(0.01)
    cluster.close()
    assert [each["metadata"]["name"] for each in server.all("jobs")] == ["team-r1-embed"]


def test_a_run_survives_a_server_that_goes_and_comes_back(
    cluster: KubernetesBackend, server: ApiServer, clock: Clock
) -> None:
    at_work = threading.Event()

    def play(command: list[str], index: int) -> Said | Stays:
        if command[-1] == "embed" and not at_work.is_set():
            server.break_watches()
            for verb in ("get", "list", "watch", "create"):
                server.trouble(verb, "", refusing(503, "starting"), times=3)
            at_work.set()
        return well(command, index)

    with Workers(server, play):
        assert pipeline(cluster).run()[0] == Finished()
    assert len(server.added("jobs")) == 3
