"""A copy of a cluster's objects of one kind, listed once and then kept fresh by a watch: looking costs no request."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from controller.backends.kubernetes.api import FIRST_PAUSE, LONGEST_PAUSE, PATIENCE_SECONDS, Api, Expired, Object
from imgsearch.errors import ImgsearchError, TemporaryError

log = logging.getLogger(__name__)

T = TypeVar("T")


class Informer(Generic[T]):
    """What `read` makes of each object that the selector chooses, by name.

    With `keep`, an object that is gone stays in the copy where `keep` says so of it."""

    def __init__(
        self,
        api: Api,
        group: str,
        kind: str,
        *,
        labels: str,
        read: Callable[[Object], T],
        changed: threading.Event,
        keep: Callable[[T], bool] = lambda _: False,
        pause: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        self._api = api
        self._kind = (group, kind)
        self._labels = labels
        self._read = read
        self._changed = changed
        self._keep = keep
        self._pause = pause
        self._guard = threading.Lock()
        self._there: dict[str, T] = {}
        self._gone: list[T] = []
        self._error: ImgsearchError | None = None
        self._stopped = threading.Event()
        self._version = "0"
        self._list()
        self._thread: threading.Thread | None = None

    def values(self) -> list[T]:
        """The copy as it is now; raises what ended the watch."""
        if self._error:
            raise self._error
        with self._guard:
            return [*self._gone, *self._there.values()]

    def put(self, made: Object) -> None:
        """Takes in what was just created or changed, unless the watch has already brought it or what came after it
        (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions: they are in order)."""
        with self._guard:
            if int(made["metadata"]["resourceVersion"]) > int(self._version):
                self._there[made["metadata"]["name"]] = self._read(made)

    def follow(self) -> None:
        """Begins to watch, if it has not begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name=f"watch-{self._kind[1]}", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _follow(self) -> None:
        lost = 0.0
        while not self._stopped.is_set():
            try:
                for event in self._api.watch(*self._kind, labels=self._labels, version=self._version):
                    self._take(event["type"], event["object"])
                    lost = 0.0
                    if self._stopped.is_set():
                        return
                lost = 0.0
            except Expired:
                self._relist()
            except TemporaryError as error:
                if lost > PATIENCE_SECONDS:
                    self._fail(error)
                log.info("%s; going on from there", error)
            except ImgsearchError as error:
                self._fail(error)
            # Also after a watch that ended well: whoever is in between may end each one at once.
            pause = min(max(FIRST_PAUSE, lost), LONGEST_PAUSE)  # as long as all before it
            lost += pause
            self._pause(self._stopped, pause)

    def _relist(self) -> None:
        try:
            self._list()
            self._changed.set()
        except ImgsearchError as error:
            self._fail(error)

    def _fail(self, error: ImgsearchError) -> None:
        self._error = error
        self._stopped.set()
        self._changed.set()

    def _list(self) -> None:
        objects, version = self._api.select(*self._kind, labels=self._labels)
        there = {each["metadata"]["name"]: self._read(each) for each in objects}
        with self._guard:
            self._gone += [was for name, was in self._there.items() if name not in there and self._keep(was)]
            self._there = there
            self._version = version

    def _take(self, type: str, object: Object) -> None:
        self._version = object["metadata"]["resourceVersion"]
        if type == "BOOKMARK":
            return
        name = object["metadata"]["name"]
        with self._guard:
            self._there.pop(name, None)
            now = self._read(object)
            if type != "DELETED":
                self._there[name] = now
            elif self._keep(now):
                self._gone.append(now)
        self._changed.set()
