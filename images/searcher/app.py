"""The searcher's application: the composition root, and the routes for health, metrics and the page."""

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
from starlette.routing import Route

from imgsearch.encoder import Encoder
from imgsearch.errors import BadImage, ImgsearchError
from imgsearch.settings import Settings
from imgsearch.sources import Source
from imgsearch.storage import Storage
from imgsearch.stores import VectorStore
from searcher.content.fetcher import Fetcher
from searcher.content.images import Images
from searcher.content.run_files import RunFiles
from searcher.http import api, docs, openapi, problems
from searcher.http.api_keys import ApiKeyAuthentication, ApiKeys
from searcher.http.body_limit import BodyLimit
from searcher.http.compat import clip_retrieval, roboflow, skypilot
from searcher.http.connections import ConnectionDraining, HangUpCancellation
from searcher.http.cors import cors_options
from searcher.http.files import Asset, page_headers
from searcher.http.forwarded_headers import ForwardedHeaders, parse_proxies
from searcher.http.head_requests import HeadRequests
from searcher.http.loopback_hosts import LoopbackHosts, parse_hosts
from searcher.http.rate_limit import RateLimit, parse_rate
from searcher.http.request_id import RequestId
from searcher.http.request_metrics import RequestMetrics
from searcher.http.root_path import check_no_route, root_path_setting
from searcher.http.unhandled_errors import UnhandledErrors
from searcher.search.admission import Admission
from searcher.search.catalog import Catalog
from searcher.search.engine import SearchEngine
from searcher.search.errors import RETRY_SECONDS, Problem, problem_of_validation
from searcher.search.live_recall import LiveRecall
from searcher.search.metrics import Metrics
from searcher.search.model import Model, VectorCache
from searcher.search.requests import LogIn
from searcher.search.tables import Tables
from searcher.search.threads import Threads
from searcher.table.files import TableFiles

WEB = Path(__file__).with_name("web")
MEDIA_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript"}
PAGE = {
    "/" if file.name == "index.html" else f"/page/{file.name}": file
    for file in sorted(WEB.iterdir())
    if file.suffix in MEDIA_TYPES
}
"""The files of the page, by path."""
LOGIN = "/v1/login"
PUBLIC = frozenset({"", *PAGE, LOGIN, "/healthz", "/readyz", "/metrics", skypilot.HEALTH})
"""Paths that need no API key, because they show none of the team's images. The empty one is the root path without a
slash, which redirects to the page."""
LOGIN_BYTES = 1024
"""The largest body of a login: it has one key, and anybody may send it."""
PAGE_HEADERS = page_headers(styles="'self'")
MIN_COMPRESSED_BYTES = 1024
"""A smaller response is not compressed."""


