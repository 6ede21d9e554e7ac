"""Where images lie on the map, and what they are shown with."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from imgsearch.vectors import Vectors
from searcher.ingest import projection
from searcher.ingest.projection import TILE


def vectors(count: int, *, groups: int = 1, dim: int = 16) -> Vectors:
    """Unit vectors in tight groups; the first belongs to group 0, the second to group 1 and so on."""
    random = np.random.default_rng(0)
    values = random.normal(size=(groups, dim))[np.arange(count) % groups] + random.normal(size=(count, dim)) * 0.1
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("count", [1, 2, 3, 9, 10, 11, 100])
def test_any_number_of_images_fills_the_plane(count: int) -> None:
    positions = projection.positions(vectors(count))
    assert positions.shape == (count, 2)
    assert positions.min() >= 0
    assert positions.max() <= 1
    assert np.ptp(positions, axis=0).max() == pytest.approx(1 if count > 1 else 0)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_images_that_are_all_one_lie_in_the_middle(count: int) -> None:
    assert projection.positions(np.repeat(vectors(1), count, axis=0)) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("distinct", [2, 12])
def test_many_copies_of_few_images_are_no_trouble(distinct: int) -> None:
    positions = projection.positions(np.tile(vectors(distinct), (20, 1)))
    assert np.isfinite(positions).all()
    assert np.ptp(positions, axis=0).max() == pytest.approx(1)


@pytest.mark.parametrize("count", [8, 90])
def test_like_lies_beside_like(count: int) -> None:
    positions = projection.positions(vectors(count, groups=2))
    first, second = positions[0::2], positions[1::2]
    distance = np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))
    for group in (first, second):
        assert np.linalg.norm(group - group.mean(axis=0), axis=1).max() < distance


def test_the_same_images_give_the_same_map() -> None:
    assert np.array_equal(projection.positions(vectors(60)), projection.positions(vectors(60)))


def test_both_directions_have_one_scale() -> None:
    line = np.zeros((5, 4), np.float32)
    line[:, 0] = np.arange(5)
    line[0, 1] = 0.4
    positions = projection.positions(line)
    assert np.ptp(positions[:, 1]) < 0.2
    assert positions[:, 1].max() + positions[:, 1].min() == pytest.approx(1)


def plain_image(colour: str, size: tuple[int, int]) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", size, colour).save(sink, "WEBP", lossless=True)
    return sink.getvalue()


def test_a_tile_is_the_middle_of_a_thumbnail() -> None:
    image = Image.new("RGB", (96, 48), "red")
    image.paste("blue", (24, 0, 72, 48))
    sink = io.BytesIO()
    image.save(sink, "WEBP", lossless=True)
    assert projection.tile(sink.getvalue()).getcolors() == [(TILE * TILE, (0, 0, 255))]


@pytest.mark.parametrize("size", [(8, 6), (256, 3)])
def test_a_thumbnail_of_any_size_makes_a_tile(size: tuple[int, int]) -> None:
    assert projection.tile(plain_image("red", size)).size == (TILE, TILE)


def test_tiles_are_in_rows_of_a_square() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255)]
    data = projection.sprite([Image.new("RGB", (TILE, TILE), colour) for colour in colours])
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "WEBP"
        assert image.size == (3 * TILE, 2 * TILE)
        for number, colour in enumerate(colours):
            centre = (number % 3 * TILE + TILE // 2, number // 3 * TILE + TILE // 2)
            assert image.convert("RGB").getpixel(centre) == pytest.approx(colour, abs=12)


def test_the_largest_map_is_a_webp_that_can_be() -> None:
    assert projection.columns(projection.IMAGES) == 55
    assert projection.columns(projection.IMAGES) * TILE <= 16_383
