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

from bench import load, models, photos, rivals, roboflow, search
from bench.contender import Contender
from bench.embed import busy
from bench.load import Crowd
from bench.results import Figure
from imgsearch import machine
from imgsearch.runs.layout import collection_name
from imgsearch.settings import LogSettings, SearchSettings, Settings, StorageSettings, StoreSettings
from imgsearch.stores import open_store

TITLE = "Many clients"
ABOUT = """\
Text searches that never repeat (k = 10) over 10,000 vectors. Each client sends its next search as soon as it has an
answer. All clients are in one process on the same cores. All servers have the same weights (ViT-B-32's are random), the
same vectors and their own embedded Chroma, and run in turn in each round. Percentiles are over all rounds.

- **One at a time** is a FastAPI app in the shape of the server of SkyPilot's image vector-database example: it encodes
  and queries Chroma on the event loop. **Chroma's function** is an app that queries Chroma with chromadb's
  `OpenCLIPEmbeddingFunction`, in FastAPI's threads. **Roboflow Inference** is in the tables if it is installed and
  answers without its hub. It is its own server with our weights as ONNX in its cache. Its `/clip/embed_text` returns
  the vector only, so it has less work: no store.
- **Of what the cores allow**: cores ÷ CPU-seconds of a text in a call of 32 (`Encoder.encode_texts`), a query of the
  store for one vector, and a request for `/healthz`, each measured alone in the same run. The CPU time of the clients
  and of other processes is subtracted from the cores.
- **Mixed** searches are texts, half of them known, and every eighth search is an image of 500×375."""

COUNT = 10_000
CLIENTS = (1, 8, 32, 128)
CROWD = 32
"""The clients that the targets are for."""
OURS = "ours"
READY_SECONDS = 180.0


@dataclass(frozen=True)
class Server:
    """One that runs."""

    port: int
    pid: int
    crowds: Contender
    body: Callable[[str], dict[str, Any]]
    """The JSON that asks for a text."""


@dataclass(frozen=True)
class Sample:
    """One round of one server with one crowd."""

    crowd: Crowd
    cores: float
    """The cores that neither the clients nor other processes used."""


Samples = dict[tuple[str, int], list[Sample]]
"""By server and clients."""


def measure(cache: Path, *, quick: bool) -> dict[str, list[Figure]]:
    tables: dict[str, list[Figure]] = {}
    for name in ("ViT-B-32", "demo"):
        tables |= _model(name, cache, rounds=1 if quick else 3, seconds=1.5 if quick else 4.0)
    return tables


def _model(name: str, cache: Path, *, rounds: int, seconds: float) -> dict[str, list[Figure]]:
    model = models.DEMO if name == "demo" else models.random_weights(name, cache)
    with tempfile.TemporaryDirectory(dir=cache) as scratch, ExitStack() as stack:
        place = Path(scratch)
        settings = Settings(
            storage=StorageSettings(f"{place.as_uri()}/runs"),
            store=StoreSettings(f"chroma+{place.as_uri()}/store"),
            search=SearchSettings(port=search.free_port()),
            log=LogSettings(level="WARNING"),
        )
        with Contender(search.publish, settings, model) as fill:
            fill(COUNT)
        shutil.copytree(place / "store", place / "alone")
        with Contender(costs, f"chroma+{place.as_uri()}/alone", model) as alone:
            encode, query = alone()
        servers = {OURS: _ours(settings, stack)}
        for kind in rivals.KINDS:
            servers[kind] = _rival(kind, model, place, stack)
        if name == "ViT-B-32" and roboflow.PYTHON.exists():
            servers["Roboflow Inference"] = _roboflow(model, name, cache, stack)
        empty = _empty(servers[OURS], seconds)
        samples = _samples(servers, rounds=rounds, seconds=seconds)
        images, mixed = (_others(servers[OURS], kind, cache, seconds) for kind in ("images", "mixed"))
    allowed = encode + query + empty
    rows = [figure for (server, crowd), some in samples.items() for figure in _row(server, crowd, some)]
    rows += [*_row("ours, images", CROWD, [images]), *_row("ours, mixed", CROWD, [mixed])]
    parts = {"a text in a batch": encode, "a query of the store": query, "an empty request": empty}
    return {
        name: rows,
        f"{name}, side by side": _ratios(name, samples, [images, mixed], allowed),
        f"{name}, CPU-milliseconds alone": [Figure(name, what, round(1000 * cpu, 3)) for what, cpu in parts.items()],
    }


