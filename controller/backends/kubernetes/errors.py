"""Errors of the Kubernetes API, from the responses of a cluster.

An error is a metav1 Status (https://kubernetes.io/docs/reference/using-api/api-concepts/).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import httpx

from imgsearch.errors import NotFound, PermanentError, TemporaryError, UsageError


class AlreadyExists(PermanentError):
    """An object of that name exists."""


class Expired(TemporaryError):
    """The resourceVersion is too old: list again."""


class Unavailable(TemporaryError):
    """The API server does not answer, or answers 429 or 5xx: a retry may succeed."""

    def __init__(self, address: str, problem: str, *, retry_after: float = 0.0) -> None:
        super().__init__(f"the cluster at {address} {problem}: try again when it is back")
        self.problem = problem
        self.retry_after = retry_after
        """Seconds that the server asks to wait."""


def error_status(response: httpx.Response) -> dict[str, Any]:
    """The metav1 Status of an error; its message may come from a proxy instead."""
    try:
        status = response.json()
    except ValueError:
        status = None
    if not isinstance(status, dict) or "message" not in status:
        status = {"message": " ".join(response.text[:200].split()) or response.reason_phrase}
    return {**status, "code": response.status_code}


def status_error(status: Mapping[str, Any], address: str) -> Exception:
    """The error of a metav1 Status."""
    message = status.get("message", "no reason given")
    match status.get("code"):
        case 401:
            return UsageError(f"authentication failed (401) at the cluster {address}: log in again")
        case 403:
            return PermanentError(f"access denied (403) by the cluster: {message}")
        case 404:
            return NotFound(message)
        case 409 if status.get("reason") == "AlreadyExists":
            return AlreadyExists(message)
        case 410:
            return Expired(message)
        case 400 | 422:
            return UsageError(f"the cluster rejects the request: {message}")
        case _:
            return TemporaryError(f"the cluster at {address} answers {status.get('code')}: {message}")


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait; 0 where it does not."""
    try:
        return float(headers.get("Retry-After", 0))
    except ValueError:  # a date: our own pause is as good
        return 0.0


def certificate_problem(error: BaseException | None) -> str | None:
    """The reason why a certificate was rejected; None for another error."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None
