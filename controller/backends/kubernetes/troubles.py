"""Problems that only the Events of a namespace tell: refused pods, and pods whose containers are not created yet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from controller.backends.kubernetes.api import Api, Object
from imgsearch.errors import PermanentError

log = logging.getLogger(__name__)

EVENT_SECONDS = 30.0
"""Time between two reads of the Events: the API server reads all of them from its disk each time."""
CREATING = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "Pulling")
"""Reasons of a pod that has a node and no container: the state of its containers does not have them."""
RETRIED_WITHIN = timedelta(minutes=20)
"""Kubernetes tries to create a refused pod again after at most 17 minutes, so the problem of an older Event is over."""

Owner = tuple[str, str]
"""Kind and name of an object that creates pods."""


class Troubles:
    """Reads Events, at most every EVENT_SECONDS. An account that is not allowed to list them sees no trouble."""

    def __init__(self, api: Api, *, clock: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._api = api
        self._clock = clock
        self._now = now
        self._read_at = -EVENT_SECONDS
        self._events: list[Object] = []

    def refused(self) -> dict[Owner, str]:
        """The reason why an object cannot create pods, such as a quota, by object: that of its last attempt. The object
        with the latest attempt is the last."""
        created = {_object(event): _time(event) for event in self._with("SuccessfulCreate")}
        return {
            _object(event): event["message"]
            for event in self._with("FailedCreate")
            if created.get(_object(event), "") < _time(event)
            and self._now() - datetime.fromisoformat(_time(event)) < RETRIED_WITHIN
        }

    def creating(self) -> dict[str, str]:
        """The last step, or its problem, of pods whose containers are created, by pod."""
        events = self._with(*CREATING)
        return {event["involvedObject"]["name"]: event["message"] for event in events if _object(event)[0] == "Pod"}

    def _with(self, *reasons: str) -> list[Object]:
        """The last event of each object with one of these reasons, the latest last."""
        if self._clock() - self._read_at >= EVENT_SECONDS:
            try:
                events, _ = self._api.select("v1", "events")
            except PermanentError as error:
                log.info("cannot list Events: %s", error)
                events = []
            self._events = sorted(events, key=_time)
            self._read_at = self._clock()
        last: dict[Owner, Object] = {}
        for event in self._events:
            if event.get("reason") in reasons:
                last.pop(_object(event), None)
                last[_object(event)] = event
        return [*last.values()]


def _object(event: Mapping[str, Any]) -> Owner:
    involved = event["involvedObject"]
    return involved.get("kind", ""), involved.get("name", "")


def _time(event: Mapping[str, Any]) -> str:
    """When it was last seen (https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/)."""
    series = event.get("series") or {}
    seen = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return str(seen or event["metadata"]["creationTimestamp"])