def costs(store: str, model: str) -> Callable[[], tuple[float, float]]:
    """CPU-seconds of a text in a call of 32, and of a query of the store."""
    import numpy as np

    from imgsearch.encoder.openclip import load_encoder

    encoder = load_encoder(model)
    opened = open_store(store)
    collection = collection_name(str(COUNT), str(COUNT))

    def run() -> tuple[float, float]:
        texts = [[f"lake {call} {number} by a wood" for number in range(32)] for call in range(5)]
        vectors = encoder.encode_texts(texts[0])
        start = time.process_time()
        for batch in texts[1:]:
            encoder.encode_texts(batch)
        encode = (time.process_time() - start) / sum(map(len, texts[1:]))
        rows = np.tile(vectors, (5, 1))
        opened.search(collection, rows[:1], k=11)
        start = time.process_time()
        for row in rows:
            opened.search(collection, row[None], k=11)
        return encode, (time.process_time() - start) / len(rows)

    return run


def _ours(settings: Settings, stack: ExitStack) -> Server:
    process = stack.enter_context(search.serving(settings))
    crowds = stack.enter_context(Contender(load.crowds, "/v1/search"))
    return Server(settings.search.port, process.pid, crowds, lambda text: {"text": text, "k": 10})


def _rival(kind: str, model: str, place: Path, stack: ExitStack) -> Server:
    folder = shutil.copytree(place / "store", place / kind)
    port = search.free_port()
    words = [kind, model, str(folder), collection_name(str(COUNT), str(COUNT)), str(port)]
    process = stack.enter_context(_running([sys.executable, "-m", "bench.rivals", *words], roboflow.ROOT, {}))
    _until_it_answers(port, "/search", {"text": "a lake"})
    crowds = stack.enter_context(Contender(load.crowds, "/search"))
    return Server(port, process.pid, crowds, lambda text: {"text": text, "k": 10})


def _roboflow(model: str, name: str, cache: Path, stack: ExitStack) -> Server:
    roboflow.write_weights(model, name, cache / "roboflow")
    port = search.free_port()
    place = cache / "roboflow"
    process = stack.enter_context(_running(roboflow.command(port), place, roboflow.environment(place)))
    _until_it_answers(port, "/clip/embed_text", {"text": "a lake", "clip_version_id": name})
    crowds = stack.enter_context(Contender(load.crowds, "/clip/embed_text"))
    return Server(port, process.pid, crowds, lambda text: {"text": text, "clip_version_id": name})


