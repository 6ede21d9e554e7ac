from __future__ import annotations

import json
from pathlib import Path

import pytest

from imgsearch import distribution
from imgsearch.encoder.model_checks import load_failure, needs_quick_gelu
from imgsearch.encoder.openclip import download
from imgsearch.errors import PermanentError, UsageError


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("ViT-B-33/openai", "did you mean ViT-B-32"),
        ("ViT-B-32/no-such-tag", "laion2b_s34b_b79k"),
        ("local-dir:/no/such/folder", "/no/such/folder.* open_clip_config.json"),
    ],
)
def test_a_model_that_does_not_exist_is_named_with_what_does(model: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        download(model)


def test_a_folder_without_weights_is_refused(model_folder: Path) -> None:
    """OpenCLIP would make random ones."""
    for file in model_folder.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(PermanentError, match=r"model: it has no weights \(\*\.safetensors, \*\.bin, \*\.pth\)"):
        download(f"local-dir:{model_folder}")


@pytest.mark.parametrize("model", ["ViT-B-16-SigLIP/webli", "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k", "folder"])
def test_a_model_whose_package_is_not_installed_is_refused_with_its_name(model: str, model_folder: Path) -> None:
    if model == "folder":
        model = f"local-dir:{model_folder}"
        file = model_folder / "open_clip_config.json"
        config = json.loads(file.read_text())
        config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "bert-base-uncased"
        file.write_text(json.dumps(config))
    with pytest.raises(PermanentError) as refused:
        download(model)
    assert str(refused.value) == (
        f"{model} needs the package transformers for its texts: {distribution.install('transformers')}; "
        "build container images with `make images EXTRA=transformers`"
    )


@pytest.mark.parametrize(
    ("model", "expected"),
    [("ViT-B-32/openai", True), ("ViT-B-32/laion2b_s34b_b79k", False), ("local-dir:/some/folder", False)],
)
def test_the_activation_is_that_of_the_training(model: str, expected: bool) -> None:
    assert needs_quick_gelu(model) is expected


def test_a_full_disk_of_the_cache_is_not_tried_again() -> None:
    error = FileNotFoundError("Failed to download file for a/b. Last error: [Errno 28] No space left on device: '/c'")
    failure = load_failure("ViT-B-32/openai", "weights", error)
    assert isinstance(failure, PermanentError)
    assert str(failure).startswith("no space left for the weights of ViT-B-32/openai (")
