from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controller.backends.kubernetes.api import LONGEST_PAUSE, RETRY_SECONDS, Api
from controller.backends.kubernetes.informer import Informer
from imgsearch.errors import PermanentError, TemporaryError
from tests.controller.apifaults import ended_watch, refusal
from tests.controller.apihandler import chunked
from tests.controller.apiserver import ApiServer

MakeInformer = Callable[..., Informer[str]]


def pod(name: str, state: str = "running") -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"mine": "yes"}}, "state": state}


class Pauses:
    """Notes how long a mirror would have waited, and goes on at once."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, stopped: threading.Event, seconds: float) -> None:
        self.seconds.append(seconds)


class Change:
    """What a mirror sets on each change."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def wait_until(self, predicate: Callable[[], bool]) -> None:
        while not predicate():
            assert self.event.wait(30), "what the test waits for did not happen"
            self.event.clear()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def change() -> Change:
    return Change()


@pytest.fixture
def make_informer(api: Api, server: ApiServer, pauses: Pauses, change: Change) -> Iterator[MakeInformer]:
    informers: list[Informer[str]] = []

    def make(**options: Any) -> Informer[str]:
        informers.append(
            Informer(
                *(api, "v1", "pods"),
                labels="mine=yes",
                parse=lambda pod: f"{pod['metadata']['name']} {pod['state']}",
                changed=change.event,
                pause=pauses,
                **options,
            )
        )
        return informers[-1]

    yield make
    for informer in informers:
        informer.stop()


def test_it_is_a_copy_of_what_the_selector_chooses(
    make_informer: MakeInformer, server: ApiServer, change: Change
) -> None:
    server.put("pods", pod("a"))
    server.put("pods", {"metadata": {"name": "other"}})
    informer = make_informer()
    assert informer.values() == ["a running"]
    informer.follow()
    informer.follow()
    server.put("pods", pod("b"))
    server.put("pods", pod("a", "done"))
    change.wait_until(lambda: sorted(informer.values()) == ["a done", "b running"])
    server.remove("pods", "b")
    change.wait_until(lambda: informer.values() == ["a done"])
    assert (server.count("list"), server.count("watch")) == (1, 1), "a look is no request"


@pytest.mark.parametrize(
    "last", [b"", chunked(b'{"type": "MODIFIED", "object": {"metad')], ids=["closed", "half a line"]
)
def test_a_broken_watch_goes_on_from_the_last_version(
    make_informer: MakeInformer, server: ApiServer, change: Change, last: bytes
) -> None:
    informer = make_informer()
    informer.follow()
    server.put("pods", pod("a"))
    change.wait_until(lambda: informer.values() == ["a running"])
    server.break_watches(last)
    server.put("pods", pod("b"))
    change.wait_until(lambda: len(informer.values()) == 2)
    assert server.count("list") == 1
    assert server.requests[-1].query["resourceVersion"] == server.get("pods", "a")["metadata"]["resourceVersion"]


def test_a_bookmark_is_where_it_goes_on(make_informer: MakeInformer, server: ApiServer, change: Change) -> None:
    informer = make_informer()
    server.put("pods", pod("a"))
    informer.follow()
    change.wait_until(lambda: informer.values() == ["a running"])
    version = int(server.get("pods", "a")["metadata"]["resourceVersion"])
    server.bookmark()
    server.break_watches(clean=True)
    server.put("pods", pod("b"))
    change.wait_until(lambda: len(informer.values()) == 2)
    assert int(server.requests[-1].query["resourceVersion"]) == version + 1


@pytest.mark.parametrize("expired_as_status", [False, True])
def test_what_is_too_old_is_listed_anew(
    make_informer: MakeInformer, server: ApiServer, change: Change, expired_as_status: bool
) -> None:
    server.expired_as_status = expired_as_status
    server.put("pods", pod("a"))
    informer = make_informer()
    server.remove("pods", "a")
    server.put("pods", pod("b"))
    server.compact()
    informer.follow()
    change.wait_until(lambda: informer.values() == ["b running"])
    server.put("pods", pod("c"))
    change.wait_until(lambda: len(informer.values()) == 2)
    assert server.count("list") == 2


