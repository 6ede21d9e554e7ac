"""A simple embedding loop, after SkyPilot's image vector-database example: one thread, one step after the other, the
defaults of torch, and pickles in Parquet."""

from __future__ import annotations

import base64
import io
import pickle
import time
from collections.abc import Callable, Sequence
from pathlib import Path

BATCH = 50


def loop(model: str) -> Callable[[Sequence[Path], Path], float]:
    """Loads the model. Returns a function that embeds files into a Parquet file, and returns its seconds."""
    import open_clip
    import pandas  # type: ignore[import-untyped]
    import torch
    from PIL import Image

    network, _, preprocess = open_clip.create_model_and_transforms(model)
    network.eval()

    def run(files: Sequence[Path], folder: Path) -> float:
        start = time.perf_counter()
        rows = []
        for first in range(0, len(files), BATCH):
            images = [Image.open(file).convert("RGB") for file in files[first : first + BATCH]]
            tensors = torch.stack([preprocess(image) for image in images])
            with torch.no_grad():
                features = network.encode_image(tensors)
                features /= features.norm(dim=-1, keepdim=True)
            for number, (image, vector) in enumerate(zip(images, features.numpy(), strict=True), first):
                sink = io.BytesIO()
                image.save(sink, "JPEG")
                encoded = base64.b64encode(sink.getvalue()).decode()
                rows.append({"idx": number, "embedding": pickle.dumps((encoded, vector))})
        pandas.DataFrame(rows).to_parquet(folder / "embeddings.parquet")
        return time.perf_counter() - start

    return run
