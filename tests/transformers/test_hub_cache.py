"""A tokenizer of the hub: the model check of a run fills the cache, from which each pod takes it without the hub."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers

from imgsearch.encoder.tokenizer import load_tokenizer
from tests.hub import Files, Hub
from tests.transformers.tokenizers import SIZE, t5

MODEL = "ViT-B-16-SigLIP/webli"
REPOSITORY = "timm/ViT-B-16-SigLIP"
WEIGHTS = "open_clip_model.safetensors"
TEXTS = ["a photo of a cat", "a photo of a dog"]


class SmallNetwork:
    """With a vocabulary as small as that of the tests' tokenizer."""

    vocab_size = SIZE


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """As in the repository on the hub: it has no config.json."""
    folder = tmp_path_factory.mktemp("repository")
    t5(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def expected(files: Files) -> list[list[int]]:
    file = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
    file.enable_padding(length=64, pad_id=1)
    return [file.encode(text).ids for text in TEXTS]


def tokens(*, cached: bool) -> list[list[int]]:
    return load_tokenizer(MODEL, SmallNetwork(), cached=cached)(TEXTS).tolist()


def test_what_the_model_check_downloads_is_loaded_without_a_request(
    hub: Hub, cache: Path, files: Files, expected: list[list[int]]
) -> None:
    hub.push(REPOSITORY, files, repository_kind="models")
    assert tokens(cached=False) == expected
    assert any(request.endswith("/tokenizer.json") for request in hub.requests)
    hub.requests.clear()
    assert tokens(cached=True) == expected
    assert hub.requests == []


def test_a_cache_that_cannot_be_written_is_read(hub: Hub, cache: Path, files: Files, expected: list[list[int]]) -> None:
    hub.push(REPOSITORY, files, repository_kind="models")
    tokens(cached=False)
    before = sorted(cache.rglob("*"))
    hub.models[REPOSITORY].access = "down"
    assert tokens(cached=True) == expected
    assert sorted(cache.rglob("*")) == before