def test_what_is_to_be_kept_stays_when_it_is_gone(
    make_informer: MakeInformer, server: ApiServer, change: Change
) -> None:
    for name in "abcd":
        server.put("pods", pod(name))
    informer = make_informer(keep=lambda text: text if text.endswith("done") else None)
    informer.follow()
    for name in "ab":
        server.put("pods", pod(name, "done"))
    for name in "ac":
        server.remove("pods", name)
    change.wait_until(lambda: sorted(informer.values()) == ["a done", "b done", "d running"])


def test_what_went_while_nobody_watched_is_kept_too(
    make_informer: MakeInformer, server: ApiServer, change: Change
) -> None:
    server.put("pods", pod("a", "done"))
    server.put("pods", pod("b"))
    informer = make_informer(keep=lambda text: text if text.endswith("done") else None)
    server.remove("pods", "a")
    server.remove("pods", "b")
    server.compact()
    informer.follow()
    change.wait_until(lambda: informer.values() == ["a done"])


def test_what_was_just_made_is_there_at_once(make_informer: MakeInformer, server: ApiServer) -> None:
    informer = make_informer()
    informer.put(server.put("pods", pod("a")))
    assert informer.values() == ["a running"]


def test_what_was_just_made_does_not_hide_what_the_watch_has_told_since(
    make_informer: MakeInformer, server: ApiServer, change: Change
) -> None:
    informer = make_informer()
    informer.follow()
    created = server.put("pods", pod("a"))
    server.put("pods", pod("a", "done"))
    change.wait_until(lambda: informer.values() == ["a done"])
    informer.put(created)
    assert informer.values() == ["a done"]


def test_a_server_that_is_away_is_not_run_down(
    make_informer: MakeInformer, server: ApiServer, change: Change, pauses: Pauses
) -> None:
    informer = make_informer()
    server.close()
    informer.follow()
    with pytest.raises(TemporaryError, match=server.url):
        change.wait_until(lambda: informer.values() is None)
    assert pauses.seconds[:9] == [0.5, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert max(pauses.seconds) == LONGEST_PAUSE
    assert RETRY_SECONDS < sum(pauses.seconds) < RETRY_SECONDS + 3 * LONGEST_PAUSE


def test_nor_is_one_that_ends_each_watch_at_once(
    make_informer: MakeInformer, server: ApiServer, change: Change, pauses: Pauses
) -> None:
    server.inject("watch", "pods", ended_watch, times=100)
    informer = make_informer()
    informer.follow()
    server.put("pods", pod("a"))
    change.wait_until(lambda: informer.values() == ["a running"])
    assert pauses.seconds[:100] == [0.5] * 100, "and it is never given up: it answers"
    assert server.count("list") == 1


def test_nor_one_that_forgets_at_once(
    make_informer: MakeInformer, server: ApiServer, change: Change, pauses: Pauses
) -> None:
    server.inject("watch", "pods", refusal(410, "too old", reason="Expired"), times=12)
    informer = make_informer()
    informer.follow()
    server.put("pods", pod("a"))
    change.wait_until(lambda: informer.values() == ["a running"])
    server.wait_until(lambda: server.count("watch") == 13)
    assert pauses.seconds[7:12] == [LONGEST_PAUSE] * 5


def test_a_watch_that_is_forbidden_ends_with_the_reason(
    make_informer: MakeInformer, server: ApiServer, change: Change
) -> None:
    server.inject("watch", "pods", refusal(403, "pods is forbidden: cannot watch"), times=9)
    informer = make_informer()
    informer.follow()
    with pytest.raises(PermanentError, match="cannot watch"):
        change.wait_until(lambda: informer.values() is None)
    assert server.count("watch") == 1
