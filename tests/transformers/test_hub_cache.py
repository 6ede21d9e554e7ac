"""A tokenizer and a text tower of the hub: the model check of a run fills the cache, which each pod reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import pytest
import tokenizers
import torch
from safetensors.torch import save

from imgsearch.encoder.openclip import download, load_encoder
from imgsearch.errors import TemporaryError
from tests.hub import Files, Hub
from tests.transformers.text_towers import VOCABULARY, save_config
from tests.transformers.tokenizers import roberta, t5

TEXTS = ["a photo of a cat", "a photo of a dog"]
LENGTH = 16
VISION = {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32}


@dataclass
class Model:
    """What is on the hub for a tag of OpenCLIP, whose architecture is a small one in this process."""

    name: str
    repositories: dict[str, Files]
    tokenizer: str
    padding: int

    def push(self, hub: Hub) -> None:
        for repository, files in self.repositories.items():
            hub.push(repository, files, repository_kind="models")

    def tokens(self) -> list[list[int]]:
        """Of TEXTS, by the file itself."""
        file = tokenizers.Tokenizer.from_str(self.repositories[self.tokenizer]["tokenizer.json"].decode())
        file.enable_padding(length=LENGTH, pad_id=self.padding)
        return [file.encode(text).ids for text in TEXTS]


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Its tokenizer lies beside its weights, in a repository without config.json."""
    folder = tmp_path_factory.mktemp("repository")
    t5(folder)
    repository = "timm/ViT-B-16-SigLIP"
    text = {"width": 32, "heads": 2, "layers": 1, "vocab_size": VOCABULARY, "hf_tokenizer_name": repository}
    weights = _small("ViT-B-16-SigLIP", text, tmp_path_factory.mktemp("architecture"))
    files = {**_files(folder), "open_clip_model.safetensors": weights}
    return Model("ViT-B-16-SigLIP/webli", {repository: files}, repository, padding=1)


@pytest.fixture(scope="module")
def roberta_clip(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Its tokenizer and the configuration of its text tower lie in another repository than its weights."""
    folder = tmp_path_factory.mktemp("repository")
    roberta(folder)
    save_config("roberta-base", folder)
    text = {"hf_model_name": str(folder), "hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"}
    weights = _small("roberta-ViT-B-32", text, tmp_path_factory.mktemp("random"))
    names = {"hf_model_name": "FacebookAI/roberta-base", "hf_tokenizer_name": "FacebookAI/roberta-base"}
    _add_architecture("roberta-ViT-B-32", {**text, **names}, tmp_path_factory.mktemp("architecture"))
    repositories = {
        "laion/CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k": {"open_clip_model.safetensors": weights},
        "FacebookAI/roberta-base": _files(folder),
    }
    return Model("roberta-ViT-B-32/laion2b_s12b_b32k", repositories, "FacebookAI/roberta-base", padding=1)


@pytest.fixture(params=["siglip", "roberta_clip"])
def model(request: pytest.FixtureRequest, hub: Hub, cache: Path) -> Model:
    """On the hub, and not in the cache."""
    model: Model = request.getfixturevalue(request.param)
    model.push(hub)
    return model


def plain_vectors(model: Model) -> Any:
    arch, _, tag = model.name.partition("/")
    network = open_clip.create_model(arch, tag).eval()
    with torch.inference_mode():
        return network.encode_text(torch.tensor(model.tokens()), normalize=True).numpy()


def test_a_pod_reads_what_the_model_check_downloaded_also_without_the_hub(hub: Hub, cache: Path, model: Model) -> None:
    download(model.name)
    for repository in hub.models.values():
        repository.access = "down"
    cached = sorted(cache.parent.rglob("*"))
    hub.requests.clear()
    vectors = load_encoder(model.name).encode_texts(TEXTS)
    # Those that transformers sends for a tokenizer: without a network, it tries each five times, for 23 s.
    assert not [request for request in hub.requests if "/tree/" in request]
    assert sorted(cache.parent.rglob("*")) == cached, "a cache may be a volume that is mounted for reading"
    assert vectors == pytest.approx(plain_vectors(model), abs=1e-5)


def test_a_process_without_a_cache_asks_the_hub(hub: Hub, model: Model) -> None:
    assert load_encoder(model.name).encode_texts(TEXTS) == pytest.approx(plain_vectors(model), abs=1e-5)
    assert any(request.endswith("/tokenizer.json") for request in hub.requests)


def test_a_file_that_is_missing_in_the_cache_is_downloaded(cache: Path, model: Model) -> None:
    """A download that was interrupted leaves a part of the files."""
    download(model.name)
    (file,) = cache.rglob("tokenizer.json")
    file.unlink()
    assert load_encoder(model.name).encode_texts(TEXTS) == pytest.approx(plain_vectors(model), abs=1e-5)
    assert file.is_file()


def test_a_tokenizer_that_the_hub_does_not_have_is_named(hub: Hub, siglip: Model, cache: Path) -> None:
    hub.push(siglip.tokenizer, {"open_clip_model.safetensors": _weights(siglip)}, repository_kind="models")
    with pytest.raises(TemporaryError, match=f"^cannot load the tokenizer of {siglip.name} "):
        download(siglip.name)


def test_a_tokenizer_of_the_hub_without_its_vocabulary_is_refused(hub: Hub, siglip: Model, cache: Path) -> None:
    files = {name: data for name, data in siglip.repositories[siglip.tokenizer].items() if name != "tokenizer.json"}
    hub.push(siglip.tokenizer, files, repository_kind="models")
    with pytest.raises(TemporaryError, match=f"^cannot load the tokenizer of {siglip.name} .it has . tokens"):
        download(siglip.name)


def _weights(model: Model) -> bytes:
    return next(files[name] for files in model.repositories.values() for name in files if name.endswith(".safetensors"))


def _small(architecture: str, text: dict[str, Any], folder: Path) -> bytes:
    """Makes the architecture small for the rest of this process; returns random weights for it."""
    _add_architecture(architecture, text, folder)
    torch.manual_seed(0)
    return save(open_clip.create_model(architecture, load_weights=False, pretrained_text=False).state_dict())


def _add_architecture(name: str, text: dict[str, Any], folder: Path) -> None:
    config = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": {"context_length": LENGTH, **text}}
    (folder / f"{name}.json").write_text(json.dumps({**config, "custom_text": True}))
    open_clip.add_model_config(folder)


def _files(folder: Path) -> Files:
    return {file.name: file.read_bytes() for file in folder.iterdir()}
