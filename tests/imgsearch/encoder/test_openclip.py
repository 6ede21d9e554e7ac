from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision import transforms

from imgsearch.encoder import Encoder
from imgsearch.encoder.openclip import OpenClipEncoder, download, load_encoder
from imgsearch.errors import PermanentError
from imgsearch.pictures import Decoder
from tests.imgsearch.encoder.encoders import encoder_around


@pytest.fixture(scope="module")
def encoder(demo_model: str) -> Encoder:
    return load_encoder(demo_model)


@pytest.fixture(scope="module")
def reference(demo_model: str) -> tuple[Any, Any, Any]:
    model, _, preprocess = open_clip.create_model_and_transforms(demo_model)
    return model.eval(), preprocess, open_clip.get_tokenizer(demo_model)


def photos() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 255, (8, 8 + 4 * n, 3), dtype=np.uint8) for n in range(5)]
    return [
        Image.fromarray(array).resize((300 + 50 * n, 300), Image.Resampling.BICUBIC) for n, array in enumerate(arrays)
    ]


def test_images_are_encoded_as_open_clip_itself_does(encoder: Encoder, reference: tuple[Any, Any, Any]) -> None:
    model, preprocess, _ = reference
    vectors = encoder.encode_images([encoder.prepare(image) for image in photos()])
    with torch.inference_mode():
        expected = model.encode_image(torch.stack([preprocess(image) for image in photos()]), normalize=True).numpy()
    assert vectors == pytest.approx(expected, abs=1e-5)
    assert vectors.shape == (5, encoder.dim)


def test_texts_are_encoded_as_open_clip_itself_does(encoder: Encoder, reference: tuple[Any, Any, Any]) -> None:
    model, _, tokenizer = reference
    texts = ["a photo of a cat", "", "ein langer Satz " * 40, "🙂"]
    with torch.inference_mode():
        expected = model.encode_text(tokenizer(texts), normalize=True).numpy()
    assert encoder.encode_texts(texts) == pytest.approx(expected, abs=1e-5)


def test_vectors_have_length_one(encoder: Encoder) -> None:
    vectors = encoder.encode_images([encoder.prepare(image) for image in photos()])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)


def test_no_image_gives_no_vector(encoder: Encoder) -> None:
    assert encoder.encode_images([]).shape == (0, encoder.dim)


def test_the_same_weights_have_the_same_fingerprint_wherever_they_lie(
    encoder: Encoder, demo_model: str, tmp_path: Path
) -> None:
    for file in Path(demo_model.removeprefix("local-dir:")).iterdir():
        (tmp_path / file.name).symlink_to(file)
    assert load_encoder(f"local-dir:{tmp_path}").fingerprint == encoder.fingerprint


def test_draft_decoding_hardly_moves_a_vector(encoder: Encoder, coco128: Path) -> None:
    files = sorted(coco128.glob("*.jpg"))[:16]
    vectors = []
    for target in (None, encoder.size):
        decoded = [Decoder(10**8).decode(file.read_bytes(), target=target).image for file in files]
        vectors.append(encoder.encode_images([encoder.prepare(image) for image in decoded]))
    assert (vectors[0] * vectors[1]).sum(axis=1).min() > 0.98


def test_a_damaged_model_folder_is_an_error_of_one_sentence(demo_model: str, tmp_path: Path) -> None:
    source = Path(demo_model.removeprefix("local-dir:"))
    (tmp_path / "open_clip_config.json").write_bytes((source / "open_clip_config.json").read_bytes())
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"cut")
    with pytest.raises(PermanentError, match=str(tmp_path)):
        load_encoder(f"local-dir:{tmp_path}")


class SmallDevice(nn.Module):
    """A network on a device with memory for `room` images."""

    def __init__(self, capacity: int, error: Exception) -> None:
        super().__init__()
        self.room = capacity
        self.error = error
        self.sizes: list[int] = []
        self.visual = type("Visual", (), {"image_size": 4})()

    def encode_image(self, pixels: Tensor) -> Tensor:
        self.sizes.append(len(pixels))
        if len(pixels) > self.room:
            raise self.error
        return pixels.flatten(1)[:, :3] + 1

    def encode_text(self, tokens: Tensor) -> Tensor:
        return torch.ones(len(tokens), 3)


def small_device(capacity: int, error: Exception) -> tuple[OpenClipEncoder, SmallDevice]:
    network = SmallDevice(capacity, error)

    preprocess = transforms.Compose(
        [transforms.Resize(4), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    )
    return encoder_around(network, preprocess, batch=8), network


OUT_OF_MEMORY = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate")]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["gpu", "cpu"])
def test_out_of_memory_halves_the_batch_and_loses_nothing(error: Exception) -> None:
    encoder, network = small_device(3, error)
    images = [np.full((4, 4, 3), number, np.uint8) for number in range(11)]
    expected = np.concatenate([small_device(3, error)[0].encode_images([image]) for image in images])
    assert encoder.encode_images(images) == pytest.approx(expected)
    assert encoder.batch == 2
    assert network.sizes == [8, 4, 2, 2, 2, 2, 2, 1]


def test_one_image_too_many_for_the_device_says_what_to_do() -> None:
    encoder, _ = small_device(0, OUT_OF_MEMORY[0])
    with pytest.raises(PermanentError, match="smaller model or a larger device"):
        encoder.encode_images([np.zeros((4, 4, 3), np.uint8)])


def test_another_error_of_the_device_is_not_mistaken_for_a_full_memory() -> None:
    encoder, _ = small_device(0, RuntimeError("illegal instruction"))
    with pytest.raises(RuntimeError, match="illegal instruction"):
        encoder.encode_images([np.zeros((4, 4, 3), np.uint8)])


@pytest.mark.parametrize(("change", "name"), [("missing", "logit_scale"), ("misshapen", "token_embedding.weight")])
def test_weights_of_another_architecture_are_refused(model_folder: Path, change: str, name: str) -> None:
    (file,) = model_folder.glob("*.safetensors")
    weights = load_file(file)
    if change == "missing":
        del weights[name]
    else:
        weights[name] = torch.zeros(3, 3)
    save_file(weights, file)
    with pytest.raises(PermanentError, match=f"those of another architecture: .*{name}"):
        download(f"local-dir:{model_folder}")


def test_weights_that_are_cut_are_refused(model_folder: Path) -> None:
    (file,) = model_folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(PermanentError, match=f"cannot load the weights of the model in {model_folder}"):
        download(f"local-dir:{model_folder}")
