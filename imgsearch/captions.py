"""The captions and the labels in the metadata of images. They are texts that people may search for. No I/O."""

from __future__ import annotations

import hashlib
from typing import Any

LABELS = ("label", "labels", "class", "category", "categories", "tags")
CAPTIONS = ("caption", "captions", "text", "description", "title")
"""The usual names of these fields. The first that exists is used, unless a setting names one."""
PROMPT = "a photo of a {}"
"""The query for a label, as CLIP's authors write it (Radford et al. 2021, https://arxiv.org/abs/2103.00020, 3.1.4)."""


def texts_in(value: Any) -> list[str]:
    """The texts in the value of a field: a text, or a list of texts. Other values have none."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str) and item]


def random_order(text: str) -> bytes:
    """A key for sorting: the first texts in its order are a random sample, and always the same one."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
