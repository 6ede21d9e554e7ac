"""The API key: requests bring it as a bearer token, and the page as a cookie that stands for it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from imgsearch.errors import UsageError
from searcher.problems import Problem

COOKIE = "imgsearch"
MISSING = "this searcher wants its API key: send the header `Authorization: Bearer KEY`, or give it to the page at /"
WRONG = "this is not the API key of this searcher: ask whoever runs it for the right one"


class Key:
    """What a client must know. It is compared as bytes, in a time that does not tell how much of it was right."""

    def __init__(self, text: str) -> None:
        """Raises UsageError for a key that no header can carry."""
        if not text or text != "".join(text.split()) or not text.isprintable():
            raise UsageError(
                "IMGSEARCH_SEARCH_API_KEY is empty, or has white space or control characters in it, which no header "
                "can carry: make the key anew (a Secret made with `echo` ends with a line break, with `printf` it "
                "does not)"
            )
        self._key = _bytes(text)
        # Not the key itself: browsers send cookies of a host to each of its ports.
        self._token = hmac.digest(self._key, b"imgsearch page", hashlib.sha256).hex()

    def is_known_to(self, client: HTTPConnection) -> bool:
        """Whether the request brings the key or the cookie."""
        scheme, _, given = client.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), self._key):
            return True
        return hmac.compare_digest(_bytes(client.cookies.get(COOKIE, "")), self._token.encode())

    def log_in(self, given: str, *, origin: str) -> Response:
        """An answer with the cookie; raises Problem where `given` is not the key.

        A cookie, since a browser loads an `<img>` and follows a link without any header of ours; no script can read
        it, and no other site can have it sent."""
        if not hmac.compare_digest(_bytes(given), self._key):
            raise _refused(WRONG)
        response = Response(status_code=204)
        response.set_cookie(COOKIE, self._token, httponly=True, samesite="strict", secure=origin.startswith("https://"))
        return response


class KeyCheck:
    """Answers 401 to whoever does not know the key, whatever the path, before anything of the body is read."""

    def __init__(self, app: ASGIApp, *, key: Key, public: Collection[str]) -> None:
        """`public`: the paths that need no key."""
        self._app = app
        self._key = key
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._public or self._key.is_known_to(HTTPConnection(scope)):
            await self._app(scope, receive, send)
            return
        given = "authorization" in HTTPConnection(scope).headers
        await _refused(WRONG if given else MISSING).response()(scope, receive, send)


def _refused(sentence: str) -> Problem:
    return Problem(401, sentence, headers={"WWW-Authenticate": "Bearer"})


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
