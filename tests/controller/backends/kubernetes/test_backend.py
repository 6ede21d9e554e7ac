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
from tests.controller.apiserver import ApiServer, lost_reply, no_reply, refusal, text_reply
from tests.controller.conftest import Clock
from tests.controller.objects import RELEASE, condition, pod, release
from tests.controller.workers import RESULTS, Ended, Unfinished, Workers, succeed

RUN = RunSettings(id="r1", index="photos", source="/sources/photos", model="a/b")
NOW = datetime(2026, 1, 1, 2, tzinfo=UTC)
Connect = Callable[..., KubernetesBackend]


@pytest.fixture
def installed(server: ApiServer) -> ApiServer:
    """The server, with a release of the chart."""
    for kind, objects in release().items():
        for manifest in objects:
            server.put(kind, manifest)
    return server


@pytest.fixture
def connect(api: Api, installed: ApiServer, clock: Clock) -> Iterator[Connect]:
    backends: list[KubernetesBackend] = []

    def make(**arguments: Any) -> KubernetesBackend:
        backends.append(KubernetesBackend(api, RELEASE, **{"clock": clock, "now": lambda: NOW, **arguments}))
        return backends[-1]

    yield make
    for backend in backends:
        backend.close()


@pytest.fixture
def cluster(connect: Connect) -> KubernetesBackend:
    return connect()


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
        events=Events(cluster._api, now=lambda: NOW),
    )


def job(cluster: KubernetesBackend, stage: Stage = Stage.EMBED, completions: int = 3) -> dict[str, Any]:
    return pipeline(cluster).manifest(stage, completions)


def wait_until(cluster: KubernetesBackend, predicate: Callable[[dict[Stage, JobState]], bool]) -> dict[Stage, JobState]:
    while not predicate(jobs := cluster.jobs("r1")):
        cluster.wait(30)
    return jobs


def test_a_run_goes_from_plan_to_publication(cluster: KubernetesBackend, server: ApiServer) -> None:
    views: list[Mapping[Stage, JobState]] = []
    with Workers(server):
        outcome, jobs = pipeline(cluster, views.append).run()
    assert outcome == Finished()
    assert server.added_names("jobs") == ["team-r1-plan", "team-r1-embed", "team-r1-ingest"]
    assert {stage: job.phase for stage, job in jobs.items()} == dict.fromkeys(Stage, Phase.COMPLETE)
    assert jobs[Stage.EMBED].images_done == 30
    assert jobs[Stage.INGEST].result == RESULTS["ingest"]
    assert views[0] == {}
    (event,) = server.objects("events")
    assert (event["type"], event["reason"]) == ("Normal", "RunPublished")
    assert event["message"] == "index photos: 30 images searchable, 0 bad"
    assert event["involvedObject"]["uid"] == server.get("jobs", "team-r1-ingest")["metadata"]["uid"]
    assert cluster.runs() == ["r1"]


def test_pods_are_told_the_run_and_are_made_as_the_release_has_them(cluster: KubernetesBackend) -> None:
    template = job(cluster)["spec"]["template"]
    env = {entry["name"]: entry["value"] for entry in template["spec"]["containers"][0]["env"]}
    assert Settings.from_env(env) == settings(cluster)
    assert template["spec"]["containers"][0]["image"] == "imgsearch"
    assert template["spec"]["restartPolicy"] == "Never"


def test_a_failed_shard_fails_the_run_after_the_others(cluster: KubernetesBackend, server: ApiServer) -> None:
    def behave(command: list[str], index: int) -> Ended | Unfinished:
        is_damaged = command[-1] == "embed" and index == 1
        return Ended({"error": "a.parquet is damaged"}, code=4) if is_damaged else succeed(command, index)

    with Workers(server, behave):
        outcome, jobs = pipeline(cluster).run()
    assert outcome == Failed(Stage.EMBED, "1 of 3 shards failed; shard 1: a.parquet is damaged")
    assert jobs[Stage.EMBED].succeeded == {0, 2}
    (event,) = server.objects("events")
    assert (event["type"], event["reason"]) == ("Warning", "RunFailed")
    assert "a.parquet is damaged" in event["message"]


