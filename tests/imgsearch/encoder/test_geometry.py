from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
from PIL import Image

from imgsearch.encoder.geometry import MAX_RATIO, Geometry, bounded


@pytest.mark.parametrize("crops", [True, False])
@pytest.mark.parametrize("size", [(640, 480), (1, 1), (MAX_RATIO, 1), (3, 3 * MAX_RATIO)])
def test_an_image_of_ordinary_shape_is_the_same(size: tuple[int, int], crops: bool) -> None:
    image = Image.new("RGB", size)
    assert bounded(image, crops=crops) is image


@pytest.mark.parametrize("turned", [False, True])
def test_of_a_long_image_a_cropping_model_sees_the_middle(turned: bool) -> None:
    pixels = np.zeros((2, 1000, 3), np.uint8)
    pixels[:, 436:564] = 255
    image = Image.fromarray(pixels.swapaxes(0, 1) if turned else pixels)
    middle = bounded(image, crops=True)
    assert middle.size == ((2, 128) if turned else (128, 2))
    assert middle.getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("turned", [False, True])
def test_of_a_long_image_other_models_see_all_in_their_mean(turned: bool) -> None:
    pixels = np.zeros((1, 640, 3), np.uint8)
    pixels[:, ::10] = 250
    small = bounded(Image.fromarray(pixels.swapaxes(0, 1) if turned else pixels), crops=False)
    assert small.size == ((1, 64) if turned else (64, 1))
    assert small.getextrema() == ((25, 25),) * 3


MODES = ("shortest", "longest", "squash")
SIZES = [(1, 1), (1, 40_000), (8000, 1), (3, 60_000), (100, 30_000), (1, 10_000_000), (3000, 2000)]


@pytest.mark.parametrize("size", [224, (224, 160)])
@pytest.mark.parametrize("mode", MODES)
def test_the_pixels_of_a_photo_are_those_of_open_clip(coco128: Path, mode: str, size: int | tuple[int, int]) -> None:
    preprocess = open_clip.image_transform(size, is_train=False, resize_mode=mode)
    for file in sorted(coco128.glob("*.jpg"))[:8]:
        with Image.open(file) as photo:
            image = photo.convert("RGB")
        normalized = preprocess(image).permute(1, 2, 0).numpy()
        expected = (normalized * open_clip.OPENAI_DATASET_STD + open_clip.OPENAI_DATASET_MEAN) * 255
        assert np.abs(Geometry(preprocess).prepare(image) - expected).max() < 0.01


MEASURE = f"""
import gc, resource
import open_clip
from PIL import Image
from imgsearch.encoder.geometry import Geometry
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
transforms = [open_clip.image_transform(224, is_train=False, resize_mode=mode) for mode in {MODES}]
for size in {SIZES}:
    image = Image.new("RGB", size)
    before = peak()
    for transform in transforms:
        assert Geometry(transform).prepare(image).shape == (224, 224, 3)
    print(peak() - before)
"""


def test_an_image_of_any_shape_is_scaled_in_little_memory() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert max(map(int, done.stdout.split())) < 200_000, "KiB"
