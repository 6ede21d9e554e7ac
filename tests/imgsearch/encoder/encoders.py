"""An encoder around a network that a test makes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision import transforms

from imgsearch.encoder.openclip import OpenClipEncoder


def encoder_around(network: nn.Module, preprocess: transforms.Compose, *, batch: int) -> OpenClipEncoder:
    """On the CPU, in one thread. The network gets one zero for each text."""

    def tokenizer(texts: list[str]) -> Any:
        return torch.zeros(len(texts), 1)

    return OpenClipEncoder(
        network,
        preprocess,
        tokenizer,
        model="test/none",
        fingerprint="",
        device="cpu",
        dtype=torch.float32,
        batch=batch,
        workers=1,
        threads=1,
    )
