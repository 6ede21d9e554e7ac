"""The searcher's application: its parts put together, and what every server has: health, metrics, a page."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from cachetools import LRUCache
from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security.http import HTTPBase
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.requests import Request

from imgsearch.encoder import Encoder
from imgsearch.errors import BadImage, ImgsearchError
from imgsearch.settings import Settings
from imgsearch.sources import Source
from imgsearch.storage import Storage
from imgsearch.stores import VectorStore
from searcher.content.fetcher import Fetcher
from searcher.content.images import Images
from searcher.content.run_files import Facts
from searcher.http import api, docs, problems, rate_limit
from searcher.http.api_keys import KeyCheck, Keys
from searcher.http.compat import clip_retrieval, roboflow, skypilot
from searcher.http.connections import ClosingConnections
from searcher.http.cors import sharing
from searcher.http.files import Asset
from searcher.http.rate_limit import RateLimit
from searcher.http.request_id import Envelope, Heads
from searcher.http.request_metrics import RequestMetrics
from searcher.search.admission import Admission
from searcher.search.catalog import Catalog
from searcher.search.engine import SearchEngine
from searcher.search.errors import RETRY_SECONDS, Problem, of_validation
from searcher.search.metrics import Metrics
from searcher.search.model import Model, VectorCache
from searcher.search.requests import LogIn
from searcher.search.threads import Threads

WEB = Path(__file__).with_name("web")
MEDIA_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript"}
PAGE = {
    "/" if file.name == "index.html" else f"/page/{file.name}": file
    for file in sorted(WEB.iterdir())
    if file.suffix in MEDIA_TYPES
}
"""What the page is made of, by its path."""
LOG_IN = "/v1/login"
PUBLIC = frozenset({*PAGE, LOG_IN, "/healthz", "/readyz", "/metrics", skypilot.HEALTH})
"""Paths that need no key: nothing of the team's is to be seen there."""
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
COMPRESSED_BYTES = 1024
"""A smaller answer is sent as it is."""


def create_app(
    settings: Settings,
    *,
    store: VectorStore,
    storage: Storage,
    load_encoder: Callable[[str], Encoder],
    open_source: Callable[[str], Source],
    stopping: threading.Event,
    counts: Path | None = None,
) -> FastAPI:
    """The application over what it is given. It listens at once, is ready when its models are loaded, and is not ready
    any more once `stopping` is set. `counts` is the folder of Metrics. Raises UsageError for settings that make no
    sense."""
    limits = settings.search
    keys = None if limits.api_keys is None else Keys(limits.api_keys)
    rate = None if limits.rate_limit is None else rate_limit.rate(limits.rate_limit)
    shared = sharing(limits.cors_origins)
    threads = Threads()
    metrics = Metrics(counts)
    cache: VectorCache = LRUCache(limits.cache_vectors)
    admission = Admission(limits.max_waiting, metrics=metrics)
    catalog = Catalog(
        store,
        load_encoder=load_encoder,
        make_model=partial(Model, threads=threads, cache=cache, admission=admission, limits=limits, metrics=metrics),
        threads=threads,
        metrics=metrics,
    )
    fetch = Fetcher(limits).get
    engine = SearchEngine(catalog, store, threads=threads, limits=limits, metrics=metrics, fetch=fetch)
    images = Images(catalog, store, storage, open_source=open_source, threads=threads)
    facts = Facts(catalog, storage, threads=threads)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        refreshing = asyncio.create_task(catalog.run(limits.refresh_seconds))
        yield
        refreshing.cancel()
        with suppress(asyncio.CancelledError):
            await refreshing
        threads.close()

    app = FastAPI(
        title="imgsearch",
        description="Search images by text, by image, or by both.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={"4XX": problems.SCHEMA, "5XX": problems.SCHEMA},
    )
    for kind in (Problem, ImgsearchError, BadImage, HTTPException):
        app.add_exception_handler(kind, problems.answer)
    app.add_exception_handler(RequestValidationError, _invalid)
    # The last one added is the outermost: a refusal has to have the headers that an answer has.
    app.add_middleware(problems.BodyLimit, limit=limits.max_body_bytes)
    if rate:
        app.add_middleware(RateLimit, rate=rate, free=PUBLIC)
    if keys:
        app.add_middleware(KeyCheck, keys=keys, public=PUBLIC)
        _add_log_in(app, keys)
    app.add_middleware(problems.Surprises)
    app.add_middleware(
        GZipMiddleware,
        minimum_size=COMPRESSED_BYTES,
        exclude_content_types=(*DEFAULT_EXCLUDED_CONTENT_TYPES, "image/*"),  # their ETags are strong
    )
    if shared:
        app.add_middleware(CORSMiddleware, **shared)
    app.add_middleware(Heads)
    app.add_middleware(ClosingConnections, stopping=stopping)
    app.add_middleware(Envelope)
    app.add_middleware(RequestMetrics, metrics=metrics)
    described: dict[str, Any] = {}
    if keys:  # only so that /docs knows of them; KeyCheck asks for them, on paths that are no route too
        ways = [("bearer", "An API key."), ("basic", "An API key is the password; the user's name is of no account.")]
        schemes = [HTTPBase(scheme=way, scheme_name=way, description=text, auto_error=False) for way, text in ways]
        described = {"dependencies": [Depends(scheme) for scheme in schemes], "responses": api.REFUSED}
    app.include_router(api.router(catalog, engine, images, facts), **described)
    app.include_router(skypilot.router(catalog, engine, images), **described)
    app.include_router(skypilot.health(catalog))
    app.include_router(roboflow.router(catalog, engine, fetch), **described)
    app.include_router(clip_retrieval.router(catalog, engine), **described)
    _add_health(app, catalog, metrics, stopping)
    _add_page(app)
    docs.add_docs(app)
    docs.describe_headers(app)
    return app


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problems.response(of_validation(error.errors()))


def _add_log_in(app: FastAPI, keys: Keys) -> None:
    @app.post(LOG_IN, include_in_schema=False)
    async def log_in(given: LogIn, request: Request) -> Response:
        return keys.log_in(given.key, origin=request.headers.get("origin", ""))


def _add_health(app: FastAPI, catalog: Catalog, metrics: Metrics, stopping: threading.Event) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        reasons = ["it is shutting down"] if stopping.is_set() else await catalog.not_ready()
        metrics.ready(not reasons)
        if reasons:
            raise Problem(503, "; ".join(reasons), headers={"Retry-After": str(RETRY_SECONDS)})
        serving = {name: index.pointer.run for name, index in catalog.indexes.items()}
        return JSONResponse({"status": "ready", "serving": serving, "problems": catalog.problems})

    @app.get("/metrics", include_in_schema=False)
    async def exposition() -> Response:
        metrics.problems(catalog.problems, store=catalog.store_problem is None)
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI) -> None:
    for path, file in PAGE.items():
        app.add_route(path, Asset(file.read_bytes(), MEDIA_TYPES[file.suffix], PAGE_HEADERS).get)