def test_the_same_command_tries_again_what_failed(connect: Connect, server: ApiServer) -> None:
    def behave(command: list[str], index: int) -> Ended | Unfinished:
        return Ended({"error": "no space left"}, code=3) if command[-1] == "embed" else succeed(command, index)

    with Workers(server, behave):
        assert isinstance(pipeline(connect()).run()[0], Failed)
    with Workers(server):
        server.remove("jobs", "team-r1-plan")  # its time to live was over
        assert pipeline(connect()).run()[0] == Finished()
    assert server.added_names("jobs").count("team-r1-embed") == 2


def test_a_finished_run_is_left_as_it_is(connect: Connect, server: ApiServer) -> None:
    with Workers(server):
        pipeline(connect()).run()
        assert pipeline(connect()).run()[0] == Finished()
    assert len(server.added_names("jobs")) == 3
    assert len(server.objects("events")) == 1, "it is published once"


def test_two_controllers_at_once_make_nothing_twice(connect: Connect, server: ApiServer) -> None:
    with Workers(server), ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(pipeline(connect()).run) for _ in range(2)]
        assert [future.result()[0] for future in futures] == [Finished(), Finished()]
    assert sorted(server.added_names("jobs")) == ["team-r1-embed", "team-r1-ingest", "team-r1-plan"]


def test_a_controller_that_comes_later_goes_on(connect: Connect, server: ApiServer) -> None:
    first = connect()
    first.create(job(first, Stage.PLAN, 1))
    with Workers(server):
        wait_until(first, lambda jobs: jobs[Stage.PLAN].phase is Phase.COMPLETE)
        assert pipeline(connect()).run()[0] == Finished()
    assert len(server.added_names("jobs")) == 3


def test_what_pods_have_said_is_kept_on_their_jobs_since_they_go(connect: Connect, server: ApiServer) -> None:
    def behave(command: list[str], index: int) -> Ended | Unfinished:
        if command[-1] != "embed":
            return succeed(command, index)
        return Ended({"error": "its file is damaged"}, 4) if index == 1 else Ended({"images": 9, "bad": 1})

    with Workers(server, behave):
        outcome, first_jobs = pipeline(connect()).run()
    assert isinstance(outcome, Failed)
    for pod_object in server.objects("pods"):
        server.remove("pods", pod_object["metadata"]["name"])
    jobs = connect().jobs("r1")
    assert jobs[Stage.PLAN].result == RESULTS["plan"]
    embed = jobs[Stage.EMBED]
    assert (embed.images_done, embed.images_bad) == (20, 2)
    assert embed.errors() == {1: "its file is damaged"} == first_jobs[Stage.EMBED].errors()
    assert server.count("patch") == 2  # once a Job, and by nobody who only looks


def test_a_person_who_may_only_look_can_watch_all_the_same(cluster: KubernetesBackend, server: ApiServer) -> None:
    server.inject("patch", "jobs", refusal(403, "jobs is forbidden", reason="Forbidden"), times=99)
    with Workers(server):
        assert pipeline(cluster).run()[0] == Finished()
    assert server.count("patch") == 1


def test_a_plan_whose_result_is_lost_is_made_again(connect: Connect, server: ApiServer) -> None:
    first = connect()
    first.create(job(first, Stage.PLAN, 1))
    server.put("jobs", {**server.get("jobs", "team-r1-plan"), "status": {"conditions": [condition("Complete")]}})
    with Workers(server):
        assert pipeline(connect()).run()[0] == Finished()
    assert server.added_names("jobs").count("team-r1-plan") == 2


def test_what_pods_said_last_is_heard_also_where_their_watch_is_behind(
    cluster: KubernetesBackend, server: ApiServer
) -> None:
    server.inject("watch", "pods", no_reply, times=99)
    with Workers(server):
        outcome, jobs = pipeline(cluster).run()
    assert outcome == Finished()
    assert server.added_names("jobs").count("team-r1-plan") == 1
    assert jobs[Stage.EMBED].images_done == 30


