"""Authentication with API keys (401). Clients send a key as a bearer token or a password; the page sends a cookie.

The server has only the SHA-256 of each key. That is enough for random keys, as docs/api-keys.md makes them: nobody
can try them all."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Collection
from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from imgsearch.errors import UsageError
from searcher.http import problems
from searcher.http.root_path import route_path
from searcher.search.errors import Problem

COOKIE = "imgsearch"
KEY_NAME = "key_name"
"""The entry of a request's ASGI scope with the name of its API key."""

MISSING = (
    "authentication required: send the header `Authorization: Bearer KEY`, or the key as the password, or log in on "
    "the search page"
)
INVALID = "authentication failed: invalid API key; ask your administrator for one"
FORMAT = (
    "write NAME:SHA256HEX, with a name of letters, digits, '.', '_' and '-', and the hash from: "
    'printf %s "$KEY" | sha256sum'
)
EMPTY = hashlib.sha256(b"").digest()


@dataclass(frozen=True)
class _Key:
    name: str
    digest: bytes

    @property
    def token(self) -> str:
        """The value of the cookie. Not the key itself: browsers send cookies of a host to each of its ports."""
        return hmac.digest(self.digest, b"imgsearch page", hashlib.sha256).hex()


class ApiKeys:
    """The valid API keys, each with the name of a client. Each check compares all keys in constant time, so that the
    response time reveals nothing about them."""

    def __init__(self, text: str) -> None:
        """`text`: entries of `NAME:SHA256HEX`, separated by lines or commas. Two keys may have the same name, such as
        the old and the new key of a client. Raises UsageError, which does not contain the entries."""
        entries = [entry.strip() for entry in re.split(r"[,\n]", text) if entry.strip()]
        self._keys = [_parse(entry, number) for number, entry in enumerate(entries, start=1)]
        if not self._keys:
            raise UsageError(f"IMGSEARCH_SEARCH_API_KEYS: no key; {FORMAT}")

    def authenticate(self, client: HTTPConnection) -> str | None:
        """The name of the key in the request's Authorization header or cookie. None: no valid key."""
        if key := self._find(_credentials(client.headers.get("authorization", ""))):
            return key.name
        cookie = _bytes(client.cookies.get(COOKIE, ""))
        matches = [key.name for key in self._keys if hmac.compare_digest(cookie, key.token.encode())]
        return matches[0] if matches else None

    def log_in(self, secret: str, *, origin: str, root_path: str) -> Response:
        """A response that sets the cookie, for the paths below `root_path`. Raises Problem for an invalid key.

        A cookie, because a browser sends no Authorization header with an `<img>` or a link. Scripts cannot read it, and
        other sites cannot make the browser send it."""
        key = self._find(_bytes(secret))
        if key is None:
            raise _unauthorized(INVALID)
        response = Response(status_code=204)
        secure = origin.startswith("https://")
        response.set_cookie(COOKIE, key.token, path=f"{root_path}/", httponly=True, samesite="strict", secure=secure)
        return response

    def _find(self, secret: bytes) -> _Key | None:
        digest = hashlib.sha256(secret).digest()
        matches = [key for key in self._keys if hmac.compare_digest(digest, key.digest)]
        return matches[0] if matches else None


class ApiKeyAuthentication:
    """Middleware. Refuses requests without a valid key with 401, whatever their path, before it reads their body."""

    def __init__(self, app: ASGIApp, *, keys: ApiKeys, public: Collection[str]) -> None:
        """`public`: paths that need no key."""
        self._app = app
        self._keys = keys
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or route_path(scope) in self._public:
            await self._app(scope, receive, send)
            return
        client = HTTPConnection(scope)
        name = self._keys.authenticate(client)
        if name is None:
            detail = INVALID if "authorization" in client.headers else MISSING
            await problems.response(_unauthorized(detail))(scope, receive, send)
            return
        scope[KEY_NAME] = name
        await self._app(scope, receive, send)


def _parse(entry: str, number: int) -> _Key:
    match = re.fullmatch(r"([A-Za-z0-9._-]{1,64}):([0-9A-Fa-f]{64})", entry)
    if match is None:
        raise UsageError(f"IMGSEARCH_SEARCH_API_KEYS: entry {number} is invalid; {FORMAT}")
    digest = bytes.fromhex(match[2])
    if digest == EMPTY:
        raise UsageError(f"IMGSEARCH_SEARCH_API_KEYS: entry {number} is the hash of an empty key; make a new key")
    return _Key(match[1], digest)


def _credentials(authorization: str) -> bytes:
    """The key in an Authorization header: a bearer token (RFC 6750), or the password of any user (RFC 7617), which most
    clients take from https://:KEY@HOST. Empty if there is none; no key is empty."""
    scheme, _, credentials = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return credentials.strip().encode("latin-1")
        case "basic":
            try:
                return base64.b64decode(credentials.strip(), validate=True).partition(b":")[2]
            except ValueError:
                return b""
    return b""


def _unauthorized(detail: str) -> Problem:
    # Never a challenge for a password: browsers would open their own dialog, and the page has one.
    return Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
