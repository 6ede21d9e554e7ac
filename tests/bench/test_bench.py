"""The benchmarks' photos are like photos, and the page says what the results say."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from bench import photos, results


@pytest.mark.parametrize("size", [photos.SMALL, photos.LARGE])
def test_a_photo_has_as_many_bytes_a_pixel_as_a_real_one(size: tuple[int, int]) -> None:
    data = photos.photo(seed=1, size=size)
    assert Image.open(io.BytesIO(data)).size == size
    assert 0.15 < len(data) / (size[0] * size[1]) < 0.35


def test_photos_differ_and_are_the_same_each_time() -> None:
    assert photos.photo(1, (64, 48)) == photos.photo(1, (64, 48)) != photos.photo(2, (64, 48))


def test_the_page_is_made_of_the_results() -> None:
    assert results.PAGE.read_text() == results.page(), "run `python -m bench` instead of editing docs/benchmarks.md"


@pytest.mark.parametrize(
    ("value", "is_met"),
    [(0.95, True), (0.9, True), (0.89, False)],
)
def test_a_target_is_met_or_missed(value: float, is_met: bool) -> None:
    assert results.Figure("case", "ratio", value, at_least=0.9).met is is_met
