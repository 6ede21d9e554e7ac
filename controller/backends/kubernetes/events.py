"""Kubernetes Events of a run's Jobs, as `kubectl describe job` shows them."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from controller.backends.kubernetes.api import Api
from controller.backends.kubernetes.errors import AlreadyExists
from controller.jobs.state import JobState
from imgsearch.errors import ImgsearchError

log = logging.getLogger(__name__)

MESSAGE_CHARACTERS = 1024


class Events:
    """Records Events. A failure to do so is logged only: the run does not depend on it."""

    def __init__(self, api: Api, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._api = api
        self._now = now

    def record(self, job: JobState, reason: str, message: str, *, warning: bool) -> None:
        try:
            self._create(job.name, reason, message, warning=warning)
        except ImgsearchError as error:
            log.warning("cannot record an Event for Job %s: %s", job.name, error)

    def _create(self, job: str, reason: str, message: str, *, warning: bool) -> None:
        uid = self._api.get("batch/v1", "jobs", job)["metadata"]["uid"]
        now = self._now().isoformat(timespec="seconds").replace("+00:00", "Z")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{job}.{uuid.uuid4().hex[:16]}"},
            "involvedObject": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": job,
                "namespace": self._api.namespace,
                "uid": uid,
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message[:MESSAGE_CHARACTERS],
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": "imgsearch-controller"},
        }
        with suppress(AlreadyExists):  # created by an attempt whose response was lost
            self._api.create("v1", "events", event)
