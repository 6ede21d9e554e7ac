"""Requests to the API of one Kubernetes namespace, with retries. Objects are dicts, as YAML writes them.

The protocol is JSON over HTTP (https://kubernetes.io/docs/reference/using-api/api-concepts/); connection.py finds the
cluster and its credentials.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential

from controller.backends.kubernetes.errors import (
    Expired,
    Unavailable,
    certificate_problem,
    error_status,
    retry_after,
    status_error,
)
from imgsearch.errors import NotFound, TemporaryError, UsageError

log = logging.getLogger(__name__)

Object = dict[str, Any]

PAGE = 500
"""Objects in one page of a list, as in kubectl."""
RETRY_SECONDS = 600.0
"""Time for which requests are retried while a control plane is away, for an upgrade or a fail-over."""
FIRST_CONTACT_SECONDS = 15.0
"""The same before the first answer: the address may be wrong, or the cluster may no longer exist."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two attempts."""
TAIL_SECONDS = 2.0
WATCH_SECONDS = 60
"""Duration of one watch: a connection that has died silently is noticed after it."""

_backoff = wait_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE)


class Api:
    """One namespace of one cluster. Thread-safe."""

    def __init__(
        self,
        http: httpx.Client,
        namespace: str,
        *,
        address: str,
        authorization: Callable[[], str | None] = lambda: None,
        retry_seconds: float = RETRY_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`address` is for messages; `authorization` returns the header, for each request again, since tokens
        expire."""
        self.namespace = namespace
        self._http = http
        self._address = address
        self._authorization = authorization
        self._retry_seconds = retry_seconds
        self._sleep = sleep
        self._clock = clock
        self._has_answered = False

    def get(self, group: str, kind: str, name: str) -> Object:
        """One object; `group` is `v1` or `batch/v1`, `kind` its plural. Raises NotFound."""
        return self._json("GET", self._path(group, kind, name))

    def select(self, group: str, kind: str, *, labels: str = "", fields: str = "") -> tuple[list[Object], str]:
        """All objects that match the selectors, page by page, and the resourceVersion to watch from."""
        return self._pages(self._path(group, kind), _selectors(labels, fields))

    def nodes(self) -> list[Object]:
        """The nodes of the cluster. Raises PermanentError where this account is not allowed to list them."""
        return self._pages("/api/v1/nodes", {})[0]

    def all_pods(self) -> list[Object]:
        """Pods of all namespaces that have not ended. Raises PermanentError where this account is not allowed to list
        them."""
        active = "status.phase!=Succeeded,status.phase!=Failed"
        return self._pages("/api/v1/pods", _selectors("", active))[0]

    def create(self, group: str, kind: str, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Raises AlreadyExists, and UsageError for an invalid object."""
        return self._json(
            "POST", self._path(group, kind), params={"dryRun": "All"} if dry_run else {}, content=json.dumps(body)
        )

    def patch(self, group: str, kind: str, name: str, changes: Mapping[str, Any]) -> Object:
        """Merges `changes` into an object (https://www.rfc-editor.org/rfc/rfc7386)."""
        return self._json(
            "PATCH",
            self._path(group, kind, name),
            content=json.dumps(changes),
            headers={"Content-Type": "application/merge-patch+json"},
        )

    def delete(self, group: str, kind: str, name: str) -> None:
        """Deletes an object after the objects that it owns. Does nothing where it does not exist."""
        with suppress(NotFound):
            self._json("DELETE", self._path(group, kind, name), params={"propagationPolicy": "Foreground"})

    def log(self, pod: str) -> str:
        """The log of a pod's only container. Raises NotFound, and UsageError before the container has started."""
        return self._request("GET", self._path("v1", "pods", pod) + "/log").text

    def tail(self, pod: str, lines: int) -> str:
        """The last lines of a log. No retry and a short timeout: it is for display, and the pod's node may be gone."""
        params = {"tailLines": str(lines)}
        path = self._path("v1", "pods", pod) + "/log"
        return self._request("GET", path, params=params, timeout=TAIL_SECONDS, retry_seconds=0.0).text

    def watch(self, group: str, kind: str, *, labels: str, version: str) -> Iterator[Object]:
        """Events after `version`, for at most WATCH_SECONDS.

        Raises Expired where the server no longer has that version, TemporaryError where the connection breaks. The
        caller then continues from the last version of an event."""
        params = {
            **_selectors(labels, ""),
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = httpx.Timeout(30.0, read=WATCH_SECONDS + 15, connect=5.0)
        request = self._http.build_request(
            "GET", self._path(group, kind), params=params, headers=self._headers(), timeout=timeout
        )
        try:
            response = self._http.send(request, stream=True)
            try:
                if response.is_error:
                    response.read()
                    raise status_error(error_status(response), self._address)
                for line in response.iter_lines():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise status_error(event["object"], self._address)
                    yield event
            finally:
                response.close()
        except (httpx.HTTPError, ValueError) as error:  # ValueError: an incomplete line
            raise TemporaryError(f"the cluster at {self._address} closed a watch early: {error}") from error

    def _pages(self, path: str, params: Mapping[str, str]) -> tuple[list[Object], str]:
        objects: list[Object] = []
        token = ""
        while True:
            try:
                page = self._json("GET", path, params={**params, "limit": str(PAGE), "continue": token})
            except Expired:
                if not token:
                    raise
                objects, token = [], ""  # the pages took too long: start again
                continue
            objects += page["items"]
            token = page["metadata"].get("continue", "")
            if not token:
                return objects, page["metadata"]["resourceVersion"]

    def _path(self, group: str, kind: str, name: str = "") -> str:
        root = "/api/v1" if group == "v1" else f"/apis/{group}"
        return f"{root}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def _json(self, method: str, path: str, **kwargs: Any) -> Object:
        response = self._request(method, path, **kwargs)
        try:
            return response.json()  # type: ignore[no-any-return]
        except ValueError as error:
            raise UsageError(
                f"{self._address} is not the API server of a cluster (its response: {response.text[:50]!r}): correct "
                "the address in the kubeconfig"
            ) from error

    def _request(self, method: str, path: str, *, retry_seconds: float | None = None, **kwargs: Any) -> httpx.Response:
        """Sends a request, again after a lost connection, 429 or 5xx, for at most `retry_seconds` seconds.

        Every request of ours may be repeated: names are computed, so a second POST is answered with 409."""
        begun = self._clock()

        def is_last(attempt: RetryCallState) -> bool:
            nonlocal retry_seconds
            if retry_seconds is None:  # decided at the first failure
                retry_seconds = self._retry_seconds if self._has_answered else FIRST_CONTACT_SECONDS
            return self._clock() + attempt.upcoming_sleep > begun + retry_seconds

        retrying = Retrying(
            retry=retry_if_exception_type(Unavailable),
            wait=_pause,
            stop=is_last,
            sleep=self._sleep,
            before_sleep=self._warn,
            reraise=True,
        )
        return retrying(self._send, method, path, **kwargs)

    def _send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **kwargs: Any
    ) -> httpx.Response:
        try:
            response = self._http.request(method, path, headers={**self._headers(), **(headers or {})}, **kwargs)
        except httpx.HTTPError as error:
            if problem := certificate_problem(error):
                raise UsageError(f"invalid certificate of the cluster at {self._address}: {problem}") from error
            raise Unavailable(self._address, f"does not answer ({error or type(error).__name__})") from error
        self._has_answered = True
        if response.is_success:
            return response
        status = error_status(response)
        if response.status_code == 429 or response.status_code >= 500:
            problem = f"answers {status['code']} ({status['message']})"
            raise Unavailable(self._address, problem, retry_after=retry_after(response.headers))
        raise status_error(status, self._address)

    def _warn(self, attempt: RetryCallState) -> None:
        log.warning(
            "the cluster at %s %s; retry %d follows in %.1f s",
            self._address,
            _unavailable(attempt).problem,
            attempt.attempt_number,
            attempt.upcoming_sleep,
        )

    def _headers(self) -> dict[str, str]:
        authorization = self._authorization()
        return {
            "Content-Type": "application/json",
            "User-Agent": "imgsearch-controller",
            **({"Authorization": authorization} if authorization else {}),
        }


def _pause(attempt: RetryCallState) -> float:
    """Seconds before the next attempt. Jitter spreads the requests of many controllers."""
    return max(_unavailable(attempt).retry_after, _backoff(attempt) * random.uniform(0.5, 1.0))


def _unavailable(attempt: RetryCallState) -> Unavailable:
    error = attempt.outcome.exception() if attempt.outcome else None
    assert isinstance(error, Unavailable)
    return error


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {name: text for name, text in (("labelSelector", labels), ("fieldSelector", fields)) if text}
