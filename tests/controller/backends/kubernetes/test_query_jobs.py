"""Jobs that answer a question and are removed."""

from __future__ import annotations

import pytest

from controller.backends.kubernetes.backend import KubernetesBackend
from controller.backends.kubernetes.query_jobs import START_SECONDS
from imgsearch.errors import ImgsearchError, PermanentError, TemporaryError, UsageError
from tests.controller.apifaults import lost_reply, text_reply
from tests.controller.apiserver import ApiServer
from tests.controller.backends.kubernetes.pipelines import Connect, settings
from tests.controller.conftest import Clock
from tests.controller.objects import condition
from tests.controller.workers import Ended, Unfinished, Workers


def test_a_query_job_answers_and_leaves_nothing(backend: KubernetesBackend, server: ApiServer) -> None:
    def behave(command: list[str], index: int) -> Ended | Unfinished:
        assert command == ["python", "-m", "searcher", "bad"]
        return Ended({"run": "r1", "bytes": 24}, output="key,stage,reason\na.jpg,decode,[x] is no image\n")

    with Workers(server, behave):
        answer = backend.call("searcher", "bad", settings(backend))
    assert answer.result == {"run": "r1", "bytes": 24}
    assert answer.text == "key,stage,reason\na.jpg,decode,[x] is no image\n"
    assert server.objects("jobs") == []
    assert server.objects("pods") == []
    (name,) = server.added_names("jobs")
    assert name.startswith("team-bad-")
    assert backend.jobs("r1") == {}, "it is no Job of the run that it asks about"


@pytest.mark.parametrize(("code", "error_type"), [(2, UsageError), (3, TemporaryError), (4, PermanentError)])
def test_a_query_job_fails_with_the_programs_sentence(
    backend: KubernetesBackend, server: ApiServer, code: int, error_type: type[ImgsearchError]
) -> None:
    with (
        Workers(server, lambda command, index: Ended({"error": "no index is called 'x'"}, code=code)),
        pytest.raises(error_type, match="no index is called 'x'"),
    ):
        backend.call("searcher", "rollback", settings(backend))
    assert server.objects("jobs") == []


def test_a_query_job_whose_create_was_lost_answers_all_the_same(backend: KubernetesBackend, server: ApiServer) -> None:
    server.inject("create", "jobs", lost_reply)
    with Workers(server, lambda command, index: Ended({"indexes": []})):
        assert backend.call("searcher", "indexes", settings(backend)).result == {"indexes": []}
    assert server.objects("jobs") == []


def test_a_query_job_that_says_nothing_usable_is_an_error(backend: KubernetesBackend, server: ApiServer) -> None:
    server.inject("log", "pods", text_reply(200, "no JSON\n"))
    with (
        Workers(server, lambda command, index: Ended({})),
        pytest.raises(TemporaryError, match="searcher indexes"),
    ):
        backend.call("searcher", "indexes", settings(backend))
    assert server.objects("jobs") == []


def test_a_query_job_that_does_not_begin_ends_with_the_schedulers_reason(connect: Connect, server: ApiServer) -> None:
    reason = "0/3 nodes are available: 3 Insufficient memory."

    def advance() -> float:
        clock.now += START_SECONDS / 2
        return clock.now

    clock = Clock()
    backend = connect(clock=advance)
    unscheduled = Unfinished("Pending", conditions=[condition("PodScheduled", "False", message=reason)])
    with (
        Workers(server, lambda command, index: unscheduled),
        pytest.raises(TemporaryError, match=rf"300 s \({reason}\)"),
    ):
        backend.call("searcher", "indexes", settings(backend))
    assert server.objects("jobs") == []


def test_a_query_job_that_runs_may_take_longer_but_not_for_ever(
    installed: ApiServer, connect: Connect, clock: Clock
) -> None:
    def advance() -> float:
        if any(pod["status"].get("phase") == "Running" for pod in installed.objects("pods")):
            clock.now += START_SECONDS / 2
        return clock.now

    backend = connect(clock=advance)
    with (
        Workers(installed, lambda command, index: Unfinished()),
        pytest.raises(TemporaryError, match=r"3600 s \(it still runs\)"),
    ):
        backend.call("searcher", "evaluate", settings(backend))
