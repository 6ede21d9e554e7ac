"""Speed and memory of OpenCLIP's architectures on a CPU, each compared with ViT-B-32."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

from bench.results import Figure
from bench.worker import Function, Worker

TITLE = "Models"
METHOD = """\
Images per second of `Encoder.encode_images` on all cores, as a multiple of ViT-B-32's, and the maximum memory of the
process, which loads both towers of the network in float32. The weights are random: speed and memory do not depend on
training. Photos are decoded and scaled before the clock starts. Each architecture has a process of its own, and takes
turns with ViT-B-32. [Choose a model](models.md) has these figures beside the scores of the models."""

BASE = "ViT-B-32"
ARCHITECTURES = (
    "ViT-B-16",
    "ViT-L-14",
    "MobileCLIP2-S0",
    "MobileCLIP2-S2",
    "MobileCLIP2-S4",
    "PE-Core-S-16-384",
    "PE-Core-B-16",
    "PE-Core-L-14-336",
    "ViT-B-32-SigLIP2-256",
    "ViT-B-16-SigLIP2-256",
    "ViT-L-16-SigLIP2-256",
    "ViT-SO400M-16-SigLIP2-256",
)
"""Those of docs/models.md."""
SPEED, MEMORY = "speed", "memory, GB"
SECONDS = 2.0
"""The least time of a round of one architecture."""


def measure(cache: Path, *, quick: bool) -> dict[str, list[Figure]]:
    figures = []
    with Worker(encode, BASE) as base:
        for architecture in (BASE, *ARCHITECTURES):
            ratios = []
            with Worker(encode, architecture) as ours:
                for _ in range(1 if quick else 3):
                    base_speed, _ = base()
                    speed, memory = ours()
                    ratios.append(speed / base_speed)
            figures += [
                Figure.median(architecture, SPEED, ratios),
                Figure(architecture, MEMORY, float(f"{memory:.2g}")),
            ]
    return {"": figures}


def encode(architecture: str) -> Function:
    """Returns a function that encodes photos, and returns images per second and the maximum memory in GB until then."""
    import numpy as np
    import open_clip
    import torch
    from PIL import Image

    from imgsearch import machine
    from imgsearch.encoder.openclip import on_device

    network, _, preprocess = open_clip.create_model_and_transforms(architecture, load_weights=False)

    def tokenizer(texts: list[str]) -> Any:  # that of SigLIP2 is on the hub
        return torch.zeros(len(texts), network.context_length, dtype=torch.int64)

    encoder = on_device(network, preprocess, tokenizer, model=architecture, batch=None, threads=machine.cpus())
    noise = np.random.default_rng(0).integers(0, 256, (encoder.batch, 375, 500, 3), dtype=np.uint8)
    batch = [encoder.prepare(Image.fromarray(pixels)) for pixels in noise]
    encoder.encode_images(batch[:1])

    def run() -> tuple[float, float]:
        images, start = 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < SECONDS:
            encoder.encode_images(batch)
            images += len(batch)
        return images / seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9

    return run
