"""The encoder gives the vectors of OpenCLIP for every architecture and every preprocessing that OpenCLIP lists.

The architectures with a text tower of Hugging Face are in tests/transformers."""

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

from tests.imgsearch.encoder.architectures import TEXT, assert_packing_changes_no_vector, shrunk
from tests.imgsearch.encoder.encoders import encoder_around

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
    assert_packing_changes_no_vector(network, torch.randint(1, TEXT["vocab_size"], (2, network.context_length)))


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
    encoder = encoder_around(network, preprocess, batch=4)
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


def _rgb(file: Path) -> Image.Image:
    with Image.open(file) as photo:
        return photo.convert("RGB")
