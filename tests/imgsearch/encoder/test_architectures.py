"""The encoder gives the vectors of OpenCLIP for every architecture and every preprocessing that OpenCLIP lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn

from imgsearch.encoder.openclip import OpenClipEncoder
from imgsearch.encoder.packed import PackedLinear, pack
from tests.imgsearch.encoder.architectures import TEXT, shrunk

ARCHITECTURES = [
    name for name in open_clip.list_models() if "hf_model_name" not in open_clip.get_model_config(name)["text_cfg"]
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that share a small matrix mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_packed_network_gives_the_same_vectors(architecture: str) -> None:
    torch.manual_seed(0)
    network = shrunk(architecture)
    pixels = torch.randn(2, 3, *_height_and_width(network))
    tokens = torch.randint(1, TEXT["vocab_size"], (2, network.context_length))
    with torch.inference_mode():
        images, texts = network.encode_image(pixels), network.encode_text(tokens)
        packed = pack(network)
        packed_images, packed_texts = packed.encode_image(pixels), packed.encode_text(tokens)
    for vectors, packed_vectors in ((images, packed_images), (texts, packed_texts)):
        assert torch.cosine_similarity(packed_vectors, vectors).min() > 0.9999
        # Two images are almost the same to some networks with random weights, so the cosine alone shows little.
        assert (packed_vectors - vectors).norm() < 0.01 * (vectors[0] - vectors[1]).norm()
    assert any(isinstance(module, PackedLinear) for module in packed.modules())


def preprocessings() -> list[dict[str, Any]]:
    """Each way in which pretrained weights want their images, once."""
    found = {}
    for architecture, tag in open_clip.list_pretrained():
        config = open_clip.get_pretrained_cfg(architecture, tag)
        config = {name: config[name] for name in ("mean", "std", "interpolation", "resize_mode") if name in config}
        config["size"] = open_clip.get_model_config(architecture)["vision_cfg"]["image_size"]
        found[json.dumps(config, sort_keys=True)] = config
    return list(found.values())


def _name(config: dict[str, Any]) -> str:
    return "-".join(str(config.get(name)) for name in ("size", "resize_mode", "interpolation", "mean"))


@pytest.mark.parametrize("config", preprocessings(), ids=_name)
def test_photos_reach_the_network_as_open_clip_prepares_them(config: dict[str, Any], coco128: Path) -> None:
    preprocess = image_transform_v2(PreprocessCfg(**config), is_train=False)
    photos = [_rgb(file) for file in sorted(coco128.glob("*.jpg"))[:4]]
    assert len({photo.size for photo in photos}) > 1
    network = Recorder(config["size"])
    encoder = OpenClipEncoder(
        network,
        preprocess,
        lambda texts: torch.zeros(len(texts), 1),
        model="recorder/none",
        fingerprint="",
        device="cpu",
        dtype=torch.float32,
        batch=4,
        workers=1,
        threads=1,
    )
    encoder.encode_images([encoder.prepare(photo) for photo in photos])
    prepared = np.stack([preprocess(photo) for photo in photos])
    np.testing.assert_allclose(network.pixels.numpy(), prepared, rtol=0, atol=1e-4)  # approx() takes 40 s for these


class Recorder(nn.Module):
    """A network that keeps the pixels it gets."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.visual = nn.Module()
        self.visual.image_size = size
        self.pixels = torch.zeros(0)

    def encode_image(self, pixels: Tensor) -> Tensor:
        self.pixels = pixels.clone()
        return torch.ones(len(pixels), 1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return torch.ones(len(tokens), 1)


def _height_and_width(network: nn.Module) -> tuple[int, int]:
    size = network.visual.image_size
    return size if isinstance(size, tuple) else (size, size)


def _rgb(file: Path) -> Image.Image:
    with Image.open(file) as photo:
        return photo.convert("RGB")
