"""The door to a Kubernetes: requests to its API, with one retry loop. Objects are dicts, as YAML writes them.

Of the `kubernetes` package comes what differs from cluster to cluster: kubeconfig files, their credential plugins, and
the account of a pod. The protocol itself is JSON over HTTP
(https://kubernetes.io/docs/reference/using-api/api-concepts/).
"""

from __future__ import annotations

import json
import logging
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import proxy_bypass

import httpx
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

from imgsearch.errors import NotFound, PermanentError, TemporaryError, UsageError

log = logging.getLogger(__name__)

Object = dict[str, Any]

PAGE = 500
"""Objects in one answer of a list, as kubectl has it."""
PATIENCE_SECONDS = 600.0
"""How long a control plane may be away, for an upgrade or a fail-over, until a command gives up."""
STRANGER_SECONDS = 15.0
"""And how long one that has never answered: its address may be wrong, or the cluster gone for good."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
TAIL_SECONDS = 2.0
WATCH_SECONDS = 60
"""A watch is begun anew so often: one that has died without a word is noticed then."""
KUBECONFIG = "~/.kube/config"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class AlreadyExists(PermanentError):
    """There is an object of that name."""


class Expired(TemporaryError):
    """The resourceVersion is too old: list anew."""


class Api:
    """One namespace of one cluster. Any thread may call."""

    def __init__(
        self,
        http: httpx.Client,
        namespace: str,
        *,
        where: str,
        authorization: Callable[[], str | None] = lambda: None,
        patience: float = PATIENCE_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`where` names the cluster to a person; `authorization` gives the header, fresh for each request."""
        self.namespace = namespace
        self._http = http
        self._where = where
        self._authorization = authorization
        self._patience = patience
        self._sleep = sleep
        self._clock = clock
        self._met = False

    def get(self, group: str, kind: str, name: str) -> Object:
        """One object; `group` is `v1` or `batch/v1`, `kind` its plural. Raises NotFound."""
        return self._json("GET", self._path(group, kind, name))

    def select(self, group: str, kind: str, *, labels: str = "", fields: str = "") -> tuple[list[Object], str]:
        """Every object that the selectors choose, page by page, and the resourceVersion to watch from."""
        return self._pages(self._path(group, kind), _selectors(labels, fields))

    def nodes(self) -> list[Object]:
        """The cluster's nodes; raises PermanentError where this account may not see them."""
        return self._pages("/api/v1/nodes", {})[0]

    def all_pods(self) -> list[Object]:
        """Those of every namespace that have not ended; raises PermanentError where this account may not see them."""
        active = "status.phase!=Succeeded,status.phase!=Failed"
        return self._pages("/api/v1/pods", _selectors("", active))[0]

    def create(self, group: str, kind: str, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Raises AlreadyExists, UsageError where the server refuses what is in it."""
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
        """Deletes it after what it owns; one that is not there is no error."""
        with suppress(NotFound):
            self._json("DELETE", self._path(group, kind, name), params={"propagationPolicy": "Foreground"})

    def log(self, pod: str) -> str:
        """What a pod's only container has written; raises NotFound, UsageError while it has not begun."""
        return self._request("GET", self._path("v1", "pods", pod) + "/log").text

    def tail(self, pod: str, lines: int) -> str:
        """The end of its log. Asked once, and not for long: it is only for show, and the pod's node may be gone."""
        params = {"tailLines": str(lines)}
        path = self._path("v1", "pods", pod) + "/log"
        return self._request("GET", path, params=params, timeout=TAIL_SECONDS, patience=0.0).text

    def watch(self, group: str, kind: str, *, labels: str, version: str) -> Iterator[Object]:
        """Events since `version`, for WATCH_SECONDS at the most.

        Raises Expired where the server does not remember that version any more, TemporaryError where the connection
        breaks: to go on from the last version seen is up to the caller."""
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
            answer = self._http.send(request, stream=True)
            try:
                if answer.is_error:
                    answer.read()
                    raise _status_error(_status(answer), self._where)
                for line in answer.iter_lines():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _status_error(event["object"], self._where)
                    yield event
            finally:
                answer.close()
        except (httpx.HTTPError, ValueError) as error:  # ValueError: a line that was cut off
            raise TemporaryError(f"the cluster at {self._where} has broken off a watch: {error}") from error

    def _pages(self, path: str, params: Mapping[str, str]) -> tuple[list[Object], str]:
        found: list[Object] = []
        following = ""
        while True:
            try:
                page = self._json("GET", path, params={**params, "limit": str(PAGE), "continue": following})
            except Expired:
                if not following:
                    raise
                found, following = [], ""  # the pages took too long: from the beginning
                continue
            found += page["items"]
            following = page["metadata"].get("continue", "")
            if not following:
                return found, page["metadata"]["resourceVersion"]

    def _path(self, group: str, kind: str, name: str = "") -> str:
        root = "/api/v1" if group == "v1" else f"/apis/{group}"
        return f"{root}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def _json(self, method: str, path: str, **kwargs: Any) -> Object:
        answer = self._request(method, path, **kwargs)
        try:
            return answer.json()  # type: ignore[no-any-return]
        except ValueError as error:
            raise UsageError(f"{self._where} is no Kubernetes, it answers with {answer.text[:50]!r}") from error

    def _request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        patience: float | None = None,
        **kwargs: Any,
    ) -> httpx.Response:
        """The one retry loop: a lost connection, 429 and 5xx are tried again until the patience is at its end.

        Every request of ours may be repeated: names are computed, so a second POST is answered with 409."""
        begun = self._clock()
        pause = FIRST_PAUSE
        while True:
            try:
                answer = self._http.request(method, path, headers={**self._headers(), **(headers or {})}, **kwargs)
                self._met = True
                if answer.is_success:
                    return answer
                status = _status(answer)
                if answer.status_code != 429 and answer.status_code < 500:
                    raise _status_error(status, self._where)
                told, asked = f"answers {status['code']} ({status['message']})", _seconds(answer.headers)
            except httpx.HTTPError as error:
                if trouble := _untrusted(error):
                    raise UsageError(f"the cluster at {self._where} cannot be trusted: {trouble}") from error
                told, asked = f"does not answer ({error or type(error).__name__})", 0.0
            # Jitter keeps the controllers of many runs from asking all at once.
            wait = max(asked, pause * random.uniform(0.5, 1.0))
            if patience is None:
                patience = self._patience if self._met else STRANGER_SECONDS
            if self._clock() + wait > begun + patience:
                raise TemporaryError(f"the cluster at {self._where} {told}: try again when it is back")
            log.warning("the cluster at %s %s; asking again", self._where, told)
            self._sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _headers(self) -> dict[str, str]:
        authorization = self._authorization()
        return {
            "Content-Type": "application/json",
            "User-Agent": "imgsearch-controller",
            **({"Authorization": authorization} if authorization else {}),
        }


