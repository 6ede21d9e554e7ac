"""Speed of the searcher with many clients, compared with the limit of the cores and with other servers."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from bench import clients, models, other_servers, photos, roboflow, search
from bench.clients import RequestLoad
from bench.embed import busy
from bench.results import Figure
from bench.worker import Worker
from imgsearch import machine
from imgsearch.runs.layout import collection_name
from imgsearch.settings import LogSettings, SearchSettings, Settings, StorageSettings, StoreSettings
from imgsearch.stores import open_store

TITLE = "Many clients"
METHOD = """\
Text searches that never repeat (k = 10) over 10,000 vectors. Each client sends its next search as soon as it has an
answer. All clients are in one process on the same cores. All servers have the same weights (ViT-B-32's are random), the
same vectors and their own embedded Chroma, and run in turn in each round. Percentiles are over all rounds.

- **One at a time** is a FastAPI app in the shape of the server of SkyPilot's image vector-database example: it encodes
  and queries Chroma on the event loop. **Chroma's function** is an app that queries Chroma with chromadb's
  `OpenCLIPEmbeddingFunction`, in FastAPI's threads. **Roboflow Inference** is in the tables if it is installed and
  answers without its hub. It is its own server with our weights as ONNX in its cache. Its `/clip/embed_text` returns
  the vector only, so it has less work: no store.
- **Limit of the cores**: cores ÷ CPU-seconds of a text in a call of 32 (`Encoder.encode_texts`), a query of the
  store for one vector, and a request for `/healthz`, each measured alone in the same run. The CPU time of the clients
  and of other processes is subtracted from the cores.
- **Mixed** searches are texts, half of them known, and every eighth search is an image of 500×375."""

COUNT = 10_000
CLIENTS = (1, 8, 32, 128)
TARGET_CLIENTS = 32
"""The number of clients that has targets."""
OURS = "ours"
READY_SECONDS = 180.0


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    pid: int
    load: Worker
    body: Callable[[str], dict[str, Any]]
    """The JSON of a search for a text."""


@dataclass(frozen=True)
class Sample:
    """One round of one server with one number of clients."""

    load: RequestLoad
    cores: float
    """The cores that neither the clients nor other processes used."""


Samples = dict[tuple[str, int], list[Sample]]
"""The rounds, by server and number of clients."""


def measure(cache: Path, *, quick: bool) -> dict[str, list[Figure]]:
    tables: dict[str, list[Figure]] = {}
    for name in ("ViT-B-32", "demo"):
        tables |= _model(name, cache, round_count=1 if quick else 3, seconds=1.5 if quick else 4.0)
    return tables


def _model(name: str, cache: Path, *, round_count: int, seconds: float) -> dict[str, list[Figure]]:
    model = models.DEMO if name == "demo" else models.random_weights(name, cache)
    with tempfile.TemporaryDirectory(dir=cache) as scratch, ExitStack() as stack:
        folder = Path(scratch)
        settings = Settings(
            storage=StorageSettings(f"{folder.as_uri()}/runs"),
            store=StoreSettings(f"chroma+{folder.as_uri()}/store"),
            search=SearchSettings(port=search.free_port()),
            log=LogSettings(level="WARNING"),
        )
        with Worker(search.publish, settings, model) as fill:
            fill(COUNT)
        shutil.copytree(folder / "store", folder / "alone")
        with Worker(costs, f"chroma+{folder.as_uri()}/alone", model) as alone:
            encode, query = alone()
        servers = {OURS: _ours(settings, stack)}
        for kind in other_servers.KINDS:
            servers[kind] = _other_server(kind, model, folder, stack)
        if name == "ViT-B-32" and roboflow.PYTHON.exists():
            servers["Roboflow Inference"] = _roboflow(model, name, cache, stack)
        idle = _empty(servers[OURS], seconds)
        samples = _samples(servers, round_count=round_count, seconds=seconds)
        images, mixed = (_other_searches(servers[OURS], kind, cache, seconds) for kind in ("images", "mixed"))
    allowed = encode + query + idle
    rows = [figure for (server, count), rounds in samples.items() for figure in _row(server, count, rounds)]
    rows += [*_row("ours, images", TARGET_CLIENTS, [images]), *_row("ours, mixed", TARGET_CLIENTS, [mixed])]
    parts = {"a text in a batch": encode, "a query of the store": query, "an empty request": idle}
    return {
        name: rows,
        f"{name}, side by side": _ratios(name, samples, [images, mixed], allowed),
        f"{name}, CPU-milliseconds alone": [Figure(name, part, round(1000 * cpu, 3)) for part, cpu in parts.items()],
    }


def costs(url: str, model: str) -> Callable[[], tuple[float, float]]:
    """Returns a function that measures the CPU-seconds of a text in a call of 32, and of a query of the store."""
    import numpy as np

    from imgsearch.encoder.openclip import load_encoder

    encoder = load_encoder(model)
    store = open_store(url)
    collection = collection_name(str(COUNT), str(COUNT))

    def run() -> tuple[float, float]:
        texts = [[f"lake {call} {number} by a wood" for number in range(32)] for call in range(5)]
        vectors = encoder.encode_texts(texts[0])
        start = time.process_time()
        for batch in texts[1:]:
            encoder.encode_texts(batch)
        encode = (time.process_time() - start) / sum(map(len, texts[1:]))
        rows = np.tile(vectors, (5, 1))
        store.search(collection, rows[:1], k=11)
        start = time.process_time()
        for row in rows:
            store.search(collection, row[None], k=11)
        return encode, (time.process_time() - start) / len(rows)

    return run


def _ours(settings: Settings, stack: ExitStack) -> Server:
    process = stack.enter_context(search.serving(settings))
    load = stack.enter_context(Worker(clients.request_clients, "/v1/search"))
    return Server(settings.search.port, process.pid, load, lambda text: {"text": text, "k": 10})


def _other_server(kind: str, model: str, folder: Path, stack: ExitStack) -> Server:
    store = shutil.copytree(folder / "store", folder / kind)
    port = search.free_port()
    arguments = [kind, model, str(store), collection_name(str(COUNT), str(COUNT)), str(port)]
    process = stack.enter_context(
        _running([sys.executable, "-m", "bench.other_servers", *arguments], roboflow.ROOT, {})
    )
    _wait_until_ready(port, "/search", {"text": "a lake"})
    load = stack.enter_context(Worker(clients.request_clients, "/search"))
    return Server(port, process.pid, load, lambda text: {"text": text, "k": 10})


def _roboflow(model: str, name: str, cache: Path, stack: ExitStack) -> Server:
    roboflow.write_weights(model, name, cache / "roboflow")
    port = search.free_port()
    folder = cache / "roboflow"
    process = stack.enter_context(_running(roboflow.command(port), folder, roboflow.environment(folder)))
    _wait_until_ready(port, "/clip/embed_text", {"text": "a lake", "clip_version_id": name})
    load = stack.enter_context(Worker(clients.request_clients, "/clip/embed_text"))
    return Server(port, process.pid, load, lambda text: {"text": text, "clip_version_id": name})


@contextmanager
def _running(command: list[str], folder: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(port: int, path: str, body: dict[str, Any]) -> None:
    request = Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            urlopen(request).close()
            return
        except HTTPError:
            raise
        except (URLError, ConnectionError):
            assert time.monotonic() < deadline, f"the server on port {port} did not answer"
            time.sleep(0.2)


_numbers = itertools.count()


def _texts(server: Server, count: int) -> list[bytes]:
    return [json.dumps(server.body(f"photo {next(_numbers)} of a town")).encode() for _ in range(count)]


def _samples(servers: dict[str, Server], *, round_count: int, seconds: float) -> Samples:
    """Every combination in turn, `round_count` times, after one round that warms up."""
    samples: Samples = {}
    for round in range(round_count + 1):
        for count in CLIENTS:
            for name, server in servers.items():
                sample = _sample(server, _texts(server, 10_000), count, seconds if round else 0.5, name == OURS)
                if round:
                    samples.setdefault((name, count), []).append(sample)
    return samples


def _other_searches(server: Server, kind: str, cache: Path, seconds: float) -> Sample:
    """A load of images, or of texts and images."""
    files = sorted(photos.folder(cache / "photos", 50, photos.SMALL).iterdir())
    images = [json.dumps({"image": base64.b64encode(file.read_bytes()).decode()}).encode() for file in files]
    if kind == "images":
        return _sample(server, images, TARGET_CLIENTS, seconds, True)
    cached, uncached = _texts(server, 1) * 2_000, _texts(server, 2_000)
    bodies = [body for pair in zip(cached, uncached, strict=True) for body in pair]
    bodies[::8] = itertools.islice(itertools.cycle(images), len(bodies[::8]))
    return _sample(server, bodies, TARGET_CLIENTS, seconds, True)


def _sample(server: Server, bodies: list[bytes], count: int, seconds: float, health: bool) -> Sample:
    server_before, all_before, start = _cpu(server.pid), busy(), time.perf_counter()
    load: RequestLoad = server.load(server.port, bodies, count, seconds, health)
    duration = time.perf_counter() - start
    other_cpu = (busy() - all_before) - (_cpu(server.pid) - server_before)
    return Sample(load, machine.cpus() - other_cpu / duration)


def _empty(server: Server, seconds: float) -> float:
    """CPU-seconds of the server for a request that does nothing."""
    with Worker(clients.health_clients) as load:
        cpu = _cpu(server.pid)
        responses = load(server.port, 8, seconds)
    return (_cpu(server.pid) - cpu) / int(responses)


def _cpu(pid: int) -> float:
    """CPU-seconds of a process: fields 14 and 15 of Linux's /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _row(server: str, count: int, samples: Sequence[Sample]) -> list[Figure]:
    case = f"{server}, {count} client{'s' if count > 1 else ''}"
    milliseconds = [value for sample in samples for value in sample.load.milliseconds]
    health = [value for sample in samples for value in sample.load.health_milliseconds]
    figures = [
        Figure.median(case, "searches/s", [sample.load.rate for sample in samples]),
        *(Figure(case, f"p{percent} ms", round(_percentile(milliseconds, percent), 1)) for percent in (50, 95, 99)),
        Figure(case, "429", sum(sample.load.refused for sample in samples)),
        Figure(case, "errors", sum(sample.load.failed for sample in samples)),
    ]
    return [*figures, Figure(case, "/healthz p99 ms", round(_percentile(health, 99), 1))] if health else figures


def _ratios(name: str, samples: Samples, other_loads: Sequence[Sample], allowed: float) -> list[Figure]:
    ours = samples[OURS, TARGET_CLIENTS]
    others = [server for server, count in samples if count == TARGET_CLIENTS and server != OURS]
    case = f"{name}, {TARGET_CLIENTS} clients"
    health = [value for sample in ours for value in sample.load.health_milliseconds]
    all_ours = [sample for (server, _), rounds in samples.items() if server == OURS for sample in rounds] + list(
        other_loads
    )
    return [
        Figure.median(
            case,
            "÷ limit of the cores",
            [sample.load.rate * allowed / sample.cores for sample in ours],
            at_least=0.85,
        ),
        *(
            Figure.median(
                case,
                f"÷ {other}",
                [a.load.rate / b.load.rate for a, b in zip(ours, samples[other, TARGET_CLIENTS], strict=True)],
                at_least=1,
            )
            for other in others
        ),
        Figure.median(
            case,
            "p95 ÷ one at a time's",
            [_p95(a) / _p95(b) for a, b in zip(ours, samples["one at a time", TARGET_CLIENTS], strict=True)],
            at_most=0.6,
        ),
        Figure(case, "/healthz p99 ms", round(_percentile(health, 99), 1), at_most=50),
        Figure(
            case, "errors except 429, any number of clients", sum(sample.load.failed for sample in all_ours), at_most=0
        ),
    ]


def _p95(sample: Sample) -> float:
    return _percentile(sample.load.milliseconds, 95)


def _percentile(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]
