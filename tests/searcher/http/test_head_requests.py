"""HEAD: the same headers as GET, without the body."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from imgsearch.runs.layout import image_id
from tests.searcher.process import SearcherProcess, wait_for_text

IMAGE = f"/v1/images/{image_id('red.png')}"


def every_get(description: dict[str, object]) -> list[str]:
    paths = description["paths"]
    assert isinstance(paths, dict)
    templates = [path for path, operations in paths.items() if "get" in operations]
    filled_paths = [re.sub(r"\{path\}", "red.png", path.replace("{id}", image_id("red.png"))) for path in templates]
    return [*filled_paths, "/", "/page/page.css", "/docs", "/docs/start.js", "/openapi.json", "/healthz", "/readyz"]


def test_head_is_get_without_the_body(tmp_path: Path) -> None:
    with SearcherProcess(tmp_path) as server, httpx.Client(base_url=server.url) as client:
        server.finish()
        wait_for_text(server.url, "/readyz", "ready")
        paths = every_get(client.get("/openapi.json").json())
        assert len(paths) >= 14
        varying = {"date", "server-timing", "x-request-id"}
        for path in paths:
            head_response, get_response = client.head(path), client.get(path)
            assert (head_response.status_code, head_response.content) == (get_response.status_code, b""), path
            headers = {name: value for name, value in get_response.headers.items() if name not in varying}
            assert {name: value for name, value in head_response.headers.items() if name not in varying} == headers
        # The connection goes on: no byte of a body was sent.
        assert client.head(IMAGE, headers={"Range": "bytes=0-9"}).status_code == 206
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.head("/v1/search").status_code == 405
        metrics = client.get("/metrics").text
        assert 'imgsearch_requests_total{method="HEAD",route="/v1/images/{id}",status="206"} 1.0' in metrics
