"""The client of a request, from its ASGI scope."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request
from starlette.types import Scope

from searcher.http.api_keys import KEY_NAME
from searcher.search.clients import Client

CHARGE = "charge"
"""The entry of a request's ASGI scope with `Client.charge`, where the server has a rate limit."""


def client_name(scope: Scope) -> str:
    """The name of the API key, or without API keys the address."""
    return str(scope.get(KEY_NAME) or (scope.get("client") or ("",))[0])


async def _client(request: Request) -> Client:  # a plain function would run in a thread
    return Client(client_name(request.scope), request.scope.get(CHARGE, _no_limit))


def _no_limit(queries: int) -> None:
    """Any number of queries is allowed."""


RequestClient = Annotated[Client, Depends(_client)]
