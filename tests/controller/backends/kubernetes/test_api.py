from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from controller.backends.kubernetes.api import (
    FIRST_CONTACT_SECONDS,
    LONGEST_PAUSE,
    PAGE,
    RETRY_SECONDS,
    Api,
)
from controller.backends.kubernetes.errors import AlreadyExists
from imgsearch.errors import ImgsearchError, NotFound, PermanentError, TemporaryError, UsageError
from tests.controller.apifaults import cut_reply, lost_reply, no_reply, refusal, text_reply
from tests.controller.apihandler import Fault, chunked
from tests.controller.apiserver import NAMESPACE, ApiServer
from tests.controller.conftest import Clock
from tests.programs import free_port

JOBS = ("batch/v1", "jobs")
CHANGE = {"metadata": {"annotations": {"said": "hello"}}}


def metadata_object(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


def test_what_is_created_can_be_read_changed_and_deleted(api: Api, server: ApiServer) -> None:
    created = api.create(*JOBS, metadata_object("a"))
    assert created["metadata"]["resourceVersion"]
    assert api.get(*JOBS, "a") == created
    assert api.patch(*JOBS, "a", CHANGE)["metadata"]["annotations"] == {"said": "hello"}
    api.delete(*JOBS, "a")
    assert server.objects("jobs") == []
    assert server.requests[-1].query == {"propagationPolicy": "Foreground"}
    api.delete(*JOBS, "a")
    with pytest.raises(NotFound):
        api.get(*JOBS, "a")


def test_what_is_only_checked_is_not_kept(api: Api, server: ApiServer) -> None:
    api.create(*JOBS, metadata_object("a"), dry_run=True)
    assert server.objects("jobs") == []


def test_a_list_comes_page_by_page(api: Api, server: ApiServer) -> None:
    for number in range(2 * PAGE + 1):
        server.put("pods", metadata_object(f"pod-{number:05d}", mine="yes"))
    server.put("pods", metadata_object("other"))
    pods, version = api.select("v1", "pods", labels="mine=yes")
    assert [pod["metadata"]["name"] for pod in pods] == [f"pod-{number:05d}" for number in range(2 * PAGE + 1)]
    assert version == server.get("pods", "other")["metadata"]["resourceVersion"]
    assert server.count("list") == 3


def test_a_list_whose_pages_took_too_long_is_begun_again(api: Api, server: ApiServer) -> None:
    for number in range(PAGE + 1):
        server.put("pods", metadata_object(f"pod-{number:05d}"))

    def compact_after(handler: Any, serve: Any) -> None:
        serve()
        server.compact()

    server.inject("list", "pods", compact_after)
    assert len(api.select("v1", "pods")[0]) == PAGE + 1
    assert server.count("list") == 4


def test_selectors_choose_on_the_server(api: Api, server: ApiServer) -> None:
    server.put("jobs", metadata_object("a", run="r1"))
    server.put("jobs", metadata_object("b", run="r2"))
    assert [job["metadata"]["name"] for job in api.select(*JOBS, labels="run=r2")[0]] == ["b"]
    assert [job["metadata"]["name"] for job in api.select(*JOBS, fields="metadata.name=a")[0]] == ["a"]


def test_nodes_are_of_no_namespace(api: Api, server: ApiServer) -> None:
    server.put("nodes", metadata_object("gpu-1"))
    assert [node["metadata"]["name"] for node in api.nodes()] == ["gpu-1"]


def test_a_log_is_read_whole_or_from_its_end(api: Api, server: ApiServer) -> None:
    server.put("pods", metadata_object("p"))
    with pytest.raises(UsageError, match="waiting to start"):
        api.log("p")
    server.logs["p"] = "one\ntwo\ndrei ß\n"
    assert api.log("p") == "one\ntwo\ndrei ß\n"
    assert api.tail("p", 2) == "two\ndrei ß\n"
    with pytest.raises(NotFound):
        api.log("q")


@pytest.mark.parametrize(
    ("fault", "error_type", "sentence"),
    [
        (
            refusal(400, "cannot parse it", reason="BadRequest"),
            UsageError,
            "the cluster rejects the request: cannot parse it",
        ),
        (refusal(401, "Unauthorized"), UsageError, "authentication failed (401) at the cluster {url}: log in again"),
        (refusal(403, "jobs is forbidden"), PermanentError, "access denied (403) by the cluster: jobs is forbidden"),
        (refusal(404, 'jobs "a" not found'), NotFound, 'jobs "a" not found'),
        (refusal(409, "it is there", reason="AlreadyExists"), AlreadyExists, "it is there"),
        (refusal(409, "changed", reason="Conflict"), TemporaryError, "the cluster at {url} answers 409: changed"),
        (
            refusal(422, "spec: Invalid value", reason="Invalid"),
            UsageError,
            "the cluster rejects the request: spec: Invalid value",
        ),
        (
            text_reply(403, "<p>ask\nyour admin</p>"),
            PermanentError,
            "access denied (403) by the cluster: <p>ask your admin</p>",
        ),
        (text_reply(404, ""), NotFound, "Not Found"),
        (text_reply(400, '"no Status"'), UsageError, 'the cluster rejects the request: "no Status"'),
        (text_reply(302, ""), TemporaryError, "the cluster at {url} answers 302: Found"),
        (
            text_reply(200, "<html>Welcome"),
            UsageError,
            "{url} is not the API server of a cluster (its response: '<html>Welcome'): correct the address "
            "in the kubeconfig",
        ),
    ],
)
def test_each_refusal_has_its_kind_and_one_sentence(
    api: Api, server: ApiServer, clock: Clock, fault: Fault, error_type: type[ImgsearchError], sentence: str
) -> None:
    server.inject("get", "jobs", fault)
    with pytest.raises(ImgsearchError) as error:
        api.get(*JOBS, "a")
    assert type(error.value) is error_type
    assert str(error.value) == sentence.format(url=server.url)
    assert clock.slept == [], "no retry mends it"


@pytest.mark.parametrize(
    "fault", [refusal(429, "later"), refusal(500, "etcd"), refusal(503, "not ready"), text_reply(502, ""), cut_reply]
)
def test_what_a_retry_may_mend_is_tried_again_with_growing_pauses(
    api: Api, server: ApiServer, clock: Clock, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    server.put("jobs", metadata_object("a"))
    api.get(*JOBS, "a")
    server.inject("get", "jobs", fault, times=9)
    with caplog.at_level(logging.WARNING):
        assert api.get(*JOBS, "a")["metadata"]["name"] == "a"
    limits = [min(0.5 * 2**count, LONGEST_PAUSE) for count in range(9)]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(clock.slept, limits, strict=True))
    assert len(caplog.messages) == 9, "whoever waits is told"
    assert all(server.url in message for message in caplog.messages)


def test_the_server_says_how_long_to_wait(api: Api, server: ApiServer, clock: Clock) -> None:
    server.put("jobs", metadata_object("a"))
    server.inject("get", "jobs", refusal(429, "later", headers={"Retry-After": "17"}))
    server.inject("get", "jobs", refusal(429, "later", headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}))
    api.get(*JOBS, "a")
    assert clock.slept[0] == 17
    assert clock.slept[1] <= 1


