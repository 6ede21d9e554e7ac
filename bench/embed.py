"""Speed of the embedder, compared with the limit of the cores and with other programs."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from bench import models, photos, simple_loop
from bench.results import Figure
from bench.worker import Worker
from imgsearch import machine

TITLE = "Embedding"
METHOD = """\
Images per second of `ShardEmbedder` on a planned shard, from files on a disk to Parquet and thumbnails, without the
time to load the model.

- **Limit of the cores**: cores ÷ CPU-seconds of an image, decoded (`pictures.decode` and `Encoder.prepare`) and
  encoded (`Encoder.encode_images`). Each is measured alone in the same round, with a thread on every core. The CPU
  time of other processes (the last column below, counted by Linux) is subtracted from the cores. The rest is the cost
  of reading, thumbnails, queues and writing. The second ratio counts a thumbnail as necessary work.
- **The simple loop** has the shape of SkyPilot's image vector-database example: whole images, OpenCLIP's own transform,
  batches of 50 in torch's defaults, each image as a JPEG again, pickles in Parquet, all in one thread.
- **Chroma's function** is chromadb's `OpenCLIPEmbeddingFunction` on arrays that Pillow decoded. It makes no thumbnails
  and writes nothing.

All load the same folder of weights in a process of their own, and run in turn. ViT-B-32 has random weights. Photos are
synthetic, with 0.15 to 0.35 bytes a pixel."""

SPEED = "images/s"


@dataclass(frozen=True)
class Case:
    """One model and one size of photos."""

    model: str
    size: tuple[int, int]
    ours: int
    """Photos of a round for the embedder."""
    others: int
    """Photos of a round for the other programs."""
    at_least_loop: float | None = None

    @property
    def name(self) -> str:
        return f"{self.model}, {self.size[0]}×{self.size[1]}"


CASES = (
    Case("demo", photos.SMALL, ours=600, others=150),
    Case("demo", photos.LARGE, ours=400, others=50, at_least_loop=3),
    Case("ViT-B-32", photos.SMALL, ours=400, others=100, at_least_loop=1.15),
    Case("ViT-B-32", photos.LARGE, ours=300, others=50),
)
DISTINCT = {photos.SMALL: 150, photos.LARGE: 50}


@dataclass(frozen=True)
class Alone:
    """CPU-seconds of one image, by stage."""

    decode: float
    model: float
    thumbnail: float


@dataclass(frozen=True)
class Run:
    """The embedding of one shard."""

    seconds: float
    cpu: float
    """CPU-seconds of its process."""
    busy: float
    """CPU-seconds of the machine meanwhile."""
    load_seconds: float
    cores: int


def measure(cache: Path, *, quick: bool) -> dict[str, list[Figure]]:
    rates: list[Figure] = []
    costs: list[Figure] = []
    for name in dict.fromkeys(case.model for case in CASES):
        model = models.DEMO if name == "demo" else models.random_weights(name, cache)
        with tempfile.TemporaryDirectory(dir=cache) as scratch, ExitStack() as stack:
            product, alone, loop, function = (
                stack.enter_context(Worker(program, model))
                for program in (ours, stages, simple_loop.loop, chroma_function)
            )
            for case in (case for case in CASES if case.model == name):
                rounds = [
                    _round(case, cache / "photos", Path(scratch), product, alone, loop, function, share=share)
                    for share in ([0.1, 0.2] if quick else [0.1, 1, 1, 1])
                ][1:]  # the first one warms up
                rates += _rates(case, rounds)
                costs += _costs(case, rounds)
    return {"": rates, "CPU-milliseconds of an image": costs}


@dataclass(frozen=True)
class Round:
    """Images per second of each program, and the cost of each stage alone."""

    cores: int
    ours: float
    ours_cpu: float
    others_share: float
    """The share of the cores that other processes used meanwhile."""
    load_seconds: float
    loop: float
    function: float
    alone: Alone

    def allowed(self, *, thumbnails: bool) -> float:
        seconds = self.alone.decode + self.alone.model + (self.alone.thumbnail if thumbnails else 0)
        return self.cores * (1 - self.others_share) / seconds


def _round(
    case: Case,
    pool: Path,
    scratch: Path,
    product: Worker,
    alone: Worker,
    loop: Worker,
    function: Worker,
    *,
    share: float,
) -> Round:
    ours, others = (max(16, round(images * share)) for images in (case.ours, case.others))
    folder = photos.folder(pool, ours, case.size, distinct=min(ours, DISTINCT[case.size]))
    files = sorted(folder.iterdir())[:others]
    run: Run = product(str(folder), ours, scratch)
    return Round(
        cores=run.cores,
        ours=ours / run.seconds,
        ours_cpu=run.cpu / ours,
        others_share=(run.busy - run.cpu) / run.seconds / run.cores,
        load_seconds=run.load_seconds,
        loop=len(files) / loop(files, scratch),
        function=len(files) / function(files),
        alone=alone(files),
    )


def _rates(case: Case, rounds: Sequence[Round]) -> list[Figure]:
    def figure(column: str, value: Callable[[Round], float], at_least: float | None = None) -> Figure:
        return Figure.median(case.name, column, [value(sample) for sample in rounds], at_least=at_least)

    return [
        figure(SPEED, lambda sample: sample.ours),
        figure("÷ limit of the cores", lambda sample: sample.ours / sample.allowed(thumbnails=False), 0.9),
        figure("the same, thumbnails counted in", lambda sample: sample.ours / sample.allowed(thumbnails=True)),
        figure("÷ the simple loop", lambda sample: sample.ours / sample.loop, case.at_least_loop),
        figure("÷ Chroma's function", lambda sample: sample.ours / sample.function),
        Figure(case.name, "s to load the model", round(median(sample.load_seconds for sample in rounds), 2)),
    ]


def _costs(case: Case, rounds: Sequence[Round]) -> list[Figure]:
    def figure(column: str, value: Callable[[Round], float]) -> Figure:
        return Figure.median(case.name, column, [1000 * value(sample) for sample in rounds])

    return [
        figure("decode", lambda sample: sample.alone.decode),
        figure("model", lambda sample: sample.alone.model),
        figure("thumbnail", lambda sample: sample.alone.thumbnail),
        figure("the whole embedder", lambda sample: sample.ours_cpu),
        Figure.median(case.name, "% of the cores that others took", [100 * sample.others_share for sample in rounds]),
    ]


def ours(model: str) -> Callable[[str, int, Path], Run]:
    """Returns a function that embeds a folder of images as one shard."""
    machine.tune_for_throughput()  # before torch is imported, as `python -m embedder embed` does
    from embedder.metrics import EmbedMetrics
    from embedder.plan import plan
    from embedder.shard import ShardEmbedder
    from imgsearch.encoder.openclip import load_encoder
    from imgsearch.settings import RunSettings, Settings, StorageSettings
    from imgsearch.sources import open_source
    from imgsearch.storage import Storage

    start = time.perf_counter()
    encoder = load_encoder(model, threads=1)
    load_seconds = time.perf_counter() - start

    def run(folder: str, images: int, scratch: Path) -> Run:
        home = scratch / "ours"
        settings = Settings(
            run=RunSettings("bench", "bench", folder, model, shard_images=images),
            storage=StorageSettings(home.as_uri()),
        )
        storage = Storage(settings.storage.uri)
        source = open_source(folder)
        embedder = ShardEmbedder(
            plan=plan(settings, storage, source),
            settings=settings.embed,
            storage=storage,
            source=source,
            load_encoder=lambda: encoder,
            metrics=EmbedMetrics(),
            stopping=threading.Event(),
        )
        start, cpu_before, busy_before = time.perf_counter(), time.process_time(), busy()
        done = embedder.embed(0)
        seconds = time.perf_counter() - start
        cpu, busy_cpu = time.process_time() - cpu_before, busy() - busy_before
        assert done.images == images
        shutil.rmtree(home)
        return Run(seconds, cpu, busy_cpu, load_seconds, machine.cpus())

    return run


def stages(model: str) -> Callable[[Sequence[Path]], Alone]:
    """Returns a function that runs each stage alone, with a thread on each core."""
    machine.tune_for_throughput()
    from imgsearch import pictures
    from imgsearch.encoder.openclip import load_encoder
    from imgsearch.settings import EmbedSettings

    encoder = load_encoder(model, threads=1)
    settings = EmbedSettings()

    def run(files: Sequence[Path]) -> Alone:
        data = [file.read_bytes() for file in files]

        def decode(item: bytes) -> Any:
            picture = pictures.decode(item, max_pixels=settings.max_pixels, target=encoder.size).image
            return picture, encoder.prepare(picture)

        with ThreadPoolExecutor(machine.cpus()) as pool:
            decoded, decoding = _timed(pool, decode, data)
            _, shrinking = _timed(pool, lambda item: pictures.thumbnail(item[0], settings.thumbnail_px), decoded)
            pixels = iter([item[1] for item in decoded])
            batches = list(iter(lambda: list(islice(pixels, encoder.batch)), []))
            _, encoding = _timed(pool, encoder.encode_images, batches)
        return Alone(decoding / len(data), encoding / len(data), shrinking / len(data))

    return run


def chroma_function(model: str) -> Callable[[Sequence[Path]], float]:
    """Returns a function that embeds files with Chroma's embedding function, and returns its seconds."""
    import numpy as np
    from chromadb.utils.embedding_functions import OpenCLIPEmbeddingFunction
    from PIL import Image

    function = OpenCLIPEmbeddingFunction(model, None)  # the folder contains the weights
    function._model.eval()  # otherwise batch normalisation would learn from each image

    def run(files: Sequence[Path]) -> float:
        start = time.perf_counter()
        for file in files:
            function([np.asarray(Image.open(file).convert("RGB"))])
        return time.perf_counter() - start

    return run


def _timed(pool: ThreadPoolExecutor, work: Callable[[Any], Any], values: Sequence[Any]) -> tuple[list[Any], float]:
    """The results of the work, and the CPU-seconds of the threads."""

    def timed(value: Any) -> tuple[Any, float]:
        start = time.thread_time()
        return work(value), time.thread_time() - start

    results = list(pool.map(timed, values))
    return [value for value, _ in results], sum(seconds for _, seconds in results)


def busy() -> float:
    """CPU-seconds that the machine has worked: user, nice, system, irq, softirq and steal of Linux's /proc/stat."""
    ticks = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(int(ticks[column]) for column in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK")
