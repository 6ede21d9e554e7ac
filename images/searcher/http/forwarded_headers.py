"""The headers in which a reverse proxy forwards its client's address, scheme and path.

No standard defines them: https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/X-Forwarded-For and
X-Forwarded-Proto; X-Forwarded-Prefix as Traefik's StripPrefix sends it."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from imgsearch.errors import UsageError
from searcher.http import problems
from searcher.http.addresses import parse_address
from searcher.http.root_path import add_root_path, is_below, parse_root_path
from searcher.search.errors import Problem

PREFIX = "x-forwarded-prefix"

Network = IPv4Network | IPv6Network


def parse_proxies(text: str) -> list[Network]:
    """The addresses and networks of the setting. Raises UsageError."""
    networks = []
    for entry in filter(None, map(str.strip, text.split(","))):
        try:
            networks.append(ip_network(entry))
        except ValueError as error:
            raise UsageError(
                f"IMGSEARCH_SEARCH_TRUSTED_PROXIES: {error}; write addresses and networks such as 10.1.2.3,10.2.0.0/16"
            ) from None
    return networks


class ForwardedHeaders:
    """Middleware. Sets the client, the scheme and the root path of requests that come from a trusted proxy.

    A client can send the same headers itself. Those of every other sender are therefore ignored."""

    def __init__(self, app: ASGIApp, *, trusted: Collection[Network], root_path: str) -> None:
        """`root_path`: for all requests. Empty: that of X-Forwarded-Prefix, or none."""
        with_own_types: Any = app  # uvicorn has its own types for ASGI
        self._app: Any = ProxyHeadersMiddleware(with_own_types, trusted_hosts=[str(network) for network in trusted])
        self._trusted = trusted
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope.get("client"):
                address, port = scope["client"]
                scope["client"] = (str(parse_address(address) or address), port)
            try:
                self._set_root_path(scope)
            except ValueError as error:
                detail = f"the proxy sent an invalid X-Forwarded-Prefix: {error}"
                await problems.response(Problem(400, detail))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _set_root_path(self, scope: Scope) -> None:
        """The proxy may have removed the root path of the setting or not: probes come without it, too. A proxy that
        sends X-Forwarded-Prefix has removed it. Raises ValueError for an invalid header."""
        root_path = self._root_path
        if not root_path and self._is_trusted(scope):
            root_path = parse_root_path(", ".join(Headers(scope=scope).getlist(PREFIX)))
            add_root_path(scope, root_path)
        elif not is_below(scope["path"], root_path):
            add_root_path(scope, root_path)
        scope["root_path"] = root_path

    def _is_trusted(self, scope: Scope) -> bool:
        address = parse_address(scope["client"][0]) if scope.get("client") else None
        return address is not None and any(address in network for network in self._trusted)
