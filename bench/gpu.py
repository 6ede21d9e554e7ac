"""Speed of the embedder on a GPU, compared with the bare model on data in the GPU's memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import embed, models, photos
from bench.results import Figure
from bench.worker import Worker

TITLE = "Embedding on a GPU"
METHOD = """\
Images per second of `ShardEmbedder` from files of 500×375 to Parquet and thumbnails on one GPU. It is compared with
OpenCLIP's bare model in bfloat16 on batches of 256 in the GPU's memory, and with the speed at which the cores decode.
Weights are random. Measured only if torch finds a GPU."""

IMAGES = {"ViT-B-32": 20_000, "ViT-L-14": 8_000, "ViT-bigG-14": 2_000}
DISTINCT = 500
BATCH = 256


def measure(cache: Path, *, quick: bool) -> dict[str, list[Figure]]:
    import torch

    if not torch.cuda.is_available():
        return {}
    rounds = 1 if quick else 3
    return {
        torch.cuda.get_device_name(): [
            figure
            for architecture, images in IMAGES.items()
            for figure in _row(cache, architecture, images // 10 if quick else images, rounds)
        ]
    }


def _row(cache: Path, architecture: str, images: int, rounds: int) -> list[Figure]:
    folder = photos.folder(cache / "photos", images, photos.SMALL, distinct=DISTINCT)
    files = sorted(folder.iterdir())[:DISTINCT]
    model = models.random_weights(architecture, cache)
    with (
        tempfile.TemporaryDirectory(dir=cache) as scratch,
        Worker(embed.ours, model) as product,
        Worker(embed.stages, models.DEMO) as alone,
        Worker(bare, architecture, "cuda") as bare_model,
    ):
        product(str(folder), images, Path(scratch))  # warms up
        ours, model_rates, decoded = [], [], []
        for _ in range(rounds):
            run: embed.Run = product(str(folder), images, Path(scratch))
            ours.append(images / run.seconds)
            model_rates.append(bare_model())
            decoded.append(run.cores / alone(files).decode)
    limits = [min(pair) for pair in zip(model_rates, decoded, strict=True)]
    return [
        Figure.median(architecture, "images/s", ours),
        Figure.median(architecture, "bare model, images/s", model_rates),
        Figure.median(architecture, "÷ the bare model", [a / b for a, b in zip(ours, model_rates, strict=True)]),
        Figure.median(architecture, "the cores decode, images/s", decoded),
        Figure.median(architecture, "÷ the slower of both", [a / b for a, b in zip(ours, limits, strict=True)]),
    ]


def bare(architecture: str, device: str, *, batch: int = BATCH, seconds: float = 5.0) -> Callable[[], float]:
    """Returns a function that measures the images per second of OpenCLIP's model alone."""
    import open_clip
    import torch

    network = open_clip.create_model(architecture, precision="bf16", device=device).eval()
    pixels = torch.randn(batch, 3, 224, 224, device=device, dtype=torch.bfloat16)

    @torch.inference_mode()
    def run() -> float:
        network.encode_image(pixels).sum().item()  # `item` waits for the device
        start, batches = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            for _ in range(4):
                features = network.encode_image(pixels)
            features.sum().item()
            batches += 4
        return batches * batch / (time.perf_counter() - start)

    return run
