"""A searcher over fakes: publish images of plain colours, then talk to it over HTTP."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from PIL import Image

from imgsearch.encoder import Encoder
from imgsearch.errors import TemporaryError, UsageError
from imgsearch.runs.layout import RunFolder, collection_name, image_id
from imgsearch.settings import SearchSettings, Settings
from imgsearch.storage import Storage
from imgsearch.stores import Pointer, Record, VectorStore
from searcher.app import create_app
from searcher.content.fetcher import AddressCheck, Fetcher
from searcher.content.url_rules import is_allowed
from searcher.search.metrics import Metrics
from searcher.table.files import TableFiles
from tests.fakes import COLOURS, FakeEncoder, InMemorySource, InMemoryStore

TIMEOUT = 20.0
"""Seconds after which a test that waits for a condition fails."""


def picture(colour: str = "red", *, format: str = "PNG", size: tuple[int, int] = (32, 24)) -> bytes:
    """An image file of one colour."""
    sink = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(sink, format)
    return sink.getvalue()


def hashed(*keys: str, name: str = "team") -> str:
    """The setting that lets in who knows one of these API keys."""
    return "\n".join(f"{name}:{hashlib.sha256(key.encode()).hexdigest()}" for key in keys)


class FailingStore(InMemoryStore):
    """A store that can be down."""

    down = False

    def pointers(self) -> dict[str, Pointer]:
        self._answer()
        return super().pointers()

    def count(self, collection: str) -> int:
        self._answer()
        return super().count(collection)

    def search(self, *args: Any, **kwargs: Any) -> Any:
        self._answer()
        return super().search(*args, **kwargs)

    def _answer(self) -> None:
        if self.down:
            raise TemporaryError("the store is down")


class Library:
    """The world around one searcher: its store, its storage, its sources and its models."""

    def __init__(self, folder: Path) -> None:
        self.store: VectorStore = InMemoryStore()
        self.storage = Storage(f"file://{folder}")
        self.tables = TableFiles(self.storage, folder / "cache")
        self.encoder = FakeEncoder()
        self.encoders: dict[str, FakeEncoder | Exception] = {self.encoder.model: self.encoder}
        self.loaded: list[str] = []
        self.loading = threading.Event()
        """Cleared, a model does not finish to load until it is set."""
        self.loading.set()
        self.sources: dict[str, InMemorySource] = {}
        self.stopping = threading.Event()
        self.address_check: AddressCheck = is_allowed
        """Which addresses an `image_url` may have."""

    def publish(
        self,
        images: Mapping[str, str | Mapping[str, Any]] | None = None,
        *,
        index: str = "photos",
        run: str = "r1",
        encoder: FakeEncoder | None = None,
        **pointer: Any,
    ) -> Pointer:
        """Publishes a run of `images`: key to colour, or to metadata with a `colour`."""
        images = images or {f"{colour}.png": colour for colour in ("red", "green", "blue", "yellow")}
        encoder = encoder or self.encoder
        metadata_by_key = {key: {"colour": value} if isinstance(value, str) else value for key, value in images.items()}
        files = {key: picture(value["colour"]) for key, value in metadata_by_key.items()}
        new_pointer = Pointer(
            index=index,
            run=run,
            collection=collection_name(index, run),
            model=encoder.model,
            fingerprint=encoder.fingerprint,
            dim=encoder.dim,
            images=len(files),
            source=f"/data/{index}",
            published="2026-01-01T00:00:00+00:00",
        )
        new_pointer = replace(new_pointer, **pointer)
        self.sources[new_pointer.source] = InMemorySource(new_pointer.source, files)
        self.store.create(new_pointer.collection, dim=encoder.dim, vectors=100)
        self.store.add(new_pointer.collection, self._records(metadata_by_key, files, run, encoder))
        self.store.publish(new_pointer)
        return new_pointer

    def _records(
        self,
        metadata_by_key: Mapping[str, Mapping[str, Any]],
        files: Mapping[str, bytes],
        run: str,
        encoder: FakeEncoder,
    ) -> Sequence[Record]:
        records, tar = [], b""
        for key, metadata in metadata_by_key.items():
            image = Image.open(io.BytesIO(files[key]))
            thumbnail = picture(metadata["colour"], format="WEBP", size=(8, 6))
            internal = {
                "key": key,
                "run": run,
                "thumbs": "00000/00000",
                "offset": len(tar),
                "length": len(thumbnail),
                "width": image.width,
                "height": image.height,
            }
            (vector,) = encoder.encode_images([encoder.prepare(image)])
            records.append(Record(image_id(key), metadata, vector, internal))
            tar += thumbnail
        self.storage.put(RunFolder(run).thumbs(0, 0), tar)
        encoder.image_calls.clear()
        encoder.threads.clear()
        return records

    def load_encoder(self, model: str) -> Encoder:
        self.loaded.append(model)
        assert self.loading.wait(TIMEOUT), "the test never let the model load"
        encoder = self.encoders.get(model) or UsageError(f"there is no model {model}")
        if isinstance(encoder, Exception):
            raise encoder
        return encoder

    def open_source(self, uri: str) -> InMemorySource:
        if uri not in self.sources:
            raise UsageError(f"{uri} is not there")
        return self.sources[uri]

    def app(self, metrics: Metrics | None = None, **limits: Any) -> FastAPI:
        settings = SearchSettings(**{"refresh_seconds": 0.01, **limits})
        metrics = metrics or Metrics()
        return create_app(
            Settings(search=settings),
            store=self.store,
            storage=self.storage,
            tables=self.tables,
            load_encoder=self.load_encoder,
            open_source=self.open_source,
            fetcher=Fetcher(settings, metrics, allowed=self.address_check),
            metrics=metrics,
            stopping=self.stopping,
        )

    @asynccontextmanager
    async def serving(self, *, ready: bool = True, **limits: Any) -> AsyncIterator[httpx.AsyncClient]:
        """A client of a running searcher with these search settings; `ready`: only once it is."""
        app = self.app(**limits)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://searcher", timeout=TIMEOUT) as client,
        ):
            if ready:
                await wait_until(lambda: client.get("/readyz"), lambda response: response.status_code == 200)
            yield client


async def wait_until(request: Callable[[], Any], predicate: Callable[[Any], bool]) -> Any:
    """Asks again and again until the answer is what the test waits for."""
    async with asyncio.timeout(TIMEOUT):
        while not predicate(response := await request()):
            await asyncio.sleep(0)
    return response


async def wait_for_event(flag: Any) -> None:
    """Waits for a threading.Event without blocking the loop."""
    assert await asyncio.to_thread(flag.wait, TIMEOUT), "what the test waits for did not happen"


async def search_colours(client: httpx.AsyncClient, **search: Any) -> list[str]:
    """The colours that a search gives, best first."""
    response = await client.post("/v1/search", json=search)
    assert response.status_code == 200, response.text
    return [result["metadata"]["colour"] for result in response.json()["results"]]


def problem(response: httpx.Response, status: int) -> str:
    """The sentence of a problem, whose form is checked on the way."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    assert document["type"] == "about:blank"
    assert document["title"]
    assert "Traceback" not in response.text
    return str(document["detail"])


async def wait_for_queue(client: httpx.AsyncClient, number: int) -> None:
    """Until so many queries wait for the model."""
    line = f"imgsearch_encode_queue {float(number)}"
    await wait_until(lambda: client.get("/metrics"), lambda response: line in response.text.splitlines())


def uploads(*colours: str) -> list[str]:
    """As /v1/embed takes images."""
    return [base64.b64encode(picture(colour)).decode() for colour in colours]
