"""A million images: ingest, recall, filters, pages, memory and clients, with one Chroma server.

A second call continues an ingest that was stopped, and does not repeat a finished one."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np

from bench import clients, filters, ingest, models, search, vectors
from bench.filters import Data
from bench.results import Figure
from bench.worker import Function, Worker
from imgsearch.runs.documents import Report
from imgsearch.runs.layout import RunFolder
from imgsearch.settings import LogSettings, SearchSettings, Settings, StorageSettings, StoreSettings
from imgsearch.storage import Storage
from imgsearch.stores.chroma import ChromaStore
from imgsearch.vectors import Vector, Vectors
from searcher.ingest.metrics import IngestMetrics
from searcher.recall.exact_search import recall

TITLE = "A million images"
METHOD = """\
The images, the queries and the filters of *Filters*, in a Chroma server and a search server on the same cores. Ingest
chooses the candidates by 60 texts, 256 images and 256 changed images of its own; the figures are of other queries.

- **Recall** is that of the HTTP API against exact search, for the queries of each kind (@1,000: 10 of them).
- **Chroma's default search** asks the same collection for 10 neighbours. **Ours** is that of the search server:
  of the clusters of the table, if ingest has chosen them, or of the store with the candidates of the index.
- **Pages**: a page of 200 results at offset 4 000, alone and after the pages before it. **Joined** pages are 20 pages
  of 50 results, which have to be the one search for 1 000.