def test_retries_end(api: Api, server: ApiServer, clock: Clock) -> None:
    server.inject("get", "jobs", refusal(503, "etcdserver: leader changed"), times=1000)
    with pytest.raises(TemporaryError) as error:
        api.get(*JOBS, "a")
    sentence = f"the cluster at {server.url} answers 503 (etcdserver: leader changed): try again when it is back"
    assert str(error.value) == sentence
    assert RETRY_SECONDS - LONGEST_PAUSE <= clock.now <= RETRY_SECONDS


def test_nobody_retries_for_longer_because_a_server_says_so(api: Api, server: ApiServer, clock: Clock) -> None:
    server.inject("get", "jobs", refusal(503, "down until Monday", headers={"Retry-After": "86400"}))
    with pytest.raises(TemporaryError, match="down until Monday"):
        api.get(*JOBS, "a")
    assert clock.slept == []


def test_a_server_that_has_never_answered_is_given_up_soon(clock: Clock) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with httpx.Client(base_url=url) as http, pytest.raises(TemporaryError, match=f"cluster at {url} does not answer"):
        Api(http, NAMESPACE, address=url, sleep=clock.sleep, clock=clock).get(*JOBS, "a")
    assert 1 < clock.now <= FIRST_CONTACT_SECONDS


def test_the_time_of_retries_is_decided_at_the_first_failure(clock: Clock) -> None:
    """Refused once, then 503: a wrong address may lead to a proxy, which is no reason to wait for minutes."""
    has_refused = False

    def respond(request: httpx.Request) -> httpx.Response:
        nonlocal has_refused
        if not has_refused:
            has_refused = True
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(503)

    with (
        httpx.Client(base_url="http://cluster", transport=httpx.MockTransport(respond)) as http,
        pytest.raises(TemporaryError),
    ):
        Api(http, NAMESPACE, address="http://cluster", sleep=clock.sleep, clock=clock).get(*JOBS, "a")
    assert 1 < clock.now <= FIRST_CONTACT_SECONDS


