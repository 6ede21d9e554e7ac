"""Informer: a local copy of a cluster's objects of one kind. It lists them once, and a watch keeps it up to date."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from controller.backends.kubernetes.api import FIRST_PAUSE, LONGEST_PAUSE, RETRY_SECONDS, Api, Object
from controller.backends.kubernetes.errors import Expired
from imgsearch.errors import ImgsearchError, TemporaryError

log = logging.getLogger(__name__)

T = TypeVar("T")


class Informer(Generic[T]):
    """Holds `parse(object)` of each object that the selector matches. Reading it costs no request.

    `keep` returns what stays in the copy of an object that was deleted, None for nothing."""

    def __init__(
        self,
        api: Api,
        group: str,
        kind: str,
        *,
        labels: str,
        parse: Callable[[Object], T],
        changed: threading.Event,
        keep: Callable[[T], T | None] = lambda _: None,
        pause: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        self._api = api
        self._kind = (group, kind)
        self._labels = labels
        self._parse = parse
        self._changed = changed
        self._keep = keep
        self._pause = pause
        self._guard = threading.Lock()
        self._current: dict[str, T] = {}
        self._deleted: list[T] = []
        self._error: ImgsearchError | None = None
        self._stopped = threading.Event()
        self._version = "0"
        self._list()
        self._thread: threading.Thread | None = None

    def values(self) -> list[T]:
        """The current copy. Raises the error that ended the watch."""
        if self._error:
            raise self._error
        with self._guard:
            return [*self._deleted, *self._current.values()]

    def deleted(self) -> list[T]:
        """The part of `values` that was deleted."""
        with self._guard:
            return [*self._deleted]

    def put(self, object: Object) -> None:
        """Adds an object that was just created or changed, unless the watch already has it, or a later version
        (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions: they are ordered)."""
        with self._guard:
            if int(object["metadata"]["resourceVersion"]) > int(self._version):
                self._current[object["metadata"]["name"]] = self._parse(object)

    def follow(self) -> None:
        """Starts the watch, once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name=f"watch-{self._kind[1]}", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _follow(self) -> None:
        lost = 0.0  # seconds since the last event
        while not self._stopped.is_set():
            try:
                for event in self._api.watch(*self._kind, labels=self._labels, version=self._version):
                    self._apply(event["type"], event["object"])
                    lost = 0.0
                    if self._stopped.is_set():
                        return
                lost = 0.0
            except Expired:
                self._relist()
            except TemporaryError as error:
                if lost > RETRY_SECONDS:
                    self._fail(error)
                log.info("%s; a new watch continues from the last event", error)
            except ImgsearchError as error:
                self._fail(error)
            # Also after a complete watch: a proxy may end every watch at once.
            pause = min(max(FIRST_PAUSE, lost), LONGEST_PAUSE)  # the sum of the pauses before it
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
        listed = {object["metadata"]["name"]: self._parse(object) for object in objects}
        with self._guard:
            gone = (old for name, old in self._current.items() if name not in listed)
            self._deleted += [kept for old in gone if (kept := self._keep(old)) is not None]
            self._current = listed
            self._version = version

    def _apply(self, type: str, object: Object) -> None:
        self._version = object["metadata"]["resourceVersion"]
        if type == "BOOKMARK":
            return
        name = object["metadata"]["name"]
        with self._guard:
            self._current.pop(name, None)
            parsed = self._parse(object)
            if type != "DELETED":
                self._current[name] = parsed
            elif (kept := self._keep(parsed)) is not None:
                self._deleted.append(kept)
        self._changed.set()
