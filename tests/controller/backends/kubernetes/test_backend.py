from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from controller.backends.kubernetes.backend import KubernetesBackend
from controller.jobs.state import JobState, Phase, Stage
from controller.run.capacity import Capacity
from controller.run.loop import Pipeline
from controller.run.steps import Failed, Finished
from imgsearch import labels
from imgsearch.errors import PermanentError, UsageError
from imgsearch.settings import Settings
from tests.controller.apifaults import lost_reply, no_reply, refusal
from tests.controller.apiserver import ApiServer
from tests.controller.backends.kubernetes.pipelines import NOW, RUN, Connect, job, pipeline, settings, wait_until
from tests.controller.conftest import Clock
from tests.controller.objects import RELEASE, condition, pod
from tests.controller.workers import RESULTS, Ended, Unfinished, Workers, succeed


def test_a_run_goes_from_plan_to_publication(backend: KubernetesBackend, server: ApiServer) -> None:
    views: list[Mapping[Stage, JobState]] = []
    with Workers(server):
        outcome, jobs = pipeline(backend, views.append).run()
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
    assert backend.runs() == ["r1"]


def test_pods_are_told_the_run_and_are_made_as_the_release_has_them(backend: KubernetesBackend) -> None:
    template = job(backend)["spec"]["template"]
    env = {entry["name"]: entry["value"] for entry in template["spec"]["containers"][0]["env"]}
    assert Settings.from_env(env) == settings(backend)
    assert template["spec"]["containers"][0]["image"] == "imgsearch"
    assert template["spec"]["restartPolicy"] == "Never"


def test_a_failed_shard_fails_the_run_after_the_others(backend: KubernetesBackend, server: ApiServer) -> None:
    def behave(command: list[str], index: int) -> Ended | Unfinished:
        is_damaged = command[-1] == "embed" and index == 1
        return Ended({"error": "a.parquet is damaged"}, code=4) if is_damaged else succeed(command, index)

    with Workers(server, behave):
        outcome, jobs = pipeline(backend).run()
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


def test_a_person_who_may_only_look_can_watch_all_the_same(backend: KubernetesBackend, server: ApiServer) -> None:
    server.inject("patch", "jobs", refusal(403, "jobs is forbidden", reason="Forbidden"), times=99)
    with Workers(server):
        assert pipeline(backend).run()[0] == Finished()
    assert server.count("patch") == 1


def test_a_plan_whose_result_is_lost_is_made_again(connect: Connect, server: ApiServer) -> None:
    first = connect()
    first.create(job(first, Stage.PLAN, 1))
    server.put("jobs", {**server.get("jobs", "team-r1-plan"), "status": {"conditions": [condition("Complete")]}})
    with Workers(server):
        assert pipeline(connect()).run()[0] == Finished()
    assert server.added_names("jobs").count("team-r1-plan") == 2


def test_what_pods_said_last_is_heard_also_where_their_watch_is_behind(
    backend: KubernetesBackend, server: ApiServer
) -> None:
    server.inject("watch", "pods", no_reply, times=99)
    with Workers(server):
        outcome, jobs = pipeline(backend).run()
    assert outcome == Finished()
    assert server.added_names("jobs").count("team-r1-plan") == 1
    assert jobs[Stage.EMBED].images_done == 30


def test_a_pod_that_is_gone_without_a_word_is_asked_for_once(backend: KubernetesBackend, server: ApiServer) -> None:
    backend.create(job(backend))
    status = {"completedIndexes": "0-2", "conditions": [condition("Complete")]}
    server.put("jobs", {**server.get("jobs", "team-r1-embed"), "status": status})
    wait_until(backend, lambda jobs: jobs[Stage.EMBED].phase is Phase.COMPLETE)
    list_count = server.count("list")
    for _ in range(10):
        backend.jobs("r1")
    assert server.count("list") == list_count


