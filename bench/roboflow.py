"""Roboflow Inference's CLIP server, without its hub: it reads our own weights as ONNX files.

It runs in an environment of its own, .venv-roboflow, made with
`uv venv .venv-roboflow; uv pip install -p .venv-roboflow inference-cpu open-clip-torch uvicorn asgi-correlation-id
fastapi-cprofile`."""

# mypy: disable-error-code="import-not-found, import-untyped, no-any-return"

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-roboflow" / "bin" / "python"
OTHERS = (
    *("PE", "SAM", "SAM2", "SAM3", "OWLV2", "GAZE", "DOCTR", "EASYOCR", "TROCR", "PPOCR"),
    *("GROUNDINGDINO", "YOLO_WORLD"),
)
"""Its other models, which take a long time to import."""


def command(port: int) -> list[str]:
    """The command that starts the server."""
    arguments = ["-m", "uvicorn", "--factory", "bench.roboflow:app", "--port", str(port), "--log-level", "error"]
    return [str(PYTHON), *arguments]


def environment(cache: Path) -> dict[str, str]:
    """The variables of the server: no hub, and the folder of its weights."""
    return {
        "OFFLINE_MODE": "True",
        "USE_INFERENCE_MODELS": "False",
        "PYTHONPATH": str(ROOT),
        "MODEL_CACHE_DIR": str(cache),
        "TELEMETRY_OPT_OUT": "True",
        "METRICS_ENABLED": "False",
        "ENABLE_STREAM_API": "False",
        **{f"CORE_MODEL_{name}_ENABLED": "False" for name in OTHERS},
    }


def write_weights(model: str, architecture: str, cache: Path) -> None:
    """Writes the two halves of the model as ONNX into the cache of the server, once. Start the server in `cache`."""
    for part in ("static", "_next/static"):  # of its page, which it needs in its working folder
        (cache / "inference/landing/out" / part).mkdir(parents=True, exist_ok=True)
    folder = cache / "clip" / architecture
    if not (folder / "visual.onnx").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([str(PYTHON), "-m", "bench.roboflow", model, str(folder)], cwd=ROOT, check=True)


def app() -> Any:
    """The HTTP server, as its CPU image starts it."""
    from inference.core.interfaces.http.http_api import HttpInterface
    from inference.core.managers.base import ModelManager
    from inference.core.managers.decorators.fixed_size_cache import WithFixedSizeCache
    from inference.core.registries.roboflow import RoboflowModelRegistry
    from inference.models.utils import ROBOFLOW_MODEL_TYPES

    manager = WithFixedSizeCache(ModelManager(model_registry=RoboflowModelRegistry(ROBOFLOW_MODEL_TYPES)), max_size=8)
    manager.init_pingback()
    return HttpInterface(manager).app


def _export(model: str, folder: Path) -> None:
    import open_clip
    import torch

    network = open_clip.create_model(model).eval()
    halves = {"textual": (network.encode_text, torch.zeros(2, 77, dtype=torch.int32))}
    halves["visual"] = (network.encode_image, torch.zeros(2, 3, 224, 224))
    torch.backends.mha.set_fastpath_enabled(False)  # the exporter does not support its operator
    for name, (encode, example) in halves.items():
        half = torch.nn.Module()
        half.network, half.forward = network, encode
        torch.onnx.export(
            half,
            (example,),
            folder / f"{name}.onnx",
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "n"}, "output": {0: "n"}},
            dynamo=False,
        )


if __name__ == "__main__":
    _export(sys.argv[1], Path(sys.argv[2]))
