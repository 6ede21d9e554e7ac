"""Response time of the searcher, and its parts: the model, the store and the searcher itself."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from urllib.error import URLError
from urllib.request import urlopen

from bench import clients, ingest, models, vectors
from bench.clients import SearchLoad
from bench.results import Figure
from bench.worker import Worker
from imgsearch.settings import LogSettings, SearchSettings, Settings, StorageSettings, StoreSettings
from imgsearch.storage import Storage

TITLE = "Search"
METHOD = """\
Text searches (k = 10) against `python -m searcher serve` with an embedded Chroma and ViT-B-32 (random weights), over
HTTP from one process on the same cores, with one connection for each client. **Encode** and **store** are `took_ms` of
the answers, including the wait for the model and for a thread. **Ours** is the time at the client without these two:
HTTP, JSON, validation, the queue, and the client's own work. Uncached searches never repeat a text; cached searches
repeat five texts."""

CLIENTS = (1, 8, 32)
MODES = ("uncached", "cached")
REPEATED = ["a red bicycle", "a cat on a sofa", "a street at night", "snow on a mountain", "a cup of coffee"]
READY_SECONDS = 120.0

Samples = dict[tuple[int, str, int], list[SearchLoad]]
"""The loads of all rounds, by the number of vectors, the mode, and the number of clients."""


def measure(cache: Path, *, quick: bool) -> dict[str, list[Figure]]:
    sizes, seconds, rounds = ((1_000, 3_000), 1.5, 1) if quick else ((10_000, 100_000), 3.0, 3)
    model = models.random_weights("ViT-B-32", cache)
    port = free_port()
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        settings = Settings(
            storage=StorageSettings(f"{Path(scratch).as_uri()}/runs"),
            store=StoreSettings(f"chroma+{Path(scratch).as_uri()}/store"),
            search=SearchSettings(port=port),
            log=LogSettings(level="WARNING"),
        )
        for size in sizes:
            with Worker(publish, settings, model) as fill:
                fill(size)
        with serving(settings), Worker(clients.search_clients, port) as load:
            samples = _samples(load, sizes, seconds=seconds, rounds=rounds)
    figures = [figure for key, loads in samples.items() for figure in _row(*key, loads)]
    return {"": figures, "Side by side": [figure for size in sizes for figure in _ratios(size, samples)]}


def publish(settings: Settings, model: str) -> Callable[[int], None]:
    """Returns a function that fills and publishes an index of that many vectors. Their number is its name."""
    from imgsearch.encoder.openclip import load_encoder

    encoder = load_encoder(model)
    origin = vectors.Origin(model, encoder.fingerprint, encoder.preprocessing, encoder.dim)

    def run(size: int) -> None:
        vectors.write(Storage(settings.storage.uri), str(size), size, origin)
        ingest.ingest(settings.storage.uri, settings.store.url, str(size))

    return run


def _samples(load: Worker, sizes: tuple[int, ...], *, seconds: float, rounds: int) -> Samples:
    """Every combination in turn, `rounds` times, after one round that warms up."""
    samples: Samples = defaultdict(list)
    numbers = itertools.count()
    for round in range(rounds + 1):
        for size in sizes:
            for mode in MODES:
                for count in CLIENTS:
                    texts = (
                        [f"photo {next(numbers)} of a town" for _ in range(5_000)] if mode == "uncached" else REPEATED
                    )
                    sample = load(str(size), texts, count, seconds if round else 0.5)
                    if round:
                        samples[size, mode, count].append(sample)
    return samples


def _row(size: int, mode: str, count: int, loads: list[SearchLoad]) -> list[Figure]:
    case = f"{size:,} vectors, {mode}, {count} client{'s' if count > 1 else ''}"
    searches = [search for sample in loads for search in sample.searches]
    return [
        Figure.median(case, "searches/s", [sample.rate for sample in loads]),
        Figure(case, "p50 ms", median(search.total for search in searches)),
        Figure(case, "p95 ms", quantiles((search.total for search in searches), n=20)[-1]),
        Figure(case, "encode p50 ms", median(search.encode for search in searches)),
        Figure(case, "store p50 ms", median(search.store for search in searches)),
        Figure(case, "ours p50 ms", median(search.ours for search in searches), at_most=3 if count == 1 else None),
    ]


def _ratios(size: int, samples: Samples) -> list[Figure]:
    def rates(mode: str, count: int) -> list[float]:
        return [sample.rate for sample in samples[size, mode, count]]

    case = f"{size:,} vectors"
    return [
        Figure.median(
            case,
            "uncached, 8 clients ÷ 1",
            [many / one for many, one in zip(rates("uncached", 8), rates("uncached", 1), strict=True)],
            at_least=1.3,
        ),
        Figure.median(
            case,
            "8 clients, cached ÷ uncached",
            [cached / uncached for cached, uncached in zip(rates("cached", 8), rates("uncached", 8), strict=True)],
            at_least=10,
        ),
    ]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def serving(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """The searcher as a process, from ready to stopped."""
    process = subprocess.Popen(
        [sys.executable, "-m", "searcher", "serve"], env={**os.environ, **settings.to_env()}, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not answers(f"http://127.0.0.1:{settings.search.port}/readyz"):
            assert process.poll() is None, "the searcher exited"
            assert time.monotonic() < deadline, "the searcher is not ready in time"
            time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    """Whether a server answers with 200."""
    try:
        with urlopen(url) as response:
            return bool(response.status == 200)
    except (URLError, ConnectionError):
        return False
