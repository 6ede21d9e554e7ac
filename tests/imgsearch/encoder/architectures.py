"""Every architecture that OpenCLIP lists, shrunk to one layer and to a few patches, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from timm.models import register_model
from torch import nn

from imgsearch.encoder.packed import PackedLinear, pack

TEXT = {"layers": 1, "vocab_size": 512}
VIT = {"depth": 1, "embed_dim": 128, "num_heads": 2, "img_size": 64}
FOUR_STAGES = (1, 1, 1, 1)
TIMM: dict[str, dict[str, Any]] = {
    "convnext": {"depths": FOUR_STAGES, "dims": (32, 64, 128, 256)},
    "fastvit_mci3": {"layers": (*FOUR_STAGES, 1)},
    "fastvit_mci4": {"layers": (*FOUR_STAGES, 1)},
    "fastvit": {"layers": FOUR_STAGES},
    "swin": {"depths": FOUR_STAGES, "img_size": 224},  # its windows fit no smaller image
    "vit_base_mci": {"depth": 1, "img_size": 224},  # made of a stem for this size
    "vitamin": {"depth": 1, "img_size": 64},
    "vit": VIT,
    "eva": VIT,
}
"""By the beginning of a name, arguments of timm's function that makes the model. The first that fits counts."""


def shrunk(architecture: str, hf_model: Path | None = None) -> nn.Module:
    """The network, in the class that OpenCLIP uses for it. `hf_model`: a folder with the configuration of a small text
    tower, instead of the one of Hugging Face that the architecture names."""
    config = open_clip.get_model_config(architecture)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision:
        name = vision["timm_model_name"]
        arguments = next(arguments for start, arguments in TIMM.items() if name.startswith(start))
        vision["timm_model_name"] = _small_timm_model(name, arguments)
        vision["image_size"] = arguments.get("img_size", 64)
    elif isinstance(vision["layers"], list):
        vision |= {"layers": list(FOUR_STAGES), "width": 32, "image_size": 64}
    else:
        vision |= {"layers": 1, "image_size": 2 * vision["patch_size"]}
    text |= {"hf_model_name": str(hf_model), "hf_model_pretrained": False} if hf_model else TEXT
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) or hf_model else open_clip.CLIP
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] |= TEXT
        return open_clip.CoCa(**config).eval()
    config["embed_dim"] = 64
    if not hf_model:
        text |= {"width": 2 * text["width"] // text["heads"], "heads": 2}
    if isinstance(vision.get("layers"), int):
        vision["width"] = 2 * vision.get("head_width", 64)
    return kind(**config).eval()


def assert_packing_changes_no_vector(network: nn.Module, tokens: torch.Tensor) -> None:
    """Of two images, nor of the texts with these `tokens`, of two rows."""
    size = network.visual.image_size
    pixels = torch.randn(2, 3, *(size if isinstance(size, tuple) else (size, size)))
    with torch.inference_mode():
        images, texts = network.encode_image(pixels), network.encode_text(tokens)
        packed = pack(network)
        packed_images, packed_texts = packed.encode_image(pixels), packed.encode_text(tokens)
    for vectors, packed_vectors in ((images, packed_images), (texts, packed_texts)):
        assert torch.cosine_similarity(packed_vectors, vectors).min() > 0.9999
        # Two images are almost the same to some networks with random weights, so the cosine alone shows little.
        assert (packed_vectors - vectors).norm() < 0.01 * (vectors[0] - vectors[1]).norm()
    assert any(isinstance(module, PackedLinear) for module in packed.modules())


def _small_timm_model(name: str, arguments: dict[str, Any]) -> str:
    """Registers the smaller model with timm, which OpenCLIP asks by name; returns its name."""
    make = timm.model_entrypoint(name)

    def small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return make(pretrained, **arguments, **kwargs)

    small.__name__ = f"small_{name}"
    if not timm.is_model(small.__name__):
        register_model(small)
    return small.__name__
