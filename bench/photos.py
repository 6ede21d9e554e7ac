"""Synthetic photos that cost a JPEG decoder and a disk as much as real photos."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

SMALL = (500, 375)
LARGE = (2000, 1500)
QUALITY = 90


def photo(seed: int, size: tuple[int, int]) -> bytes:
    """A JPEG of `size` (width, height): a background, a few objects with edges, and a texture.

    Amplitudes fall with frequency as in photographs (1/f), and colour varies less than brightness."""
    random = np.random.default_rng(seed)
    scene = Image.fromarray(_bytes(_background(random, size)))
    draw = ImageDraw.Draw(scene)
    for _ in range(int(random.integers(6, 14))):
        _object(draw, random, size)
    scene = scene.filter(ImageFilter.GaussianBlur(min(size) / 500))  # no lens draws an edge of one pixel
    texture = 14 * _noise(random, size)[..., None] + 4 * np.stack([_noise(random, size) for _ in range(3)], axis=-1)
    sink = io.BytesIO()
    Image.fromarray(_bytes(np.asarray(scene) + texture)).save(sink, "JPEG", quality=QUALITY)
    return sink.getvalue()


def folder(parent: Path, count: int, size: tuple[int, int], *, distinct: int | None = None) -> Path:
    """A folder of `count` photos. `distinct` of them differ, and the others are further links to them. Default: all."""
    distinct = distinct or count
    originals = parent / f"{size[0]}x{size[1]}"
    originals.mkdir(parents=True, exist_ok=True)
    for seed in range(distinct):
        file = originals / f"{seed:05d}.jpg"
        if not file.exists():
            partial = file.with_suffix(".partial")
            partial.write_bytes(photo(seed, size))
            partial.replace(file)
    links = parent / f"{size[0]}x{size[1]}-{count}-of-{distinct}"
    links.mkdir(exist_ok=True)
    for number in range(count):
        file = links / f"{number:06d}.jpg"
        if not file.exists():
            os.link(originals / f"{number % distinct:05d}.jpg", file)
    return links


def _background(random: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float32]:
    """A gradient between two colours, in some direction."""
    width, height = size
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)
    angle = random.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * x[None, :] + np.sin(angle) * y[:, None]) / 2.83 + 0.5
    first, last = random.uniform(40, 215, (2, 3))
    return np.asarray(first + slope[..., None] * (last - first), np.float32)


def _object(draw: ImageDraw.ImageDraw, random: np.random.Generator, size: tuple[int, int]) -> None:
    extent = random.uniform(0.08, 0.35, 2) * min(size)
    left, top = random.uniform(0, 1, 2) * size - extent / 2
    box = (left, top, left + extent[0], top + extent[1])
    colour = tuple(int(value) for value in random.uniform(20, 235, 3))
    if random.random() < 0.5:
        draw.ellipse(box, fill=colour)
    else:
        draw.polygon(
            [(left + x * extent[0], top + y * extent[1]) for x, y in random.uniform(0, 1, (5, 2))], fill=colour
        )


def _noise(random: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float32]:
    """1/f noise with a standard deviation of 1."""
    width, height = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None, :] * width)
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(random.standard_normal((height, width))) / frequency**1.1
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (height, width))
    return np.asarray(noise / noise.std(), np.float32)


def _bytes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(values, 0, 255), np.uint8)
