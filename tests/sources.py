"""What tests ask of any source: which keys it lists, and why it refuses an image."""

from __future__ import annotations

import pytest

from imgsearch.errors import BadImage
from imgsearch.sources import Item, Source


def keys(source: Source) -> list[str]:
    return sorted(item.key for item in source.items())


def refusal(source: Source, key: str, etag: str = "listed") -> str:
    """Why the image cannot be loaded."""
    [image] = source.images([Item(key, size=1, etag=etag)])
    with pytest.raises(BadImage) as caught:
        image.load()
    assert caught.value.stage == "read"
    return caught.value.reason