- **Clients**: 32 clients search for texts that never repeat, in this index and in one of 10 000 images in turn.
- **Ingest** is in tenths of the images: a graph takes more work for a vector the larger it is. **The bare loop** calls
  Chroma's own `add` with the same ids, vectors and metadata, into a fresh collection with Chroma's default graph. Ours
  is the whole ingest, with its table, verification and recall."""

IMAGES = 1_000_000
RUN = "million"
CLIENTS = 32
MAX_K = 1_000
PAGE, DEEP, PART = 200, 4_000, 50
FEW = 10
"""Queries of each kind with large answers."""
ADDED = "imgsearch_ingest_added_total"
BATCH = 1_000
"""Vectors in a call of the bare loop: the fastest of those in *Ingest*."""
SAMPLE_SECONDS = 2.0
"""Between two looks at the progress of ingest."""


@dataclass(frozen=True)
class Setup:
    """The index, and where it is."""

    images: int
    dim: int
    model: str
    folder: Path
    small: int = 10_000
    """Images of the index beside it."""

    def settings(self, chroma_port: int) -> Settings:
        return Settings(
            storage=StorageSettings(f"{self.folder.as_uri()}/runs"),
            store=StoreSettings(f"chroma+http://127.0.0.1:{chroma_port}"),
            search=SearchSettings(port=search.free_port(), max_k=MAX_K),
            log=LogSettings(level="WARNING"),
        )


def measure(cache: Path, *, quick: bool) -> dict[str, list[Figure]]:
    if quick:
        return tables(Setup(20_000, 256, models.DEMO, cache / "million-quick"))
    return tables(Setup(IMAGES, 512, models.random_weights("ViT-B-32", cache), cache / "million"))


def tables(setup: Setup, *, seconds: float = 5.0, rounds: int = 3) -> dict[str, list[Figure]]:
    """All figures, by heading. `seconds` and `rounds`: of the clients."""
    setup.folder.mkdir(parents=True, exist_ok=True)
    with chroma(setup.folder) as server, Worker(made, setup) as with_data:
        settings = setup.settings(server.port)
        with Worker(filled, settings, setup) as fill:
            with_data(written, settings, setup.model, *fill("origin"))
            ingested = fill("ingest")
            fill("small")
        bare_seconds = _bare_seconds(setup, with_data)
        searches = with_data(compared, settings, setup.folder)
        figures = {
            # After a search: a Chroma that was started again has loaded the graph only then.
            "Ingest": _ingest_figures(setup, ingested, bare_seconds, server),
            "Searches": searches,
            "Filters": with_data(filtered, settings, setup.folder),
        }
        start = time.perf_counter()
        with search.serving(settings) as process, Worker(clients.search_clients, settings.search.port) as load:
            ready = time.perf_counter() - start
            figures["Recall"] = with_data(recalls, settings)
            figures["Pages"] = with_data(pages, settings)
            rates, small_rates = _rates(load, setup, seconds=seconds, rounds=rounds)
            figures["The search server"] = [
                Figure("search server", "start to ready, s", round(ready, 1), at_most=30),
                Figure(
                    "search server",
                    "own memory, with the model, MB",
                    megabytes(process.pid, "RssAnon"),
                    at_most=1_500 + round(models.megabytes(setup.model)),
                ),
                Figure("search server", "mapped files in memory, MB", megabytes(process.pid, "RssFile")),
                Figure.median("search server", "searches/s of 32 clients", rates),
                Figure.median(
                    "search server",
                    f"÷ that over {setup.small:,}",
                    [large / small for large, small in zip(rates, small_rates, strict=True)],
                    at_least=0.8,
                ),
            ]
    return figures


@dataclass(frozen=True)
class Server:
    """A running Chroma server."""

    port: int
    pid: int
    folder: Path

    @property
    def disk_megabytes(self) -> float:
        return round(sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file()) / 1e6)


@contextmanager
def chroma(folder: Path) -> Iterator[Server]:
    """A Chroma server over `folder`/chroma, from the first answer to its end."""
    data, port = folder / "chroma", search.free_port()
    program = str(Path(sys.executable).with_name("chroma"))
    command = [program, "run", "--path", str(data), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not search.answers(f"http://127.0.0.1:{port}/api/v2/heartbeat"):
            assert process.poll() is None, "the Chroma server exited"
            time.sleep(0.1)
        yield Server(port, process.pid, data)
    finally:
        process.terminate()
        process.wait()


def made(setup: Setup) -> Function:
    """Returns a function that calls another one with the images and the queries."""
    data = filters.make(setup.images, setup.dim)

    def run(function: Callable[..., Any], *args: Any) -> Any:
        return function(data, *args)

    return run


def written(data: Data, settings: Settings, model: str, fingerprint: str, preprocessing: str, dim: int) -> None:
    """Writes the embedded run, if an earlier call has not."""
    storage = Storage(settings.storage.uri)
    if not storage.exists(RunFolder(RUN).plan):
        filters.write(data, storage, RUN, vectors.Origin(model, fingerprint, preprocessing, dim))


def filled(settings: Settings, setup: Setup) -> Function:
    """Returns a function with three steps: what the encoder says of itself, the ingest, and the small index."""
    from imgsearch.encoder.openclip import load_encoder

    encoder = load_encoder(setup.model)

    def run(step: str) -> Any:
        if step == "origin":
            return encoder.fingerprint, encoder.preprocessing, encoder.dim
        if step == "ingest":
            return _ingested(settings, setup.folder / "ingest.json")
        if str(setup.small) not in ChromaStore(settings.store.url).pointers():
            search.publish(settings, setup.model)(setup.small)
        return None

    return run


def _ingested(settings: Settings, file: Path) -> dict[str, Any]:
    """The ingest: seconds and vectors added, again and again, and its report. In `file`, once it has ended."""
    if file.exists():
        return dict(json.loads(file.read_text()))
    metrics, ended = IngestMetrics(), threading.Event()
    points = [(0.0, 0.0)]

    def watch() -> None:
        start = time.perf_counter()
        while not ended.wait(SAMPLE_SECONDS):
            points.append((time.perf_counter() - start, metrics.registry.get_sample_value(ADDED) or 0.0))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        seconds = ingest.ingest(settings.storage.uri, settings.store.url, RUN, metrics)
    finally:
        ended.set()
        watching.join()
    report = Report.from_json(Storage(settings.storage.uri).get(RunFolder(RUN).report), RUN)
    document = {
        "seconds": seconds,
        "added": metrics.registry.get_sample_value(ADDED) or 0.0,
        "points": points,
        "recall": report.recall,
        "candidates": report.candidates,
        "compared": report.compared,
        "stages": report.ingest_stages,
        "peak_mb": megabytes("self", "VmHWM"),
    }
    file.write_text(json.dumps(document))
    return document


def _bare_seconds(setup: Setup, with_data: Worker) -> float:
    """The seconds of a bare loop. In a file, once it has ended."""
    file = setup.folder / "bare_seconds.txt"
    if not file.exists():
        with tempfile.TemporaryDirectory(dir=setup.folder) as folder, chroma(Path(folder)) as server:
            file.write_text(str(with_data(added, server.port)))
    return float(file.read_text())


def added(data: Data, port: int) -> float:
    """Adds all images with Chroma's own `add`, and returns the seconds."""
    import chromadb
    from chromadb.config import Settings

    client = chromadb.HttpClient("127.0.0.1", port, settings=Settings(anonymized_telemetry=False))
    ids = [filters.id_of(row) for row in range(len(data.vectors))]
    return ingest.bare_loop(client, ids, data.vectors, [dict(metadata) for metadata in data.metadata], batch=BATCH)


def _ingest_figures(setup: Setup, ingested: Mapping[str, Any], bare_seconds: float, server: Server) -> list[Figure]:
    case = f"{setup.images:,} images"
    rates = _tenths(ingested["points"], ingested["added"])
    return [
        Figure(case, "minutes", round(ingested["seconds"] / 60, 1)),
        Figure(case, "minutes of a bare loop", round(bare_seconds / 60, 1)),
        Figure(case, "speed ÷ that of the loop", round(bare_seconds / ingested["seconds"], 2), at_least=0.95),
        Figure(case, "vectors/s in the first tenth", round(rates[0])),
        Figure(case, "in the fifth", round(rates[4])),
        Figure(case, "in the last", round(rates[-1])),
        Figure(case, "minutes for the recall", round(ingested["stages"].get("recall", 0) / 60, 2)),
        Figure(case, "candidates", ingested["candidates"]),
        Figure(case, "rows compared", ingested["compared"]),
        Figure(case, "memory of ingest, MB", ingested["peak_mb"]),
        Figure(case, "memory of Chroma, MB", megabytes(server.pid, "VmRSS")),
        Figure(case, "files of Chroma, MB", server.disk_megabytes),
        *(
            Figure(f"{case}, {figure['queries']}", f"recall@{figure['k']} by ingest", round(figure["mean"], 4))
            for figure in ingested["recall"]
        ),
    ]