def test_a_pod_that_is_gone_without_a_word_is_asked_for_once(cluster: KubernetesBackend, server: ApiServer) -> None:
    cluster.create(job(cluster))
    status = {"completedIndexes": "0-2", "conditions": [condition("Complete")]}
    server.put("jobs", {**server.get("jobs", "team-r1-embed"), "status": status})
    wait_until(cluster, lambda jobs: jobs[Stage.EMBED].phase is Phase.COMPLETE)
    list_count = server.count("list")
    for _ in range(10):
        cluster.jobs("r1")
    assert server.count("list") == list_count


def test_a_create_whose_answer_was_lost_ends_well(
    cluster: KubernetesBackend, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    for verb, kind in (("create", "jobs"), ("patch", "jobs"), ("create", "events")):
        server.inject(verb, kind, lost_reply)
    with Workers(server):
        assert pipeline(cluster).run()[0] == Finished()
    assert len(server.added_names("jobs")) == 3
    assert len(server.objects("events")) == 1
    assert not [message for message in caplog.messages if "Event" in message]


def test_a_name_that_another_spec_has_is_an_error(connect: Connect, server: ApiServer) -> None:
    cluster = connect()
    cluster.create(job(cluster))
    cluster.create(job(cluster))
    with pytest.raises(PermanentError, match="Job team-r1-embed exists with another spec"):
        cluster.create(job(cluster, completions=4))
    job_without_hash = server.get("jobs", "team-r1-embed")
    del job_without_hash["metadata"]["annotations"]
    server.put("jobs", job_without_hash)
    with pytest.raises(PermanentError, match="exists with another spec"):
        cluster.create(job(cluster))


def test_a_run_of_other_options_is_refused_before_anything_is_made(connect: Connect, server: ApiServer) -> None:
    cluster = connect()
    cluster.create(job(cluster, Stage.PLAN, 1))
    other_settings = replace(settings(cluster), run=replace(RUN, source="/sources/other"))
    with pytest.raises(PermanentError, match="run r1 exists with other options"):
        Pipeline(cluster, other_settings, release=RELEASE, capacity=Capacity(2), show=lambda _: None).run()
    assert len(server.added_names("jobs")) == 1


def test_a_job_that_is_being_deleted_is_no_job_of_the_run_and_is_waited_for(
    cluster: KubernetesBackend, server: ApiServer
) -> None:
    manifest = job(cluster)
    cluster.create(manifest)
    server.finalizing = True
    with ThreadPoolExecutor(2) as pool:
        deleted = pool.submit(cluster.delete, "team-r1-embed")
        server.wait_until(lambda: server.count("delete") == 1)
        wait_until(cluster, lambda jobs: jobs == {})
        created = pool.submit(cluster.create, manifest)
        server.wait_until(lambda: server.count("create", "jobs") == 2)
        assert not deleted.done()
        assert not created.done()
        server.remove("jobs", "team-r1-embed")
        deleted.result(60)
        created.result(60)
    assert server.added_names("jobs") == ["team-r1-embed", "team-r1-embed"]
    assert Stage.EMBED in cluster.jobs("r1")


def test_a_job_is_checked_without_being_made(cluster: KubernetesBackend, server: ApiServer) -> None:
    cluster.check(job(cluster))
    assert server.objects("jobs") == []
    cluster.create(job(cluster))
    cluster.check(job(cluster, completions=9))
    server.inject("create", "jobs", refusal(422, "spec.template: Invalid value", reason="Invalid"))
    with pytest.raises(UsageError, match="Invalid value"):
        cluster.check(job(cluster))


def test_what_cannot_be_told_does_not_fail_the_run(
    cluster: KubernetesBackend, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.inject("create", "events", refusal(403, "events is forbidden"))
    with Workers(server):
        assert pipeline(cluster).run()[0] == Finished()
    assert [message for message in caplog.messages if "team-r1-ingest" in message and "events is forbidden" in message]


def test_a_query_job_answers_and_leaves_nothing(cluster: KubernetesBackend, server: ApiServer) -> None:
    def behave(command: list[str], index: int) -> Ended | Unfinished:
        assert command == ["python", "-m", "searcher", "bad"]
        return Ended({"run": "r1", "bytes": 24}, output="key,stage,reason\na.jpg,decode,[x] is no image\n")

    with Workers(server, behave):
        answer = cluster.call("searcher", "bad", settings(cluster))
    assert answer.result == {"run": "r1", "bytes": 24}
    assert answer.text == "key,stage,reason\na.jpg,decode,[x] is no image\n"
    assert server.objects("jobs") == []
    assert server.objects("pods") == []
    (name,) = server.added_names("jobs")
    assert name.startswith("team-bad-")
    assert cluster.jobs("r1") == {}, "it is no Job of the run that it asks about"


@pytest.mark.parametrize(("code", "error_type"), [(2, UsageError), (3, TemporaryError), (4, PermanentError)])
def test_a_query_job_fails_with_the_programs_sentence(
    cluster: KubernetesBackend, server: ApiServer, code: int, error_type: type[ImgsearchError]
) -> None:
    with (
        Workers(server, lambda command, index: Ended({"error": "no index is called 'x'"}, code=code)),
        pytest.raises(error_type, match="no index is called 'x'"),
    ):
        cluster.call("searcher", "rollback", settings(cluster))
    assert server.objects("jobs") == []


def test_a_query_job_whose_create_was_lost_answers_all_the_same(cluster: KubernetesBackend, server: ApiServer) -> None:
    server.inject("create", "jobs", lost_reply)
    with Workers(server, lambda command, index: Ended({"indexes": []})):
        assert cluster.call("searcher", "indexes", settings(cluster)).result == {"indexes": []}
    assert server.objects("jobs") == []


def test_a_query_job_that_says_nothing_usable_is_an_error(cluster: KubernetesBackend, server: ApiServer) -> None:
    server.inject("log", "pods", text_reply(200, "no JSON\n"))
    with (
        Workers(server, lambda command, index: Ended({})),
        pytest.raises(TemporaryError, match="searcher indexes"),
    ):
        cluster.call("searcher", "indexes", settings(cluster))
    assert server.objects("jobs") == []


def test_a_query_job_that_does_not_begin_ends_with_the_schedulers_reason(connect: Connect, server: ApiServer) -> None:
    reason = "0/3 nodes are available: 3 Insufficient memory."

    def advance() -> float:
        clock.now += START_SECONDS / 2
        return clock.now

    clock = Clock()
    cluster = connect(clock=advance)
    unscheduled = Unfinished("Pending", conditions=[condition("PodScheduled", "False", message=reason)])
    with (
        Workers(server, lambda command, index: unscheduled),
        pytest.raises(TemporaryError, match=f" 300 s: {reason}"),
    ):
        cluster.call("searcher", "indexes", settings(cluster))
    assert server.objects("jobs") == []


def test_a_query_job_that_runs_may_take_longer_but_not_for_ever(
    installed: ApiServer, connect: Connect, clock: Clock
) -> None:
    def advance() -> float:
        if any(pod["status"].get("phase") == "Running" for pod in installed.objects("pods")):
            clock.now += START_SECONDS / 2
        return clock.now

    cluster = connect(clock=advance)
    with (
        Workers(installed, lambda command, index: Unfinished()),
        pytest.raises(TemporaryError, match=" 3600 s: it still runs"),
    ):
        cluster.call("searcher", "evaluate", settings(cluster))


def test_the_log_of_a_shard_is_that_of_its_last_pod(cluster: KubernetesBackend, server: ApiServer) -> None:
    server.put("pods", pod(1, "Failed", name="first", created="2026-01-01T00:00:00Z", terminated={"exitCode": 3}))
    server.put("pods", pod(1, "Running", name="second", created="2026-01-01T00:01:00Z"))
    server.put("pods", pod(2, "Running", name="other"))
    server.logs.update(first="old\n", second="new\n", other="another\n")
    assert cluster.log("r1", Stage.EMBED, 1) == "new\n"
    with pytest.raises(UsageError, match="run r1 has no pod of embed 7"):
        cluster.log("r1", Stage.EMBED, 7)


def test_pods_of_the_release_that_do_not_run_are_named(cluster: KubernetesBackend, server: ApiServer) -> None:
    def pod_of_release(name: str, **fields: Any) -> dict[str, Any]:
        release_pod = pod(name=name, **fields)
        release_pod["metadata"]["labels"] = {labels.INSTANCE: RELEASE}
        return release_pod

    server.put("pods", pod_of_release("team-searcher-1", conditions=[condition("Ready")]))
    server.put("pods", pod_of_release("team-hook-1", phase="Succeeded", terminated={}))
    server.put("pods", pod(0, "Pending", waiting={"reason": "ErrImagePull"}))  # of a run: status tells of it
    assert cluster.troubles() == []
    server.put(
        "pods",
        pod_of_release("team-chroma-0", phase="Pending", waiting={"reason": "ImagePullBackOff", "message": "no x"}),
    )
    assert cluster.troubles() == ["pod team-chroma-0 is not ready: ImagePullBackOff: no x"]


def node(gpus: int) -> dict[str, Any]:
    allocatable = {"cpu": "8", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    return {"metadata": {"name": f"node-{gpus}"}, "status": {"allocatable": allocatable}}


@pytest.mark.parametrize(
    ("gpus_per_pod", "nodes", "parallelism"), [(1, [4, 0, 2], 6), (2, [4, 1], 2), (1, [], 1), (4, [2], 1), (0, [4], 1)]
)
def test_parallelism_is_what_the_gpus_are_enough_for(
    cluster: KubernetesBackend, server: ApiServer, gpus_per_pod: int, nodes: list[int], parallelism: int
) -> None:
    for template in release(gpus=gpus_per_pod)["podtemplates"]:
        server.put("podtemplates", template)
    for gpus in nodes:
        server.put("nodes", node(gpus))
    assert cluster.parallelism() == parallelism


def test_who_may_not_look_at_nodes_gets_one_shard_at_a_time(cluster: KubernetesBackend, server: ApiServer) -> None:
    for template in release(gpus=1)["podtemplates"]:
        server.put("podtemplates", template)
    server.put("nodes", node(4))
    server.inject("list", "nodes", refusal(403, "nodes is forbidden"))
    assert cluster.parallelism() == 1


SPOT = {"cloud.google.com/gke-accelerator": "nvidia-l4", "cloud.google.com/gke-spot": "true"}
REQUESTED = {labels.ACCELERATOR: "T4", labels.SPOT: "never"}


def put_node(server: ApiServer, name: str, node_labels: Mapping[str, str]) -> None:
    """A node that takes no pods any more, as a spot node does in its last seconds."""
    server.put("nodes", {"metadata": {"name": name, "labels": dict(node_labels)}, "spec": {"unschedulable": True}})


def put_gpu_job(cluster: KubernetesBackend, server: ApiServer, *names: str) -> dict[str, Any]:
    """The embed Job, each of its pods on one of these nodes, one GPU for an hour; where no node tells, they asked for
    T4 and no spot nodes."""
    manifest = job(cluster, completions=9)
    manifest["spec"]["template"]["metadata"]["annotations"] = REQUESTED
    created = server.put("jobs", manifest)
    for index, name in enumerate(names):
        server.put("pods", pod(index, "Succeeded", uid=created["metadata"]["uid"], message={}, gpus=1, node=name))
    return created


def test_gpu_hours_are_of_what_the_nodes_have(cluster: KubernetesBackend, server: ApiServer) -> None:
    put_node(server, "a", SPOT)
    put_node(server, "b", {"nvidia.com/gpu.product": "NVIDIA-A10G"})
    put_node(server, "c", {"karpenter.sh/capacity-type": "spot"})
    put_gpu_job(cluster, server, "a", "a", "b", "c", "gone")
    state = cluster.jobs("r1")[Stage.EMBED]
    assert state.usage.by_gpu == {Gpu("L4", True): 2, Gpu("A10G", False): 1, Gpu("T4", True): 1, Gpu("T4", False): 1}
    assert state.usage.total == 5


def test_each_node_is_looked_at_once(cluster: KubernetesBackend, server: ApiServer) -> None:
    put_node(server, "a", SPOT)
    gpu_job = put_gpu_job(cluster, server, "a", "gone")
    for _ in range(9):
        cluster.jobs("r1")
    assert server.count("list", "nodes") == 1
    server.remove("nodes", "a")
    put_node(server, "b", SPOT)
    server.put("pods", pod(2, "Succeeded", uid=gpu_job["metadata"]["uid"], message={}, gpus=1, node="b"))
    current = wait_until(cluster, lambda jobs: jobs[Stage.EMBED].usage.total == 3)
    assert current[Stage.EMBED].usage.by_gpu == {Gpu("L4", True): 2, Gpu("T4", False): 1}
    assert server.count("list", "nodes") == 2


def test_a_run_without_gpus_looks_at_no_node(cluster: KubernetesBackend, server: ApiServer) -> None:
    embed_job = server.put("jobs", job(cluster))
    server.put("pods", pod(0, uid=embed_job["metadata"]["uid"], node="a"))
    assert cluster.jobs("r1")[Stage.EMBED].usage.by_gpu == {}
    assert server.count("list", "nodes") == 0


def test_who_may_not_look_at_nodes_is_told_what_pods_asked_for(cluster: KubernetesBackend, server: ApiServer) -> None:
    put_node(server, "a", SPOT)
    server.inject("list", "nodes", refusal(403, "nodes is forbidden"))
    put_gpu_job(cluster, server, "a")
    for _ in range(9):
        assert cluster.jobs("r1")[Stage.EMBED].usage.by_gpu == {Gpu("T4", False): 1}
    assert server.count("list", "nodes") == 1, "the answer would be the same"


def test_what_ran_is_kept_on_a_job_that_has_ended(
    cluster: KubernetesBackend, connect: Connect, server: ApiServer
) -> None:
    put_node(server, "a", SPOT)
    gpu_job = put_gpu_job(cluster, server, "a")
    cluster.jobs("r1")
    cluster.wait(0)
    status = {"completedIndexes": "0", "conditions": [condition("Complete")]}
    server.put("jobs", {**server.get("jobs", gpu_job["metadata"]["name"]), "status": status})
    wait_until(cluster, lambda jobs: jobs[Stage.EMBED].record != JobRecord())
    server.remove("nodes", "a")
    assert connect().jobs("r1")[Stage.EMBED].usage.by_gpu == {Gpu("L4", True): 1}


def test_where_there_is_no_release_the_sentence_says_what_to_do(connect: Connect, server: ApiServer) -> None:
    cluster = connect()
    server.remove("configmaps", "team-pipeline")
    server.remove("podtemplates", "team-embed")
    with pytest.raises(UsageError, match=r"namespace search has no release 'team' .*helm install team … -n search"):
        cluster.settings()
    with pytest.raises(UsageError, match="PodTemplate team-embed"):
        cluster.template(Stage.EMBED)


def test_why_a_job_gets_no_pods_is_told(cluster: KubernetesBackend, server: ApiServer, clock: Clock) -> None:
    cluster.create(job(cluster))
    assert cluster.jobs("r1")[Stage.EMBED].waiting == {}
    metadata = server.get("jobs", "team-r1-embed")["metadata"]
    server.put(
        "events",
        {
            "metadata": {"name": "refused"},
            "involvedObject": {"uid": metadata["uid"]},
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
    def behave(command: list[str], index: int) -> Ended | Unfinished:
        return Unfinished() if command[-1] == "embed" else succeed(command, index)

    counts: list[int] = []

    def count_free_gpus() -> int:
        counts.append(0)
        return 5

    def advance(jobs: Mapping[Stage, JobState]) -> None:
        clock.now += 10.0
        if Stage.EMBED not in jobs or jobs[Stage.EMBED].phase is not Phase.ACTIVE:
            return
        embed_job = server.get("jobs", "team-r1-embed")
        complete = {"completedIndexes": "0-2", "conditions": [condition("Complete")]}
        server.put(
            "jobs", {**embed_job, "status": complete if embed_job["spec"]["parallelism"] == 3 else {"active": 1}}
        )

    with Workers(server, behave):
        capacity = Capacity(1, most=9, room=count_free_gpus, widen=cluster.widen, clock=clock)
        outcome, _ = pipeline(cluster, advance, capacity).run()
    assert outcome == Finished()
    assert server.count("patch", "jobs") >= 1
    assert counts == [0]


def test_an_embedding_that_gets_no_node_is_given_up_and_leaves_no_pods(
    cluster: KubernetesBackend, server: ApiServer
) -> None:
    unscheduled = condition("PodScheduled", "False", reason="Unschedulable", message="0/2 nodes are available: 2 busy.")

    def behave(command: list[str], index: int) -> Ended | Unfinished:
        return Unfinished("Pending", conditions=[unscheduled]) if command[-1] == "embed" else succeed(command, index)

    with Workers(server, behave):
        outcome, _ = pipeline(cluster, capacity=Capacity(2, patience=600, now=lambda: NOW)).run()
    assert isinstance(outcome, Failed)
    assert "no node has had room for it in" in outcome.reason
    assert "0/2 nodes are available: 2 busy." in outcome.reason
    assert [remaining["metadata"]["name"] for remaining in server.objects("jobs")] == ["team-r1-plan"]
    assert [event["reason"] for event in server.objects("events")] == ["NoCapacity"]


@pytest.mark.parametrize("size", [10, 10_000])
def test_a_look_costs_the_same_for_a_run_of_any_size(
    cluster: KubernetesBackend, server: ApiServer, clock: Clock, size: int
) -> None:
    embed_job = server.put("jobs", job(cluster, completions=size))
    for index in range(size):
        server.put("pods", pod(index, uid=embed_job["metadata"]["uid"], name=f"p-{index:05d}"))
        server.logs[f"p-{index:05d}"] = json.dumps({"done": 7, "total": 10}) + "\n"
    assert cluster.jobs("r1")[Stage.EMBED].images_done == 7 * LOGS
    assert server.count("list") == 1 + -(-size // PAGE)
    request_count = len(server.requests)
    for _ in range(100):
        clock.now += 1.0
        cluster.jobs("r1")
    assert len(server.requests) - request_count == LOGS * 100 / LOG_SECONDS
    log_count = LOGS * (1 + 100 / LOG_SECONDS)
    assert cluster.jobs("r1")[Stage.EMBED].images_done == 7 * min(size, log_count), "they are asked in turn"
    assert {request.verb for request in server.requests[request_count:]} == {"log"}


def test_a_node_that_does_not_answer_holds_nobody_up(
    cluster: KubernetesBackend, server: ApiServer, clock: Clock
) -> None:
    embed_job = server.put("jobs", job(cluster))
    for index in range(3):
        server.put("pods", pod(index, uid=embed_job["metadata"]["uid"]))
    server.inject("log", "pods", refusal(500, "dial tcp 10.0.0.7:10250: no route to host"), times=99)
    assert cluster.jobs("r1")[Stage.EMBED].phase is Phase.ACTIVE
    assert clock.slept == []
    assert server.count("log") == 1


def test_a_detached_controller_is_a_job_that_the_next_one_replaces(
    cluster: KubernetesBackend, server: ApiServer
) -> None:
    arguments = ["run-pipeline", "/sources/photos"]
    cluster.start_controller(cluster.controller_job(arguments, settings(cluster)))
    cluster.start_controller(cluster.controller_job(arguments, settings(cluster)))
    controller_job = server.get("jobs", "team-r1-controller")
    assert controller_job["spec"]["template"]["spec"]["containers"][0]["args"] == arguments
    assert cluster.jobs("r1") == {}
    assert cluster.runs() == ["r1"]
    server.put("jobs", {**controller_job, "status": {"conditions": [condition("Failed")]}})
    cluster.start_controller(cluster.controller_job(arguments, settings(cluster)))
    assert server.added_names("jobs") == ["team-r1-controller"] * 2


def test_stopping_lets_the_jobs_go_on(cluster: KubernetesBackend, server: ApiServer) -> None:
    cluster.create(job(cluster))
    cluster.jobs("r1")
    cluster.wait(0.01)
    cluster.close()
    assert [remaining["metadata"]["name"] for remaining in server.objects("jobs")] == ["team-r1-embed"]


def test_a_run_survives_a_server_that_goes_and_comes_back(
    cluster: KubernetesBackend, server: ApiServer, clock: Clock
) -> None:
    embedding = threading.Event()

    def behave(command: list[str], index: int) -> Ended | Unfinished:
        if command[-1] == "embed" and not embedding.is_set():
            server.break_watches()
            for verb in ("get", "list", "watch", "create"):
                server.inject(verb, "", refusal(503, "starting"), times=3)
            embedding.set()
        return succeed(command, index)

    with Workers(server, behave):
        assert pipeline(cluster).run()[0] == Finished()
    assert len(server.added_names("jobs")) == 3
