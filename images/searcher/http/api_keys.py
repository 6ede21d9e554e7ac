"""The API keys: requests bring one as a bearer token or a password, and the page as a cookie that stands for it.

Only their SHA-256 is known here. That suffices for keys that were drawn at random, as docs/kubernetes.md makes them:
nobody can try them all."""

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
from searcher.search.errors import Problem

COOKIE = "imgsearch"
NAME = "key_name"
"""Where a request's scope has the name of its key."""

MISSING = (
    "this searcher wants an API key: send the header `Authorization: Bearer KEY`, or the key as a password, or give it "
    "to the page at /"
)
WRONG = "this is not an API key of this searcher: ask whoever runs it for one"
EMPTY = hashlib.sha256(b"").digest()


@dataclass(frozen=True)
class _Key:
    name: str
    digest: bytes

    @property
    def token(self) -> str:
        """What the cookie is. Not the key itself: browsers send cookies of a host to each of its ports."""
        return hmac.digest(self.digest, b"imgsearch page", hashlib.sha256).hex()


class Keys:
    """What clients may know, each with a name. All of them are looked at each time, so that the time of an answer does
    not tell how much of which was right."""

    def __init__(self, text: str) -> None:
        """`text`: `NAME:SHA256HEX`, one a line or with commas between them. Two may have one name, as the old and the
        new key of a client. Raises UsageError, which does not repeat them."""
        entries = [entry.strip() for entry in re.split(r"[,\n]", text) if entry.strip()]
        self._keys = [_key(entry, number) for number, entry in enumerate(entries, start=1)]
        if not self._keys:
            raise UsageError(f"IMGSEARCH_SEARCH_API_KEYS has no key in it; {HOW}")

    def name_for(self, client: HTTPConnection) -> str | None:
        """The name of the key that the request brings, or whose cookie; None: it brings none of these."""
        if key := self._known(_brought(client.headers.get("authorization", ""))):
            return key.name
        cookie = _bytes(client.cookies.get(COOKIE, ""))
        named = [key.name for key in self._keys if hmac.compare_digest(cookie, key.token.encode())]
        return named[0] if named else None

    def log_in(self, given: str, *, origin: str) -> Response:
        """An answer with the cookie; raises Problem where `given` is not a key.

        A cookie, since a browser loads an `<img>` and follows a link without any header of ours; no script can read
        it, and no other site can have it sent."""
        key = self._known(_bytes(given))
        if key is None:
            raise _refused(WRONG)
        response = Response(status_code=204)
        response.set_cookie(COOKIE, key.token, httponly=True, samesite="strict", secure=origin.startswith("https://"))
        return response

    def _known(self, given: bytes) -> _Key | None:
        digest = hashlib.sha256(given).digest()
        found = [key for key in self._keys if hmac.compare_digest(digest, key.digest)]
        return found[0] if found else None


HOW = (
    "each is NAME:SHA256HEX, the name of letters, digits, '.', '_' and '-', and the hash that of: "
    'printf %s "$KEY" | sha256sum'
)


def _key(entry: str, number: int) -> _Key:
    told = re.fullmatch(r"([A-Za-z0-9._-]{1,64}):([0-9A-Fa-f]{64})", entry)
    if told is None:
        raise UsageError(f"entry {number} of IMGSEARCH_SEARCH_API_KEYS cannot be read: {HOW}")
    digest = bytes.fromhex(told[2])
    if digest == EMPTY:
        raise UsageError(f"entry {number} of IMGSEARCH_SEARCH_API_KEYS is the hash of nothing: make the key anew")
    return _Key(told[1], digest)


class KeyCheck:
    """Answers 401 to whoever knows no key, whatever the path, before anything of the body is read."""

    def __init__(self, app: ASGIApp, *, keys: Keys, public: Collection[str]) -> None:
        """`public`: the paths that need no key."""
        self._app = app
        self._keys = keys
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._public:
            await self._app(scope, receive, send)
            return
        client = HTTPConnection(scope)
        name = self._keys.name_for(client)
        if name is None:
            given = "authorization" in client.headers
            await problems.response(_refused(WRONG if given else MISSING))(scope, receive, send)
            return
        scope[NAME] = name
        await self._app(scope, receive, send)


def _brought(authorization: str) -> bytes:
    """What this header may have a key in: a bearer token (RFC 6750), or the password of whatever user (RFC 7617), as
    most clients make it of https://:KEY@HOST. The empty one is nobody's key."""
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


def _refused(sentence: str) -> Problem:
    # Never a challenge for the password: browsers would ask for one in a window of theirs, and the page has its own.
    return Problem(401, sentence, headers={"WWW-Authenticate": "Bearer"})


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
