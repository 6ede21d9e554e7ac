from __future__ import annotations

import sys

from tests import forks


def test_a_process_starts_without_the_compiler_and_can_still_import_it() -> None:
    forks.finish(_check)


def _check() -> None:
    import torch
    import torchvision

    from imgsearch.encoder import openclip

    assert openclip.load_encoder
    assert not [name for name in sys.modules if name.startswith(("torch._dynamo", "torch._inductor"))]

    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    aligned = torchvision.ops.roi_align(image, torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0]]), output_size=1)
    assert aligned.flatten().tolist() == [5.0]
    compiled = torch.compile(lambda tensor: tensor + 1, backend="eager")
    assert compiled(torch.ones(2)).tolist() == [2.0, 2.0]
    assert "torch._dynamo.utils" in sys.modules