def _tenths(points: list[tuple[float, float]], added: float) -> list[float]:
    """Vectors a second in each tenth of the vectors."""
    seconds, counts = zip(*points, strict=True)
    borders = np.interp(np.linspace(0, added, 11), counts, seconds)
    return [float(added / 10 / max(1e-9, width)) for width in np.diff(borders)]


def compared(data: Data, settings: Settings, cache: Path) -> list[Figure]:
    table = filters.open_table(Storage(settings.storage.uri), RUN, cache / "tables")
    return filters.compared_searches(data, table, ChromaStore(settings.store.url), RUN)


def filtered(data: Data, settings: Settings, cache: Path) -> list[Figure]:
    table = filters.open_table(Storage(settings.storage.uri), RUN, cache / "tables")
    return filters.measured_cases(data, table, ChromaStore(settings.store.url), RUN)


def recalls(data: Data, settings: Settings) -> list[Figure]:
    """Recall@k of the HTTP API."""
    with _client(settings) as client:
        return [
            Figure(kind, f"recall@{k:,}", _recall(data, client, queries[:count], k), at_least=0.99)
            for kind, queries in data.queries.items()
            for k, count in ((10, len(queries)), (100, len(queries)), (MAX_K, FEW))
        ]


def _recall(data: Data, client: httpx.Client, queries: Vectors, k: int) -> float:
    shares = []
    for query in queries:
        found = data.vectors[_rows(_search(client, query, k=k))]
        best = np.sort(data.vectors @ query)[::-1][:k]
        shares.append(recall((found @ query).tolist(), best, k))
    return round(float(np.mean(shares)), 4)


def pages(data: Data, settings: Settings) -> list[Figure]:
    """The time of deep pages, and whether joined pages are one search."""
    times: dict[str, list[float]] = {"first": [], "alone": [], "after the pages before it": []}
    same = []
    with _client(settings) as client:
        for text in data.queries["texts"][:FEW]:
            # Vectors of which the server keeps no level.
            query, other = text + np.float32(1e-6), text + np.float32(2e-6)
            times["first"].append(_milliseconds(partial(_search, client, query, k=PAGE)))
            times["alone"].append(_milliseconds(partial(_search, client, other, k=PAGE, offset=DEEP)))
            for offset in range(PAGE, DEEP, PAGE):
                _search(client, query, k=PAGE, offset=offset)
            times["after the pages before it"].append(
                _milliseconds(partial(_search, client, query, k=PAGE, offset=DEEP))
            )
            joined = [row for response in _cursor_pages(client, query) for row in _rows(response)]
            same.append(joined == _rows(_search(client, query, k=MAX_K)))
    first = median(times["first"])
    return [
        Figure("first page", "ms", round(first, 1)),
        *(
            figure
            for name in ("alone", "after the pages before it")
            for figure in (
                Figure(f"page at {DEEP:,}, {name}", "ms", round(median(times[name]), 1)),
                Figure(f"page at {DEEP:,}, {name}", "÷ the first", round(median(times[name]) / first, 2), at_most=3),
            )
        ),
        Figure("joined pages", "share that is the one search", sum(same) / len(same), at_least=1),
    ]


def _cursor_pages(client: httpx.Client, query: Vector) -> Iterator[dict[str, Any]]:
    response = _search(client, query, k=PART)
    yield response
    for _ in range(MAX_K // PART - 1):
        response = _search(client, query, k=PART, cursor=response["next_cursor"])
        yield response


def _rates(load: Worker, setup: Setup, *, seconds: float, rounds: int) -> tuple[list[float], list[float]]:
    """Searches a second in the index and in the small one, in turn, after one round that warms up."""
    rates: tuple[list[float], list[float]] = [], []
    numbers = itertools.count()
    for round_number in range(rounds + 1):
        for index, found in zip((RUN, str(setup.small)), rates, strict=True):
            texts = [f"photo {next(numbers)} of a town" for _ in range(5_000)]
            sample = load(index, texts, CLIENTS, seconds if round_number else 0.5)
            if round_number:
                found.append(sample.rate)
    return rates


def _search(client: httpx.Client, query: Vector, **arguments: Any) -> dict[str, Any]:
    response = client.post("/v1/search", json={"embedding": query.tolist(), "index": RUN, **arguments})
    assert response.status_code == 200, response.text
    return dict(response.json())


def _rows(response: Mapping[str, Any]) -> list[int]:
    """The rows of the results."""
    return [int(Path(result["uri"]).stem) for result in response["results"]]


def _client(settings: Settings) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{settings.search.port}", timeout=120)


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1_000


def megabytes(pid: int | str, field: str) -> float:
    """A field of /proc/PID/status that is in kB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return round(int(value) * 1024 / 1e6)
