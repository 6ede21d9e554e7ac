"""Digests of the files of a run folder, by which a reader notices that a file is not as it was written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from imgsearch.errors import PermanentError


class Damaged(PermanentError):
    """A file of a run folder is not as it was written."""

    def __init__(self, name: str, problem: str) -> None:
        """`name`: the key of the object. `problem`: a phrase that follows the name."""
        super().__init__(f"{name} {problem}: restore it from a backup, or index again with a new --run")
        self.sentence = f"{name} {problem}"


def digest(data: bytes | memoryview) -> str:
    """The SHA-256 of a file in hex, as `sha256sum` prints it."""
    return hashlib.sha256(data).hexdigest()


def file_name(key: str) -> str:
    """The name of an object within its folder, by which a document lists its digest."""
    return key.rpartition("/")[2]


def check(actual: str, digests: Mapping[str, str], name: str) -> None:
    """Raises Damaged if the object `name` has another digest than the one in `digests`. A file without a digest passes:
    an earlier version has written it."""
    expected = digests.get(file_name(name), actual)
    if expected != actual:
        raise Damaged(name, f"is damaged (its SHA-256 begins with {actual[:12]}, not with {expected[:12]})")