def test_one_that_has_answered_before_is_waited_for(api: Api, server: ApiServer, clock: Clock) -> None:
    server.put("jobs", metadata_object("a"))
    api.get(*JOBS, "a")
    server.close()
    with pytest.raises(TemporaryError, match="does not answer"):
        api.get(*JOBS, "a")
    assert clock.now > RETRY_SECONDS - LONGEST_PAUSE


def test_one_that_hangs_is_asked_again(server: ApiServer, clock: Clock) -> None:
    server.put("jobs", metadata_object("a"))
    server.inject("get", "jobs", no_reply)
    with httpx.Client(base_url=server.url, timeout=0.2) as http:
        api = Api(http, NAMESPACE, address=server.url, sleep=clock.sleep, clock=clock)
        assert api.get(*JOBS, "a")["metadata"]["name"] == "a"
    assert len(clock.slept) == 1


def test_the_end_of_a_log_is_asked_for_once(api: Api, server: ApiServer, clock: Clock) -> None:
    server.put("pods", metadata_object("p"))
    server.inject("log", "pods", refusal(500, "dial tcp 10.0.0.7:10250: no route to host"))
    with pytest.raises(TemporaryError, match="no route to host"):
        api.tail("p", 10)
    assert clock.slept == []


def test_a_create_whose_answer_was_lost_ends_as_one_of_a_name_that_is_taken(api: Api, server: ApiServer) -> None:
    server.inject("create", "jobs", lost_reply)
    with pytest.raises(AlreadyExists):
        api.create(*JOBS, metadata_object("a"))
    assert [job["metadata"]["name"] for job in server.objects("jobs")] == ["a"]
    assert server.count("create") == 2


@pytest.mark.parametrize("verb", ["patch", "delete"])
def test_a_change_whose_answer_was_lost_is_made_once_more(api: Api, server: ApiServer, verb: str) -> None:
    server.put("jobs", metadata_object("a"))
    server.inject(verb, "jobs", lost_reply)
    if verb == "patch":
        assert api.patch(*JOBS, "a", CHANGE)["metadata"]["annotations"] == {"said": "hello"}
    else:
        api.delete(*JOBS, "a")
        assert server.objects("jobs") == []
    assert server.count(verb) == 2


def watch(api: Api, version: str = "0") -> Iterator[dict[str, Any]]:
    return api.watch(*JOBS, labels="", version=version)


def test_a_watch_tells_what_happens(api: Api, server: ApiServer) -> None:
    server.put("jobs", metadata_object("a"))
    events = watch(api)
    first = next(events)
    assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "a")
    api.patch(*JOBS, "a", CHANGE)
    assert next(events)["type"] == "MODIFIED"
    server.remove("jobs", "a")
    assert next(events)["type"] == "DELETED"
    server.bookmark()
    assert next(events)["type"] == "BOOKMARK"
    server.break_watches(clean=True)
    assert list(events) == []


@pytest.mark.parametrize("expired_as_status", [False, True])
def test_a_watch_from_a_forgotten_version_says_so(api: Api, server: ApiServer, expired_as_status: bool) -> None:
    server.expired_as_status = expired_as_status
    server.compact()
    with pytest.raises(TemporaryError, match="too old resource version") as error:
        next(watch(api))
    assert type(error.value).__name__ == "Expired"


@pytest.mark.parametrize(
    ("last", "clean"),
    [
        (b"", False),
        (b'28\r\n{"type": "MODIFIED", "obj', False),
        (chunked(b'{"type": "MODIFIED", "obj'), True),
    ],
    ids=["closed", "cut off", "half a line"],
)
def test_a_watch_that_breaks_off_is_temporary(api: Api, server: ApiServer, last: bytes, clean: bool) -> None:
    server.put("jobs", metadata_object("a"))
    events = watch(api)
    next(events)
    server.break_watches(last, clean=clean)
    with pytest.raises(TemporaryError, match=server.url):
        next(events)


def test_a_watch_that_is_refused_says_why(api: Api, server: ApiServer) -> None:
    server.inject("watch", "jobs", refusal(403, "jobs is forbidden: cannot watch"))
    with pytest.raises(PermanentError, match="cannot watch"):
        next(watch(api))
    server.inject("watch", "jobs", refusal(429, "later"))
    with pytest.raises(TemporaryError, match="later"):
        next(watch(api))
