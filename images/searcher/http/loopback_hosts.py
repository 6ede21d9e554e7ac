"""Refuses requests to a loopback address that name another host (421), against DNS rebinding.

A page of another site can point its own name to 127.0.0.1. For the browser, this server is then a part of that site,
and scripts of the page may read its responses. The browser still sends the site's name as Host."""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from imgsearch.errors import UsageError
from searcher.http import problems
from searcher.http.addresses import parse_address
from searcher.search.errors import MAX_CHARS, Problem

SETTING = "search.allowed_hosts (IMGSEARCH_SEARCH_ALLOWED_HOSTS)"
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:]+))(?::[0-9]*)?")
"""An address in brackets or a name, and a port (RFC 9110, 7.2)."""


def parse_hosts(text: str) -> frozenset[str]:
    """The names and addresses of the setting. Raises UsageError."""
    hosts = set()
    for entry in filter(None, map(str.strip, text.split(","))):
        host = entry.lower().removesuffix(".")
        address = parse_address(host)
        if address is None and not _NAME.fullmatch(host):
            raise UsageError(
                f"IMGSEARCH_SEARCH_ALLOWED_HOSTS: invalid host {entry!r}; write names and addresses without a scheme "
                "or a port, such as photos.example.com,192.0.2.7"
            )
        hosts.add(host if address is None else str(address))
    return frozenset(hosts)


class LoopbackHosts:
    """Middleware for a server without API keys. On other addresses every Host is valid: the names of this server are
    not known, and who reaches it there needs no browser of somebody else."""

    def __init__(self, app: ASGIApp, *, allowed: Collection[str]) -> None:
        """`allowed`: hosts besides the names of the loopback addresses, in lower case."""
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_loopback(scope):
            # X-Forwarded-Host is not read, because a script of the page can set it.
            headers = Headers(scope=scope).getlist("host")
            if len(headers) != 1 or not self._is_allowed(headers[0]):
                await problems.response(_misdirected(headers))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_allowed(self, header: str) -> bool:
        match = _HOST.fullmatch(header.strip().lower())
        if match is None:
            return False
        host = (match[1] or match[2]).removesuffix(".")
        address = parse_address(host)
        if address is not None:
            # 0.0.0.0 is in the address that a server on all addresses logs; a browser connects to this machine with it.
            return address.is_loopback or address.is_unspecified or str(address) in self._allowed
        # Resolvers and browsers keep `localhost` and names below it on this machine (RFC 6761, 6.3).
        return host == "localhost" or host.endswith(".localhost") or host in self._allowed


def _is_loopback(scope: Scope) -> bool:
    """Whether the connection came to a loopback address of this machine or pod."""
    address = parse_address(scope["server"][0]) if scope.get("server") else None
    return address is not None and address.is_loopback


def _misdirected(headers: Collection[str]) -> Problem:
    host = " and ".join(repr(header[:MAX_CHARS]) for header in headers) or "no host"
    return Problem(
        421,
        f"the request names {host}, which is not a name of this machine; write 127.0.0.1 or localhost into the URL, or "
        f"add the host to {SETTING}",
    )
