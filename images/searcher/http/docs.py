"""The page at /docs: Swagger UI, served from here, since a closed cluster reaches no CDN."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import FastAPI

from searcher.http.files import Asset
from searcher.http.request_id import REQUEST_ID

TITLE = "imgsearch: the API"
PAGE = f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{TITLE}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<main id="reference"></main>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# Without `validatorUrl` it would show what a server elsewhere says of the description.
START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#reference", deepLinking: true, validatorUrl: "none"});\n'
HEADERS = {
    # Swagger UI sets styles in its elements, and has its icons as data.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def add_docs(app: FastAPI) -> None:
    """The page and its parts."""
    shipped = files("fastapi_offline") / "static"
    for path, data, media_type in [
        ("/docs", PAGE.encode(), "text/html"),
        ("/docs/start.js", START.encode(), "text/javascript"),
        ("/docs/swagger-ui.css", (shipped / "swagger-ui.css").read_bytes(), "text/css"),
        ("/docs/swagger-ui-bundle.js", (shipped / "swagger-ui-bundle.js").read_bytes(), "text/javascript"),
    ]:
        app.add_route(path, Asset(data, media_type, HEADERS).get, include_in_schema=False)


def describe_headers(app: FastAPI) -> None:
    """Has the description tell the headers of every answer, which no route knows of."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            for path in plain()["paths"].values():
                for operation in path.values():
                    for response in operation["responses"].values():
                        response["headers"] = {**ALWAYS, **response.get("headers", {})}
        return plain()

    app.openapi = openapi  # type: ignore[method-assign]


def header(description: str, *, type: str = "string") -> dict[str, Any]:
    """The OpenAPI header object."""
    return {"description": description, "schema": {"type": type}}


ALWAYS = {
    REQUEST_ID: header("The request's own, where it had one of up to 128 visible ASCII characters."),
    "Server-Timing": header("Milliseconds, by where they went: `encode;dur=12.1, total;dur=14`."),
}
