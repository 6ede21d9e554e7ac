"""Two indexes with a model each."""

from __future__ import annotations

import pytest

from tests.fakes import FakeEncoder
from tests.searcher.library import Library


@pytest.fixture
def two_indexes(library: Library) -> Library:
    """Two indexes with models of their own: photos has a red and a blue image, sketches a green one."""
    other_encoder = FakeEncoder(model="ViT-B-32/other")
    library.encoders[other_encoder.model] = other_encoder
    library.publish({"red.png": "red", "blue.png": "blue"})
    library.publish({"green.png": "green"}, index="sketches", encoder=other_encoder)
    return library