@contextmanager
def _running(command: list[str], place: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, cwd=place, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _until_it_answers(port: int, path: str, body: dict[str, Any]) -> None:
    request = Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    until = time.monotonic() + READY_SECONDS
    while True:
        try:
            urlopen(request).close()
            return
        except HTTPError:
            raise
        except (URLError, ConnectionError):
            assert time.monotonic() < until, f"the server on port {port} did not answer"
            time.sleep(0.2)


_numbers = itertools.count()


def _texts(server: Server, number: int) -> list[bytes]:
    return [json.dumps(server.body(f"photo {next(_numbers)} of a town")).encode() for _ in range(number)]


def _samples(servers: dict[str, Server], *, rounds: int, seconds: float) -> Samples:
    """Every combination in turn, so many times, after one to warm up."""
    samples: Samples = {}
    for number in range(rounds + 1):
        for crowd in CLIENTS:
            for name, server in servers.items():
                sample = _sample(server, _texts(server, 10_000), crowd, seconds if number else 0.5, name == OURS)
                if number:
                    samples.setdefault((name, crowd), []).append(sample)
    return samples


def _others(server: Server, kind: str, cache: Path, seconds: float) -> Sample:
    """Searches that are not all of texts."""
    files = sorted(photos.folder(cache / "photos", 50, photos.SMALL).iterdir())
    images = [json.dumps({"image": base64.b64encode(file.read_bytes()).decode()}).encode() for file in files]
    if kind == "images":
        return _sample(server, images, CROWD, seconds, True)
    known, new = _texts(server, 1) * 2_000, _texts(server, 2_000)
    bodies = [body for pair in zip(known, new, strict=True) for body in pair]
    bodies[::8] = itertools.islice(itertools.cycle(images), len(bodies[::8]))
    return _sample(server, bodies, CROWD, seconds, True)


def _sample(server: Server, bodies: list[bytes], count: int, seconds: float, health: bool) -> Sample:
    cpu, machines, start = _cpu(server.pid), busy(), time.perf_counter()
    crowd: Crowd = server.crowds(server.port, bodies, count, seconds, health)
    took = time.perf_counter() - start
    strangers = (busy() - machines) - (_cpu(server.pid) - cpu)
    return Sample(crowd, machine.cpus() - strangers / took)


def _empty(server: Server, seconds: float) -> float:
    """CPU-seconds of the server for a request that does nothing."""
    with Contender(load.looks) as looks:
        cpu = _cpu(server.pid)
        answered = looks(server.port, 8, seconds)
    return (_cpu(server.pid) - cpu) / int(answered)


def _cpu(pid: int) -> float:
    """CPU-seconds of a process: fields 14 and 15 of Linux's /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _row(server: str, crowd: int, samples: Sequence[Sample]) -> list[Figure]:
    case = f"{server}, {crowd} client{'s' if crowd > 1 else ''}"
    walls = [wall for sample in samples for wall in sample.crowd.walls]
    health = [wall for sample in samples for wall in sample.crowd.health]
    figures = [
        Figure.median(case, "searches/s", [sample.crowd.rate for sample in samples]),
        *(Figure(case, f"p{percent} ms", round(_percentile(walls, percent), 1)) for percent in (50, 95, 99)),
        Figure(case, "429", sum(sample.crowd.refused for sample in samples)),
        Figure(case, "errors", sum(sample.crowd.failed for sample in samples)),
    ]
    return [*figures, Figure(case, "/healthz p99 ms", round(_percentile(health, 99), 1))] if health else figures


def _ratios(name: str, samples: Samples, more: Sequence[Sample], allowed: float) -> list[Figure]:
    ours = samples[OURS, CROWD]
    others = [server for server, crowd in samples if crowd == CROWD and server != OURS]
    case = f"{name}, {CROWD} clients"
    health = [wall for sample in ours for wall in sample.crowd.health]
    failed = [sample for (server, _), some in samples.items() if server == OURS for sample in some] + list(more)
    return [
        Figure.median(
            case,
            "÷ what the cores allow",
            [sample.crowd.rate * allowed / sample.cores for sample in ours],
            at_least=0.85,
        ),
        *(
            Figure.median(
                case,
                f"÷ {other}",
                [a.crowd.rate / b.crowd.rate for a, b in zip(ours, samples[other, CROWD], strict=True)],
                at_least=1,
            )
            for other in others
        ),
        Figure.median(
            case,
            "p95 ÷ one at a time's",
            [_p95(a) / _p95(b) for a, b in zip(ours, samples["one at a time", CROWD], strict=True)],
            at_most=0.6,
        ),
        Figure(case, "/healthz p99 ms", round(_percentile(health, 99), 1), at_most=50),
        Figure(case, "errors but 429, any crowd", sum(sample.crowd.failed for sample in failed), at_most=0),
    ]


def _p95(sample: Sample) -> float:
    return _percentile(sample.crowd.walls, 95)


def _percentile(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]
