"""Faster float32 linear layers on a CPU: oneDNN with weights packed once, instead of the BLAS that torch links.

torch's CPU wheels run float32 `nn.Linear` with MKL, which uses half of the vector units of AMD processors. oneDNN, in
the same wheel, uses all of them, and reads a weight in the layout of its kernels. The float32 arithmetic is the same,
in another order of summation. torch's own compiler emits the same operators for a frozen linear layer
(torch/_inductor/fx_passes/mkldnn_fusion.py). If a build of torch lacks them, the model stays as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def pack(model: nn.Module) -> nn.Module:
    """Replaces, in place, the linear layers and self-attentions of a float32 CPU model for inference."""
    if not (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    ):
        return model
    for name, child in model.named_children():
        if isinstance(child, nn.MultiheadAttention):
            if child._qkv_same_embed_dim and child.bias_k is None and not child.add_zero_attn:
                setattr(model, name, PackedAttention(child))
        elif type(child) is nn.Linear:
            setattr(model, name, PackedLinear(child.weight, child.bias))
        else:
            pack(child)
    return model


class PackedLinear(nn.Linear):
    """`nn.Linear` whose weight is in oneDNN's own layout. OpenCLIP asks whether a projection is an `nn.Linear`."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        nn.Module.__init__(self)  # not that of nn.Linear, which makes weights of its own
        self.out_features, self.in_features = weight.shape
        self.weight = weight  # some models read the dtype of a layer's weight
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
        self.bias = None if bias is None else bias.detach()  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")  # type: ignore[no-any-return]


class PackedAttention(nn.Module):
    """`nn.MultiheadAttention` as the transformer blocks of OpenCLIP call it: without weights and dropout."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.batch_first = attention.batch_first
        self.original = attention
        self.qkv = PackedLinear(attention.in_proj_weight, attention.in_proj_bias)
        self.out = PackedLinear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        if query is not key or key is not value:  # cross-attention is too rare for a packing of its own
            return self.original(query, key, value, need_weights=need_weights, attn_mask=attn_mask)  # type: ignore[no-any-return]
        x = query if self.batch_first else query.transpose(0, 1)
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if attn_mask is not None and attn_mask.dim() == 3:  # one mask for each image and head
            attn_mask = attn_mask.view(batch, self.heads, length, length)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        out = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return (out if self.batch_first else out.transpose(0, 1)), None