def test_a_create_whose_answer_was_lost_ends_well(
    backend: KubernetesBackend, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    for verb, kind in (("create", "jobs"), ("patch", "jobs"), ("create", "events")):
        server.inject(verb, kind, lost_reply)
    with Workers(server):
        assert pipeline(backend).run()[0] == Finished()
    assert len(server.added_names("jobs")) == 3
    assert len(server.objects("events")) == 1
    assert not [message for message in caplog.messages if "Event" in message]


def test_a_name_that_another_spec_has_is_an_error(connect: Connect, server: ApiServer) -> None:
    backend = connect()
    backend.create(job(backend))
    backend.create(job(backend))
    with pytest.raises(PermanentError, match="Job team-r1-embed exists with another spec"):
        backend.create(job(backend, completions=4))
    job_without_hash = server.get("jobs", "team-r1-embed")
    del job_without_hash["metadata"]["annotations"]
    server.put("jobs", job_without_hash)
    with pytest.raises(PermanentError, match="exists with another spec"):
        backend.create(job(backend))


def test_a_run_of_other_options_is_refused_before_anything_is_made(connect: Connect, server: ApiServer) -> None:
    backend = connect()
    backend.create(job(backend, Stage.PLAN, 1))
    other_settings = replace(settings(backend), run=replace(RUN, source="/sources/other"))
    with pytest.raises(PermanentError, match="run r1 exists with other options"):
        Pipeline(backend, other_settings, release=RELEASE, capacity=Capacity(2), show=lambda _: None).run()
    assert len(server.added_names("jobs")) == 1


def test_a_job_that_is_being_deleted_is_no_job_of_the_run_and_is_waited_for(
    backend: KubernetesBackend, server: ApiServer
) -> None:
    manifest = job(backend)
    backend.create(manifest)
    server.finalizing = True
    with ThreadPoolExecutor(2) as pool:
        deleted = pool.submit(backend.delete, "team-r1-embed")
        server.wait_until(lambda: server.count("delete") == 1)
        wait_until(backend, lambda jobs: jobs == {})
        created = pool.submit(backend.create, manifest)
        server.wait_until(lambda: server.count("create", "jobs") == 2)
        assert not deleted.done()
        assert not created.done()
        server.remove("jobs", "team-r1-embed")
        deleted.result(60)
        created.result(60)
    assert server.added_names("jobs") == ["team-r1-embed", "team-r1-embed"]
    assert Stage.EMBED in backend.jobs("r1")


def test_a_job_belongs_to_the_release_that_is_installed_when_it_is_created(
    backend: KubernetesBackend, server: ApiServer
) -> None:
    def owners(name: str) -> list[dict[str, str]]:
        owned: list[dict[str, str]] = server.get("jobs", name)["metadata"]["ownerReferences"]
        return owned

    config_map = server.get("configmaps", "team-pipeline")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "team-pipeline"}
    backend.create(job(backend, Stage.PLAN, 1))
    assert owners("team-r1-plan") == [{**owner, "uid": config_map["metadata"]["uid"]}]
    server.remove("configmaps", "team-pipeline")
    del config_map["metadata"]["uid"]
    installed_again = server.put("configmaps", config_map)
    backend.create(job(backend))
    assert owners("team-r1-embed") == [{**owner, "uid": installed_again["metadata"]["uid"]}]
    backend.start_controller(backend.controller_job(["run-pipeline", "/sources/photos"], settings(backend)))
    assert owners("team-r1-controller") == owners("team-r1-embed")


def test_a_job_is_checked_without_being_made(backend: KubernetesBackend, server: ApiServer) -> None:
    backend.check(job(backend))
    assert server.objects("jobs") == []
    backend.create(job(backend))
    backend.check(job(backend, completions=9))
    server.inject("create", "jobs", refusal(422, "spec.template: Invalid value", reason="Invalid"))
    with pytest.raises(UsageError, match="Invalid value"):
        backend.check(job(backend))


