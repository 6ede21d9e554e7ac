"""Tokenizers and text towers of Hugging Face in a model folder: each text gets the tokens of the tokenizer's file."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import tokenizers
import torch
from safetensors.torch import save_file

from imgsearch.encoder.openclip import download, load_encoder
from imgsearch.errors import PermanentError
from tests.transformers.text_towers import save_config
from tests.transformers.tokenizers import KINDS, SIZE, sentencepiece_alone, xlm_roberta

LENGTH = 16
TEXTS = ["a photo of a cat", "Grüße  aus Köln, (zwei) Fotos!", "日本語のテキスト", "", "🙂 smile", "many words " * 20]
TRANSFORMER = {"width": 32, "heads": 2, "layers": 1, "vocab_size": 2 * SIZE}


def save_model(folder: Path, text: dict[str, Any]) -> str:
    """Writes a small model with random weights, whose tokenizer is in the folder already; returns its name."""
    vision = {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32}
    text = {"context_length": LENGTH, "hf_tokenizer_name": "organisation/of-the-hub", **text}
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text, "custom_text": True}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    torch.manual_seed(0)
    network = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def plain_vectors(model: str, texts: list[str]) -> np.ndarray:
    """Those of OpenCLIP's network with OpenCLIP's tokenizer."""
    network = open_clip.create_model(model).eval()
    with torch.inference_mode():
        return network.encode_text(open_clip.get_tokenizer(model)(texts), normalize=True).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_texts_get_the_tokens_of_the_file(kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path)
    model = save_model(tmp_path, TRANSFORMER)
    tokenizer = open_clip.get_tokenizer(model)
    file = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    padding = tokenizer.tokenizer.pad_token_id
    file.enable_truncation(LENGTH)
    file.enable_padding(length=LENGTH, pad_id=padding)
    expected = [file.encode(tokenizer.clean_fn(text)).ids for text in TEXTS]
    assert tokenizer(TEXTS).tolist() == expected
    assert len({tuple(ids) for ids in expected}) == len(TEXTS)
    assert load_encoder(model).encode_texts(TEXTS) == pytest.approx(plain_vectors(model, TEXTS), abs=1e-5)


def test_a_tokenizer_that_is_a_file_of_sentencepiece_alone_gives_its_tokens(tmp_path: Path) -> None:
    processor = sentencepiece_alone(tmp_path)
    model = save_model(tmp_path, TRANSFORMER)
    texts = ["a photo of a cat", "Grüße aus Köln"]
    expected = [[*processor.encode(text), 1] for text in texts]
    assert open_clip.get_tokenizer(model)(texts).tolist() == [ids + [0] * (LENGTH - len(ids)) for ids in expected]
    assert load_encoder(model).encode_texts(texts) == pytest.approx(plain_vectors(model, texts), abs=1e-5)


@pytest.mark.parametrize("tower", ["roberta-base", "xlm-roberta-base", "google/mt5-base", "facebook/nllb-200"])
def test_a_model_with_a_text_tower_gives_the_vectors_of_open_clip(tower: str, tmp_path: Path) -> None:
    xlm_roberta(tmp_path)
    text = {"hf_model_name": str(save_config(tower, tmp_path / "tower")), "hf_proj_type": "linear"}
    model = save_model(tmp_path, {**text, "hf_pooler_type": "mean_pooler"})
    download(model)
    assert load_encoder(model).encode_texts(TEXTS) == pytest.approx(plain_vectors(model, TEXTS), abs=1e-5)


def test_threads_get_the_vectors_that_one_gets(tmp_path: Path) -> None:
    KINDS["gemma"](tmp_path)
    encoder = load_encoder(save_model(tmp_path, TRANSFORMER), threads=2)
    batches = [[f"{text} {number}" for text in TEXTS[: 1 + number % 6]] for number in range(48)]
    expected = [encoder.encode_texts(batch) for batch in batches]
    with ThreadPoolExecutor(8) as threads:
        for vectors, alone in zip(threads.map(encoder.encode_texts, batches), expected, strict=True):
            assert vectors == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "generic"])
def test_a_tokenizer_without_its_vocabulary_is_refused(kind: str, tmp_path: Path) -> None:
    """Transformers makes one of a few special tokens, to which every word is unknown."""
    KINDS[kind](tmp_path)
    model = save_model(tmp_path, TRANSFORMER)
    (tmp_path / "tokenizer.json").unlink()
    sentence = f"^cannot load the tokenizer of the model in {tmp_path}: it has \\d+ tokens, and the text encoder 1000, "
    for load in (download, load_encoder):
        with pytest.raises(PermanentError, match=sentence + "so the file of its vocabulary is missing; put "):
            load(model)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json"])
def test_a_folder_with_a_part_of_a_tokenizer_is_refused(name: str, tmp_path: Path) -> None:
    KINDS["generic"](tmp_path)
    model = save_model(tmp_path, TRANSFORMER)
    (tmp_path / name).unlink()
    sentence = f"^cannot load the tokenizer of the model in {tmp_path}: .*; put its tokenizer.json and tokenizer_config"
    with pytest.raises(PermanentError, match=sentence):
        download(model)
