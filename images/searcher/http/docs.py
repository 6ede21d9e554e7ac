"""The page at /docs: Swagger UI, served from here because a closed cluster cannot reach a CDN."""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI

from searcher.http.files import Asset, page_headers

TITLE = "imgsearch API"
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
# Without `validatorUrl`, the page would send the document to a validator on the internet.
START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#reference", deepLinking: true, validatorUrl: "none"});\n'
HEADERS = page_headers(styles="'self' 'unsafe-inline'")  # Swagger UI sets inline styles


def add_docs(app: FastAPI) -> None:
    """Adds the page and its files to the app."""
    static = files("fastapi_offline") / "static"
    for path, data, media_type in [
        ("/docs", PAGE.encode(), "text/html"),
        ("/docs/start.js", START.encode(), "text/javascript"),
        ("/docs/swagger-ui.css", (static / "swagger-ui.css").read_bytes(), "text/css"),
        ("/docs/swagger-ui-bundle.js", (static / "swagger-ui-bundle.js").read_bytes(), "text/javascript"),
    ]:
        app.add_route(path, Asset(data, media_type, HEADERS).get, include_in_schema=False)
