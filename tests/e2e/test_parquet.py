"""Parquet files with image bytes, from the command to the picture that a search shows."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.conftest import DEMO_MODEL
from tests.programs import controller, serving

FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}


def jpeg(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(coarse).resize((160, 120)).save(sink, "JPEG")
    return sink.getvalue()


def test_rows_are_indexed_with_their_columns_and_shown(tmp_path: Path) -> None:
    images = [{"bytes": jpeg(seed), "path": f"{seed}.jpg"} for seed in range(30)]
    images[7] = {"bytes": b"<html>", "path": "7.jpg"}
    table = pa.table({"image": images, "label": [seed % 2 for seed in range(30)], "n": list(range(30))})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "train.parquet", row_group_size=8)
    home = tmp_path / "home"
    pattern = str(tmp_path / "data" / "*.parquet")
    completed = controller(
        "run-pipeline", pattern, "--local", "--home", home, "--model", DEMO_MODEL, "--shard-size", "15"
    )
    assert completed.returncode == 0, completed.stderr
    assert "29 images searchable, 1 could not be used" in completed.stdout
    assert "train.parquet#7,decode," in controller("report", "--bad", "--home", home).stdout
    with serving(home) as client:
        files = {"file": images[12]["bytes"]}
        (hit,) = client.post("/v1/search/image", files=files, data={"k": "1"}).json()["results"]
        assert hit["uri"].endswith("train.parquet#12")
        assert hit["metadata"] == {"label": "cat", "n": 12}
        assert client.get(hit["image"]).content == images[12]["bytes"]
        assert client.get(hit["thumbnail"]).is_success
