"""Names of metadata in Chroma's dialect."""

from __future__ import annotations

import pytest

from imgsearch.stores.chroma_dialect import from_chroma, to_chroma


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("likes", "likes"),
        ("#likes", "\\#likes"),
        ("$price", "\\$price"),
        ("_key", "\\_key"),
        ("_", "\\_"),
        ("", "\\"),
        ("\\", "\\\\"),
        ("chroma:document", "\\chroma:document"),
        ("a_#$b", "a_#$b"),
    ],
)
def test_only_a_name_that_chroma_refuses_or_that_is_ours_is_escaped(name: str, stored: str) -> None:
    assert to_chroma({name: 1}, {"key": "a.jpg", "width": 3}) == {stored: 1, "_": '{"key":"a.jpg","width":3}'}
    assert from_chroma({stored: 1, "_": '{"key":"a.jpg","width":3}'}) == ({name: 1}, {"key": "a.jpg", "width": 3})


def test_records_of_earlier_versions_are_read() -> None:
    """They stored `#likes` as `likes`, and `chroma:x` and the internal fields as today."""
    stored = {"likes": 5, "\\chroma:x": 1, "_key": "a.jpg", "_run": "r1", "_width": 3}
    assert from_chroma(stored) == ({"likes": 5, "chroma:x": 1}, {"key": "a.jpg", "run": "r1", "width": 3})
