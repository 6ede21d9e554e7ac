"""The models that are measured: the demo's, and well-known architectures with random weights, as local folders."""

from __future__ import annotations

import json
from pathlib import Path

DEMO = "local-dir:" + str(Path(__file__).resolve().parent.parent / "demo" / "model")


def random_weights(architecture: str, cache: Path) -> str:
    """`local-dir:` of that architecture with random weights, made at the first call: speed needs no training."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = cache / "models" / architecture
    config = folder / "open_clip_config.json"
    if not config.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        network = open_clip.create_model(architecture)
        save_file(
            {name: value.contiguous() for name, value in network.state_dict().items()},
            folder / "open_clip_model.safetensors",
        )
        config_document = {"model_cfg": open_clip.get_model_config(architecture), "preprocess_cfg": {}}
        config.write_text(json.dumps(config_document))  # last: a folder with it is whole
    return f"local-dir:{folder}"