def create_app(
    settings: Settings,
    *,
    store: VectorStore,
    storage: Storage,
    tables: TableFiles,
    load_encoder: Callable[[str], Encoder],
    open_source: Callable[[str], Source],
    fetcher: Fetcher,
    metrics: Metrics,
    stopping: threading.Event,
) -> FastAPI:
    """Builds the application. It serves at once, is ready once its models are loaded, and is no longer ready once
    `stopping` is set. Raises UsageError for invalid settings."""
    limits = settings.search
    keys = None if limits.api_keys is None else ApiKeys(limits.api_keys)
    rate = None if limits.rate_limit is None else parse_rate(limits.rate_limit)
    cors = cors_options(limits.cors_origins)
    allowed_hosts = parse_hosts(limits.allowed_hosts)
    trusted_proxies = parse_proxies(limits.trusted_proxies)
    root_path = root_path_setting(limits.root_path)
    threads = Threads()
    cache: VectorCache = LRUCache(limits.cache_vectors)
    admission = Admission(limits.max_waiting, metrics=metrics)
    catalog = Catalog(
        store,
        load_encoder=load_encoder,
        make_model=partial(Model, threads=threads, cache=cache, admission=admission, limits=limits, metrics=metrics),
        tables=Tables(tables, threads=threads),
        threads=threads,
        metrics=metrics,
    )
    live_recall = LiveRecall(share=limits.checked_share, threads=threads, metrics=metrics)
    engine = SearchEngine(
        catalog,
        store,
        threads=threads,
        limits=limits,
        metrics=metrics,
        live_recall=live_recall,
        fetch=fetcher.get,
    )
    images = Images(catalog, store, storage, open_source=open_source, threads=threads)
    run_files = RunFiles(catalog, storage, threads=threads)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        refreshing = asyncio.create_task(catalog.run(limits.refresh_seconds))
        yield
        refreshing.cancel()
        with suppress(asyncio.CancelledError):
            await refreshing
        live_recall.close()
        threads.close()

    app = FastAPI(
        title="imgsearch",
        description="Search images by text, by image, or by both.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={"4XX": openapi.PROBLEM, "5XX": openapi.PROBLEM},
    )
    for error_class in (Problem, ImgsearchError, BadImage, HTTPException):
        app.add_exception_handler(error_class, problems.handle)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    # The last middleware is the outermost: error responses of the inner ones get the headers of the outer ones.
    app.add_middleware(BodyLimit, limit=limits.max_body_bytes, path_limits={LOGIN: LOGIN_BYTES})
    if rate:
        app.add_middleware(RateLimit, rate=rate, exempt=PUBLIC - {LOGIN})
    if keys:
        app.add_middleware(ApiKeyAuthentication, keys=keys, public=PUBLIC)
        _add_login(app, keys)
    else:
        app.add_middleware(LoopbackHosts, allowed=allowed_hosts)
    app.add_middleware(UnhandledErrors)
    app.add_middleware(
        GZipMiddleware,
        minimum_size=MIN_COMPRESSED_BYTES,
        exclude_content_types=(*DEFAULT_EXCLUDED_CONTENT_TYPES, "image/*"),  # images have strong ETags
    )
    if cors:
        app.add_middleware(CORSMiddleware, **cors)
    app.add_middleware(HeadRequests)
    app.add_middleware(ConnectionDraining, stopping=stopping)
    app.add_middleware(ForwardedHeaders, trusted=trusted_proxies, root_path=root_path)
    app.add_middleware(RequestId)
    app.add_middleware(HangUpCancellation)
    app.add_middleware(RequestMetrics, metrics=metrics)
    protected = _protected() if keys else {}
    app.include_router(api.router(catalog, engine, images, run_files), **protected)
    app.include_router(skypilot.router(catalog, engine, images), **protected)
    app.include_router(skypilot.health(catalog))
    app.include_router(roboflow.router(catalog, engine), **protected)
    app.include_router(clip_retrieval.router(catalog, engine), **protected)
    _add_health(app, catalog, metrics, stopping)
    _add_page(app)
    docs.add_docs(app)
    openapi.add_common_headers(app)
    if root_path:
        check_no_route(root_path, _paths(app))
    return app


def _paths(app: FastAPI) -> list[str]:
    """The paths of all routes, such as `/v1/images/{id}`."""
    return [*app.openapi()["paths"], *(route.path for route in app.routes if isinstance(route, Route))]


def _protected() -> dict[str, Any]:
    """Documents the API keys in OpenAPI. ApiKeyAuthentication checks them, also for paths without a route."""
    schemes = [
        HTTPBase(scheme=scheme, scheme_name=scheme, description=description, auto_error=False)
        for scheme, description in [
            ("bearer", "An API key."),
            ("basic", "An API key as the password. The user name is ignored."),
        ]
    ]
    return {"dependencies": [Depends(scheme) for scheme in schemes], "responses": openapi.UNAUTHORIZED}


async def _handle_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problems.response(problem_of_validation(error.errors()))


def _add_login(app: FastAPI, keys: ApiKeys) -> None:
    @app.post(LOGIN, include_in_schema=False)
    async def log_in(body: LogIn, request: Request) -> Response:
        return keys.log_in(body.key, origin=request.headers.get("origin", ""), root_path=request.scope["root_path"])


def _add_health(app: FastAPI, catalog: Catalog, metrics: Metrics, stopping: threading.Event) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        reasons = ["the searcher is shutting down"] if stopping.is_set() else await catalog.not_ready()
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
