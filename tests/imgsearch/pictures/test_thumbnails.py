from __future__ import annotations

import io

import pytest
from PIL import Image

from imgsearch.pictures import thumbnail


@pytest.mark.parametrize(("size", "expected"), [((1000, 500), (256, 128)), ((30, 20), (30, 20)), ((5000, 3), (256, 1))])
def test_a_thumbnail_keeps_the_ratio_and_never_grows(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = Image.open(io.BytesIO(thumbnail(Image.new("RGB", size), 256)))
    assert image.size == expected
    assert image.format == "WEBP"