def connect(*, kubeconfig: str | None, context: str | None, namespace: str | None) -> Api:
    """The cluster of the kubeconfig's context, or the one that this pod is in. `namespace` None: the context's own.

    Raises UsageError where neither is there."""
    configuration = kubernetes_client.Configuration()
    try:
        if not context and not kubeconfig and (SERVICE_ACCOUNT / "token").exists():
            kubernetes_config.load_incluster_config(client_configuration=configuration)
            own = (SERVICE_ACCOUNT / "namespace").read_text().strip()
        else:
            files = kubeconfig or KUBECONFIG
            kubernetes_config.load_kube_config(files, context=context, client_configuration=configuration)
            contexts, active = kubernetes_config.list_kube_config_contexts(files)
            chosen = next((each for each in contexts if each["name"] == context), active)
            own = chosen["context"].get("namespace", "default")
        trust = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            trust.load_cert_chain(configuration.cert_file, configuration.key_file)
    except Exception as error:  # the package has one of its own for each way in which a file can be wrong
        told = " ".join(str(error).split())  # that of a YAML parser has several lines
        raise UsageError(
            f"there is no cluster to talk to ({told}): set KUBECONFIG, name a --context, or say --local to work on "
            "this machine"
        ) from error
    if not configuration.verify_ssl:
        trust.check_hostname = False
        trust.verify_mode = ssl.CERT_NONE
    http = httpx.Client(
        base_url=configuration.host,
        verify=trust,
        timeout=TIMEOUT,
        proxy=_proxy(configuration),
        trust_env=False,  # the package has looked: a proxy-url of the kubeconfig comes first
    )

    def authorization() -> str | None:
        # Asked for each time: tokens expire, and the package renews them.
        header = configuration.auth_settings().get("BearerToken")
        return header["value"] if header else None

    return Api(http, namespace or own, where=configuration.host, authorization=authorization)


def _proxy(configuration: Any) -> str | None:
    """The proxy of the kubeconfig or of HTTPS_PROXY, unless NO_PROXY has the cluster's host."""
    proxy: str | None = configuration.proxy
    return None if not proxy or proxy_bypass(httpx.URL(configuration.host).host) else proxy


def _status(answer: httpx.Response) -> Object:
    """The metav1 Status of an answer that is none; a proxy on the way may have sent something else."""
    try:
        told = answer.json()
    except ValueError:
        told = None
    if not isinstance(told, dict) or "message" not in told:
        told = {"message": " ".join(answer.text[:200].split()) or answer.reason_phrase}
    return {**told, "code": answer.status_code}


def _status_error(status: Mapping[str, Any], where: str) -> Exception:
    """The error behind a metav1 Status (https://kubernetes.io/docs/reference/using-api/api-concepts/)."""
    message = status.get("message", "no reason given")
    match status.get("code"):
        case 401:
            return UsageError(f"the cluster at {where} does not know who asks: log in again")
        case 403:
            return PermanentError(f"the cluster refuses: {message}")
        case 404:
            return NotFound(message)
        case 409 if status.get("reason") == "AlreadyExists":
            return AlreadyExists(message)
        case 410:
            return Expired(message)
        case 400 | 422:
            return UsageError(f"the cluster refuses: {message}")
        case _:
            return TemporaryError(f"the cluster at {where} answers {status.get('code')}: {message}")


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {name: text for name, text in (("labelSelector", labels), ("fieldSelector", fields)) if text}


def _seconds(headers: Mapping[str, str]) -> float:
    try:
        return float(headers.get("Retry-After", 0))
    except ValueError:  # a date: the pause of our own is as good
        return 0.0


def _untrusted(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None
