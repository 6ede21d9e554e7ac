"""Layers with weights packed once compute the same."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from torch import nn

from imgsearch.encoder.packed import PackedAttention, PackedLinear, pack


class TestPacking:
    def test_a_linear_layer_computes_the_same(self) -> None:
        layer = nn.Linear(64, 32)
        x = torch.randn(5, 7, 64)
        with torch.inference_mode():
            assert torch.allclose(PackedLinear(layer.weight, layer.bias)(x), layer(x), atol=1e-5)
            assert torch.allclose(PackedLinear(layer.weight, None)(x), x @ layer.weight.T, atol=1e-5)

    @pytest.mark.parametrize("batch_first", [True, False])
    @pytest.mark.parametrize("masked", [True, False])
    def test_self_attention_computes_the_same(self, batch_first: bool, masked: bool) -> None:
        attention = nn.MultiheadAttention(64, 4, batch_first=batch_first).eval()
        x = torch.randn(3, 5, 64)
        length = 5 if batch_first else 3
        mask = torch.full((length, length), float("-inf")).triu(1) if masked else None
        with torch.inference_mode():
            expected = attention(x, x, x, need_weights=False, attn_mask=mask)[0]
            packed_output = PackedAttention(attention)(x, x, x, need_weights=False, attn_mask=mask)[0]
        assert torch.allclose(packed_output, expected, atol=1e-5)

    def test_cross_attention_is_left_to_torch(self) -> None:
        attention = nn.MultiheadAttention(64, 4, batch_first=True).eval()
        x, y = torch.randn(3, 5, 64), torch.randn(3, 2, 64)
        with torch.inference_mode():
            expected = attention(x, y, y, need_weights=False)[0]
            assert torch.allclose(PackedAttention(attention)(x, y, y)[0], expected, atol=1e-5)

    @pytest.mark.parametrize("architecture", ["ViT-B-32", "RN50", "coca_ViT-B-32", "ViT-B-32-quickgelu"])
    def test_a_packed_model_gives_the_same_vectors(self, architecture: str) -> None:
        torch.manual_seed(0)
        model = open_clip.create_model(architecture, pretrained=None, load_weights=False).eval()
        pixels = torch.randn(2, 3, 224, 224)
        tokens = open_clip.get_tokenizer(architecture)(["a cat", "two dogs on a very long beach"])
        with torch.inference_mode():
            image, text = model.encode_image(pixels), model.encode_text(tokens)
            packed = pack(model)
            assert torch.allclose(packed.encode_image(pixels), image, atol=1e-3)
            assert torch.allclose(packed.encode_text(tokens), text, atol=1e-3)
        assert any(isinstance(module, PackedLinear) for module in packed.modules())

    @pytest.mark.parametrize("network", [open_clip.CLIP, open_clip.CustomTextCLIP])
    def test_a_projection_with_a_bias_is_packed(self, network: type[nn.Module]) -> None:
        """SigLIP's text towers have one, and OpenCLIP asks whether it is an `nn.Linear`."""
        torch.manual_seed(0)
        vision = {"layers": 1, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 32}
        text = {"layers": 1, "width": 64, "heads": 2, "vocab_size": 100, "context_length": 8, "proj_bias": True}
        model: Any = network(embed_dim=32, vision_cfg=vision, text_cfg=text).eval()
        tokens = torch.arange(16).view(2, 8)
        with torch.inference_mode():
            expected = model.encode_text(tokens)
            assert torch.allclose(pack(model).encode_text(tokens), expected, atol=1e-5)
        assert isinstance(getattr(model, "text", model).text_projection, PackedLinear)
