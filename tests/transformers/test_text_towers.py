"""The encoder gives the vectors of OpenCLIP for the architectures with a text tower of Hugging Face."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch

from tests.imgsearch.encoder.architectures import assert_packing_changes_no_vector, shrunk
from tests.transformers.text_towers import VOCABULARY, save_config

TOWERS = {
    name: text["hf_model_name"]
    for name in open_clip.list_models()
    if "hf_model_name" in (text := open_clip.get_model_config(name)["text_cfg"])
}


@pytest.mark.parametrize("architecture", TOWERS)
def test_a_packed_network_gives_the_same_vectors(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = shrunk(architecture, save_config(TOWERS[architecture], tmp_path))
    tokens = torch.randint(3, VOCABULARY, (2, 20))
    tokens[0, 12:] = network.text.config.pad_token_id
    assert_packing_changes_no_vector(network, tokens)
