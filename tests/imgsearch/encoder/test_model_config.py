from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import open_clip
import pytest

from imgsearch.encoder.model_config import FOLDER_CONFIG, configuration, dim


@pytest.mark.parametrize("architecture", open_clip.list_models())
def test_the_configuration_is_that_of_open_clip(architecture: str) -> None:
    assert configuration(f"{architecture}/tag") == open_clip.get_model_config(architecture)
    assert dim(f"{architecture}/tag") == open_clip.get_model_config(architecture)["embed_dim"]


def test_the_dimension_of_a_folder_is_that_of_its_vectors(model_folder: Path) -> None:
    assert dim(f"local-dir:{model_folder}") == 256


@pytest.mark.parametrize(
    "text", ["no JSON", "[]", "{}", '{"model_cfg": 5}', '{"model_cfg": {"embed_dim": "512"}}', None]
)
def test_a_dimension_that_cannot_be_read_is_not_known(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / FOLDER_CONFIG).write_text(text)
    assert dim(f"local-dir:{tmp_path}") is None


@pytest.mark.parametrize("model", ["no-such-model/tag", "", "/", "../ViT-B-32/tag"])
def test_a_model_that_does_not_exist_has_no_dimension(model: str) -> None:
    assert dim(model) is None


def test_open_clip_is_not_imported() -> None:
    program = (
        "import sys; from imgsearch.encoder.model_config import dim\n"
        "print(dim('ViT-L-14/openai'), sorted({'torch', 'open_clip'} & {*sys.modules}))"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output == "768 []\n"
