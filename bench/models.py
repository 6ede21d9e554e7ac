"""The models of the benchmarks, as local folders: the demo's, and known architectures with random weights."""

from __future__ import annotations

import json
from pathlib import Path

DEMO = "local-dir:" + str(Path(__file__).resolve().parent.parent / "demo" / "model")


def random_weights(architecture: str, cache: Path) -> str:
    """The name of a model with random weights, which the first call writes. Speed does not depend on training."""
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
        config.write_text(json.dumps(config_document))  # last: a folder with it is complete
    return f"local-dir:{folder}"


def megabytes(model: str) -> float:
    """The size of the weights in its folder."""
    files = Path(model.removeprefix("local-dir:")).glob("*.safetensors")
    return sum(file.stat().st_size for file in files) / 1e6
