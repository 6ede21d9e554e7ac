from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controller.backends.kubernetes.api import LONGEST_PAUSE, PATIENCE_SECONDS, Api
from controller.backends.kubernetes.informer import Informer
from imgsearch.errors import PermanentError, TemporaryError
from tests.controller.apiserver import ApiServer, chunked, ending, refusing

Made = Callable[..., Informer[str]]


def pod(name: str, state: str = "running") -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"mine": "yes"}}, "state": state}


class Pauses:
    """Notes how long a mirror would have waited, and goes on at once."""

    def __init__(self) -> None:
        self.noted: list[float] = []

    def __call__(self, stopped: threading.Event, seconds: float) -> None:
        self.noted.append(seconds)


class Change:
    """What a mirror sets on each change."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def until(self, met: Callable[[], bool]) -> None:
        while not met():
            assert self.event.wait(30), "what the test waits for did not happen"
            self.event.clear()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def change() -> Change:
    return Change()


@pytest.fixture
def mirror(api: Api, server: ApiServer, pauses: Pauses, change: Change) -> Iterator[Made]:
    made: list[Informer[str]] = []

    def make(**told: Any) -> Informer[str]:
        made.append(
            Informer(
                *(api, "v1", "pods"),
                labels="mine=yes",
                parse=lambda pod: f"{pod['metadata']['name']} {pod['state']}",
                changed=change.event,
                pause=pauses,
                **told,
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.stop()


def test_it_is_a_copy_of_what_the_selector_chooses(mirror: Made, server: ApiServer, change: Change) -> None:
    server.put("pods", pod("a"))
    server.put("pods", {"metadata": {"name": "other"}})
    copied = mirror()
    assert copied.values() == ["a running"]
    copied.follow()
    copied.follow()
    server.put("pods", pod("b"))
    server.put("pods", pod("a", "done"))
    change.until(lambda: sorted(copied.values()) == ["a done", "b running"])
    server.remove("pods", "b")
    change.until(lambda: copied.values() == ["a done"])
    assert (server.count("list"), server.count("watch")) == (1, 1), "a look is no request"


@pytest.mark.parametrize(
    "last", [b"", chunked(b'{"type": "MODIFIED", "object": {"metad')], ids=["closed", "half a line"]
)
def test_a_broken_watch_goes_on_from_the_last_version(
    mirror: Made, server: ApiServer, change: Change, last: bytes
) -> None:
    copied = mirror()
    copied.follow()
    server.put("pods", pod("a"))
    change.until(lambda: copied.values() == ["a running"])
    server.break_watches(last)
    server.put("pods", pod("b"))
    change.until(lambda: len(copied.values()) == 2)
    assert server.count("list") == 1
    assert server.requests[-1].query["resourceVersion"] == server.get("pods", "a")["metadata"]["resourceVersion"]


def test_a_bookmark_is_where_it_goes_on(mirror: Made, server: ApiServer, change: Change) -> None:
    copied = mirror()
    server.put("pods", pod("a"))
    copied.follow()
    change.until(lambda: copied.values() == ["a running"])
    before = int(server.get("pods", "a")["metadata"]["resourceVersion"])
    server.bookmark()
    server.break_watches(clean=True)
    server.put("pods", pod("b"))
    change.until(lambda: len(copied.values()) == 2)
    assert int(server.requests[-1].query["resourceVersion"]) == before + 1


@pytest.mark.parametrize("as_status", [False, True])
def test_what_is_too_old_is_listed_anew(mirror: Made, server: ApiServer, change: Change, as_status: bool) -> None:
    server.gone_as_status = as_status
    server.put("pods", pod("a"))
    copied = mirror()
    server.remove("pods", "a")
    server.put("pods", pod("b"))
    server.forget()
    copied.follow()
    change.until(lambda: copied.values() == ["b running"])
    server.put("pods", pod("c"))
    change.until(lambda: len(copied.values()) == 2)
    assert server.count("list") == 2


def test_what_is_to_be_kept_stays_when_it_is_gone(mirror: Made, server: ApiServer, change: Change) -> None:
    for name in "abcd":
        server.put("pods", pod(name))
    copied = mirror(keep=lambda read: read.endswith("done"))
    copied.follow()
    for name in "ab":
        server.put("pods", pod(name, "done"))
    for name in "ac":
        server.remove("pods", name)
    change.until(lambda: sorted(copied.values()) == ["a done", "b done", "d running"])


def test_what_went_while_nobody_watched_is_kept_too(mirror: Made, server: ApiServer, change: Change) -> None:
    server.put("pods", pod("a", "done"))
    server.put("pods", pod("b"))
    copied = mirror(keep=lambda read: read.endswith("done"))
    server.remove("pods", "a")
    server.remove("pods", "b")
    server.forget()
    copied.follow()
    change.until(lambda: copied.values() == ["a done"])


def test_what_was_just_made_is_there_at_once(mirror: Made, server: ApiServer) -> None:
    copied = mirror()
    copied.put(server.put("pods", pod("a")))
    assert copied.values() == ["a running"]


def test_what_was_just_made_does_not_hide_what_the_watch_has_told_since(
    mirror: Made, server: ApiServer, change: Change
) -> None:
    copied = mirror()
    copied.follow()
    made = server.put("pods", pod("a"))
    server.put("pods", pod("a", "done"))
    change.until(lambda: copied.values() == ["a done"])
    copied.put(made)
    assert copied.values() == ["a done"]


def test_a_server_that_is_away_is_not_run_down(mirror: Made, server: ApiServer, change: Change, pauses: Pauses) -> None:
    copied = mirror()
    server.close()
    copied.follow()
    with pytest.raises(TemporaryError, match=server.url):
        change.until(lambda: copied.values() is None)
    assert pauses.noted[:9] == [0.5, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert max(pauses.noted) == LONGEST_PAUSE
    assert PATIENCE_SECONDS < sum(pauses.noted) < PATIENCE_SECONDS + 3 * LONGEST_PAUSE


def test_nor_is_one_that_ends_each_watch_at_once(
    mirror: Made, server: ApiServer, change: Change, pauses: Pauses
) -> None:
    server.trouble("watch", "pods", ending, times=100)
    copied = mirror()
    copied.follow()
    server.put("pods", pod("a"))
    change.until(lambda: copied.values() == ["a running"])
    assert pauses.noted[:100] == [0.5] * 100, "and it is never given up: it answers"
    assert server.count("list") == 1


def test_nor_one_that_forgets_at_once(mirror: Made, server: ApiServer, change: Change, pauses: Pauses) -> None:
    server.trouble("watch", "pods", refusing(410, "too old", reason="Expired"), times=12)
    copied = mirror()
    copied.follow()
    server.put("pods", pod("a"))
    change.until(lambda: copied.values() == ["a running"])
    server.until(lambda: server.count("watch") == 13)
    assert pauses.noted[7:12] == [LONGEST_PAUSE] * 5


def test_a_watch_that_is_forbidden_ends_with_the_reason(mirror: Made, server: ApiServer, change: Change) -> None:
    server.trouble("watch", "pods", refusing(403, "pods is forbidden: cannot watch"), times=9)
    copied = mirror()
    copied.follow()
    with pytest.raises(PermanentError, match="cannot watch"):
        change.until(lambda: copied.values() is None)
    assert server.count("watch") == 1
