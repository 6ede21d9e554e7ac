"""Problems that only the Events of a namespace tell: refused pods, and pods whose containers are not created yet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from controller.backends.kubernetes.api import Api, Object
from imgsearch.errors import PermanentError

log = logging.getLogger(__name__)

EVENT_SECONDS = 5.0
"""Time between two reads of the Events."""
CREATING = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "Pulling")
"""Reasons of a pod that has a node and no container: the state of its containers does not have them."""

Owner = tuple[str, str]
"""Kind and name of an object that creates pods."""


class Troubles:
    """Reads Events, at most every EVENT_SECONDS. An account that is not allowed to list them sees no trouble."""

    def __init__(self, api: Api, *, clock: Callable[[], float]) -> None:
        self._api = api
        self._clock = clock
        self._read: dict[str, tuple[float, list[Object]]] = {}

    def refused(self) -> dict[Owner, str]:
        """The reason why an object cannot create pods, such as a quota, by object: that of its last attempt."""
        created = {_object(event): _time(event) for event in self._events("SuccessfulCreate")}
        return {
            owner: event["message"]
            for owner, event in _latest(self._events("FailedCreate")).items()
            if created.get(owner, "") < _time(event)
        }

    def creating(self) -> dict[str, str]:
        """The last step, or its problem, of pods whose containers are created, by pod."""
        events = [event for reason in CREATING for event in self._events(reason)]
        return {name: event["message"] for (kind, name), event in _latest(events).items() if kind == "Pod"}

    def _events(self, reason: str) -> list[Object]:
        """The events with this reason, the latest last."""
        read_at, events = self._read.get(reason, (-EVENT_SECONDS, []))
        if self._clock() - read_at >= EVENT_SECONDS:
            try:
                events, _ = self._api.select("v1", "events", fields=f"reason={reason}")
            except PermanentError as error:
                log.info("cannot list Events: %s", error)
                events = []
            events.sort(key=_time)
            self._read[reason] = self._clock(), events
        return events


def _latest(events: list[Object]) -> dict[Owner, Object]:
    return {_object(event): event for event in sorted(events, key=_time)}


def _object(event: Mapping[str, Any]) -> Owner:
    involved = event["involvedObject"]
    return involved.get("kind", ""), involved.get("name", "")


def _time(event: Mapping[str, Any]) -> str:
    """When it was last seen (https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/)."""
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")
