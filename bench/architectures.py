"""Speed and memory of OpenCLIP's architectures, each compared with ViT-B-32."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

from bench.results import Figure
from bench.worker import Function, Worker

TITLE = "Models"
METHOD = """\
Images per second of `Encoder.encode_images` on all cores, and the maximum memory (`ru_maxrss`) of the process, which
loads both towers of the network. The weights are random: speed and memory do not depend on training. Photos are decoded
and scaled before the clock starts. Each architecture has a process of its own, and all run in turn in each round. The
ratio is that of the same round. A float32 weight takes 4 bytes; on a GPU it takes 2."""

BASE = "ViT-B-32"
ARCHITECTURES = (
    BASE,
    "ViT-B-16",
    "ViT-L-14",
    "ViT-B-32-SigLIP2-256",
    "ViT-B-16-SigLIP2-256",
    "ViT-L-16-SigLIP2-256",
    "ViT-SO400M-16-SigLIP2-256",
    "PE-Core-S-16-384",
    "PE-Core-B-16",
    "PE-Core-L-14-336",
    "MobileCLIP2-S0",
    "MobileCLIP2-S2",
    "MobileCLIP2-S4",
)
"""Those of docs/models.md that need no package beside ours."""
SECONDS = 4.0
"""The least time of a round of one architecture."""


def measure(cache: Path, *, quick: bool) -> dict[str, list[Figure]]:
    rounds = 1 if quick else 3
    speeds: dict[str, list[float]] = {name: [] for name in ARCHITECTURES}
    megabytes: dict[str, float] = {}
    for name in ARCHITECTURES:
        with Worker(encode, BASE) as base, Worker(encode, name) as ours:
            for _ in range(rounds):
                base_speed, _ = base()
                speed, megabytes[name] = ours()
                speeds[name].append(speed / base_speed)
    return {
        "": [
            figure
            for name in ARCHITECTURES
            for figure in (
                Figure.median(name, f"× the images/s of {BASE}", speeds[name]),
                Figure(name, "memory, MB", round(megabytes[name])),
            )
        ]
    }


def encode(architecture: str) -> Function:
    """Returns a function that encodes photos with random weights, and returns images per second and the maximum memory
    in MB."""
    import numpy as np
    import open_clip
    import torch
    from PIL import Image

    from imgsearch import machine
    from imgsearch.encoder.openclip import CPU_BATCH, OpenClipEncoder
    from imgsearch.encoder.packed import pack

    created, _, preprocess = open_clip.create_model_and_transforms(architecture, load_weights=False)
    network: Any = pack(created.to(memory_format=torch.channels_last))
    cores = machine.cpus()
    encoder = OpenClipEncoder(
        network,
        preprocess,
        lambda texts: torch.zeros(len(texts), network.context_length, dtype=torch.int64),  # its own may need the hub
        model=architecture,
        fingerprint="",
        device="cpu",
        dtype=torch.float32,
        batch=CPU_BATCH,
        workers=1,
        threads=cores,
    )
    noise = np.random.default_rng(0).integers(0, 256, (CPU_BATCH, 375, 500, 3), dtype=np.uint8)
    batch = [encoder.prepare(Image.fromarray(pixels)) for pixels in noise]
    encoder.encode_images(batch[:1])

    def run() -> tuple[float, float]:
        images, start = 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < SECONDS:
            encoder.encode_images(batch)
            images += len(batch)
        return images / seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6

    return run