def test_what_cannot_be_told_does_not_fail_the_run(
    backend: KubernetesBackend, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.inject("create", "events", refusal(403, "events is forbidden"))
    with Workers(server):
        assert pipeline(backend).run()[0] == Finished()
    assert [message for message in caplog.messages if "team-r1-ingest" in message and "events is forbidden" in message]


def test_pods_of_the_release_that_do_not_run_are_named(backend: KubernetesBackend, server: ApiServer) -> None:
    def pod_of_release(name: str, **fields: Any) -> dict[str, Any]:
        release_pod = pod(name=name, **fields)
        release_pod["metadata"]["labels"] = {labels.INSTANCE: RELEASE}
        return release_pod

    server.put("pods", pod_of_release("team-searcher-1", conditions=[condition("Ready")]))
    server.put("pods", pod_of_release("team-hook-1", phase="Succeeded", terminated={}))
    server.put("pods", pod(0, "Pending", waiting={"reason": "ErrImagePull"}))  # of a run: status tells of it
    assert backend.troubles() == []
    server.put(
        "pods",
        pod_of_release("team-chroma-0", phase="Pending", waiting={"reason": "ImagePullBackOff", "message": "no x"}),
    )
    assert backend.troubles() == ["pod team-chroma-0 is not ready: ImagePullBackOff: no x"]


def test_where_there_is_no_release_the_sentence_says_what_to_do(connect: Connect, server: ApiServer) -> None:
    backend = connect()
    server.remove("configmaps", "team-pipeline")
    server.remove("podtemplates", "team-embed")
    with pytest.raises(UsageError, match=r"namespace search has no release 'team' .*helm install team … -n search"):
        backend.settings()
    with pytest.raises(UsageError, match="PodTemplate team-embed"):
        backend.template(Stage.EMBED)


def test_a_job_gets_more_pods_when_gpus_become_free(
    backend: KubernetesBackend, server: ApiServer, clock: Clock
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
        capacity = Capacity(1, most=9, free_pods=count_free_gpus, clock=clock)
        outcome, _ = pipeline(backend, advance, capacity).run()
    assert outcome == Finished()
    assert server.count("patch", "jobs") >= 1
    assert counts == [0]


def test_an_embedding_that_gets_no_node_is_given_up_and_leaves_no_pods(
    backend: KubernetesBackend, server: ApiServer
) -> None:
    unscheduled = condition("PodScheduled", "False", reason="Unschedulable", message="0/2 nodes are available: 2 busy.")

    def behave(command: list[str], index: int) -> Ended | Unfinished:
        return Unfinished("Pending", conditions=[unscheduled]) if command[-1] == "embed" else succeed(command, index)

    with Workers(server, behave):
        outcome, _ = pipeline(backend, capacity=Capacity(2, wait_seconds=600, now=lambda: NOW)).run()
    assert isinstance(outcome, Failed)
    assert "no node had room within" in outcome.reason
    assert "0/2 nodes are available: 2 busy." in outcome.reason
    assert [remaining["metadata"]["name"] for remaining in server.objects("jobs")] == ["team-r1-plan"]
    assert [event["reason"] for event in server.objects("events")] == ["NoCapacity"]


def test_a_detached_controller_is_a_job_that_the_next_one_replaces(
    backend: KubernetesBackend, server: ApiServer
) -> None:
    arguments = ["run-pipeline", "/sources/photos"]
    backend.start_controller(backend.controller_job(arguments, settings(backend)))
    backend.start_controller(backend.controller_job(arguments, settings(backend)))
    controller_job = server.get("jobs", "team-r1-controller")
    assert controller_job["spec"]["template"]["spec"]["containers"][0]["args"] == arguments
    assert backend.jobs("r1") == {}
    assert backend.runs() == ["r1"]
    server.put("jobs", {**controller_job, "status": {"conditions": [condition("Failed")]}})
    backend.start_controller(backend.controller_job(arguments, settings(backend)))
    assert server.added_names("jobs") == ["team-r1-controller"] * 2


def test_stopping_lets_the_jobs_go_on(backend: KubernetesBackend, server: ApiServer) -> None:
    backend.create(job(backend))
    backend.jobs("r1")
    backend.wait(0.01)
    backend.close()
    assert [remaining["metadata"]["name"] for remaining in server.objects("jobs")] == ["team-r1-embed"]


def test_a_run_survives_a_server_that_goes_and_comes_back(
    backend: KubernetesBackend, server: ApiServer, clock: Clock
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
        assert pipeline(backend).run()[0] == Finished()
    assert len(server.added_names("jobs")) == 3
