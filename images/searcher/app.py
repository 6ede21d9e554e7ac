"""The searcher's application: its parts put together, and what every server has: health, metrics, a page."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import Request

from imgsearch.encoder import Encoder
from imgsearch.errors import BadImage, ImgsearchError
from imgsearch.settings import Settings
from imgsearch.sources import Source
from imgsearch.storage import Storage
from imgsearch.stores import VectorStore
from searcher import api, problems
from searcher.batching import Model, VectorCache
from searcher.catalog import Catalog
from searcher.finder import Finder
from searcher.images import Images
from searcher.keys import Key, KeyCheck
from searcher.leaving import LastAnswers
from searcher.metrics import Metrics, RequestMetrics
from searcher.schemas import LogIn
from searcher.threads import Threads

WEB = Path(__file__).with_name("web")
PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
LOG_IN = "/v1/login"
PUBLIC = frozenset({*PAGE, LOG_IN, "/healthz", "/readyz", "/metrics"})
"""Paths that need no key: nothing of the team's is to be seen there."""
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def create_app(
    settings: Settings,
    *,
    store: VectorStore,
    storage: Storage,
    load_encoder: Callable[[str], Encoder],
    open_source: Callable[[str], Source],
    stopping: threading.Event,
) -> FastAPI:
    """The application over what it is given. It listens at once, is ready when its models are loaded, and is not ready
    any more once `stopping` is set. Raises UsageError for an API key that no client could send."""
    limits = settings.search
    key = None if limits.api_key is None else Key(limits.api_key)
    threads = Threads()
    metrics = Metrics()
    cache = VectorCache(limits.cache_vectors)
    catalog = Catalog(
        store,
        load_encoder=load_encoder,
        make_model=partial(Model, threads=threads, cache=cache, limits=limits, metrics=metrics),
        threads=threads,
        metrics=metrics,
    )
    finder = Finder(catalog, store, threads=threads, limits=limits, metrics=metrics)
    images = Images(catalog, store, storage, open_source=open_source, threads=threads)

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
        redoc_url=None,
        responses={"4XX": problems.SCHEMA, "5XX": problems.SCHEMA},
    )
    for kind in (problems.Problem, ImgsearchError, BadImage, HTTPException, Exception):
        app.add_exception_handler(kind, problems.answer)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(problems.BodyLimit, limit=limits.max_body_bytes)
    if key:
        app.add_middleware(KeyCheck, key=key, public=PUBLIC)
        _add_log_in(app, key)
    app.add_middleware(LastAnswers, stopping=stopping)
    app.add_middleware(RequestMetrics, metrics=metrics)  # the last one added is the outermost
    # Only so that /docs knows of the key; KeyCheck asks for it, on paths that are no route too.
    described = [Depends(HTTPBearer(auto_error=False, description="The searcher's API key."))] if key else []
    app.include_router(api.router(catalog, finder, images), dependencies=described)
    _add_health(app, catalog, metrics, stopping)
    _add_page(app)
    return app


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problems.of_validation(error.errors()).response()


def _add_log_in(app: FastAPI, key: Key) -> None:
    @app.post(LOG_IN, include_in_schema=False)
    async def log_in(given: LogIn, request: Request) -> Response:
        return key.log_in(given.key, origin=request.headers.get("origin", ""))


def _add_health(app: FastAPI, catalog: Catalog, metrics: Metrics, stopping: threading.Event) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        reasons = ["it is shutting down"] if stopping.is_set() else await catalog.not_ready()
        metrics.ready(not reasons)
        if reasons:
            raise problems.Problem(503, "; ".join(reasons), headers={"Retry-After": str(problems.RETRY_SECONDS)})
        serving = {name: index.pointer.run for name, index in catalog.indexes.items()}
        return JSONResponse({"status": "ready", "serving": serving, "problems": catalog.problems})

    @app.get("/metrics", include_in_schema=False)
    async def exposition() -> Response:
        metrics.problems(catalog.problems, store=catalog.store_problem is None)
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


async def _same(response: Response, _: Request) -> Response:
    return response


def _add_page(app: FastAPI) -> None:
    for path, (name, media_type) in PAGE.items():
        file = Response((WEB / name).read_bytes(), media_type=media_type, headers=PAGE_HEADERS)

        app.add_route(path, partial(_same, file))
