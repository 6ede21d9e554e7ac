"""The root path: the path below which clients see this server, such as `/photos` behind a proxy.

As in ASGI, `path` of a request's scope begins with its `root_path`
(https://asgi.readthedocs.io/en/stable/specs/www.html#http-connection-scope)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.types import Scope

from imgsearch.errors import UsageError

FORMAT = "write a path such as /photos, with letters, digits, '.', '_', '~' and '-'"
_ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")


def parse_root_path(text: str) -> str:
    """The root path without a slash at its end. `/` and an empty text are no root path: empty. Raises ValueError.

    Only characters that need no escape: the path becomes a part of links, and a `//` would begin the name of a host."""
    path = text.strip().removesuffix("/")
    if not _ROOT_PATH.fullmatch(path):
        raise ValueError(f"invalid root path {text!r}; {FORMAT}")
    return path


def root_path_setting(text: str) -> str:
    """The root path of the setting. Raises UsageError."""
    try:
        return parse_root_path(text)
    except ValueError as error:
        raise UsageError(f"IMGSEARCH_SEARCH_ROOT_PATH: {error}") from None


def check_no_route(root_path: str, routes: Iterable[str]) -> None:
    """Raises UsageError for a root path that is also a route or above one: the server could not tell `/v1/search` below
    the root path `/v1` from its own route."""
    route = next((route for route in routes if is_below(route, root_path)), None)
    if route is not None:
        raise UsageError(
            f"IMGSEARCH_SEARCH_ROOT_PATH: {root_path} is also the beginning of the server's own path {route}; choose "
            "another path"
        )


def is_below(path: str, root_path: str) -> bool:
    return path == root_path or path.startswith(f"{root_path}/")


def add_root_path(scope: Scope, root_path: str) -> None:
    """Adds the root path to the path of the request."""
    scope["path"] = root_path + scope["path"]
    scope["raw_path"] = root_path.encode() + (scope.get("raw_path") or b"")


def route_path(scope: Scope) -> str:
    """The path of the request below the root path, as in the routes."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
