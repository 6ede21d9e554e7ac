"""The file with the texts of a shard."""

from __future__ import annotations

import numpy as np
import pytest

from imgsearch.runs import texts
from imgsearch.runs.digests import Damaged
from imgsearch.runs.texts import Text

NAME = "runs/r1/shards/00000/texts.parquet"
TEXTS = [Text("ein Hund", "caption"), Text("a photo of a 猫", "label"), Text("a street", "everyday")]
VECTORS = np.eye(3, 4, dtype=np.float32)


def test_texts_are_read_with_their_vectors() -> None:
    read = texts.from_bytes(texts.to_bytes(TEXTS, VECTORS), NAME, dim=4)
    assert [*read] == ["ein Hund", "a photo of a 猫", "a street"]
    assert np.stack([*read.values()]).tolist() == VECTORS.tolist()


@pytest.mark.parametrize("data", [b"PAR1", texts.to_bytes(TEXTS, VECTORS[:, :3])], ids=["cut", "of another model"])
def test_another_file_is_damaged(data: bytes) -> None:
    with pytest.raises(Damaged, match=r"00000/texts\.parquet is damaged"):
        texts.from_bytes(data, NAME, dim=4)
