"""The columns of a Parquet file: which one holds the images, and the metadata in the others."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgsearch.errors import UsageError
from imgsearch.sources import open_source
from imgsearch.sources.folder import LocalFiles
from imgsearch.sources.parquet import ParquetSource
from tests.imgsearch.sources.parquet_files import IMAGE, all_images, pixels, write


def metadata(path: Path, row: int = 0) -> dict[str, Any]:
    return dict(all_images(open_source(str(path)))[row].metadata)


class TestImageColumn:
    @pytest.mark.parametrize("data_type", [pa.binary(), pa.large_binary(), pa.binary_view()])
    def test_may_hold_plain_bytes(self, tmp_path: Path, data_type: pa.DataType) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"jpg": pa.array([b"x", b"y"], data_type), "label": [1, 2]}), path)
        assert [image.load().data for image in all_images(open_source(str(path)))] == [b"x", b"y"]

    def test_is_the_struct_where_there_are_bytes_besides(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", rows=1, hash=pa.array([b"\x00"]))
        [image] = all_images(open_source(str(path)))
        assert image.load().data == pixels(0)
        assert image.metadata == {}

    def test_is_the_one_that_the_features_call_an_image(self, tmp_path: Path) -> None:
        audio = pa.array([{"bytes": b"sound", "path": None}], IMAGE)
        features = {"image": {"_type": "Image"}, "audio": {"_type": "Audio"}}
        path = write(tmp_path / "a.parquet", rows=1, features=features, audio=audio)
        assert [image.load().data for image in all_images(open_source(str(path)))] == [pixels(0)]

    def test_has_to_be_named_where_there_are_two(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", rows=1, mask=pa.array([{"bytes": b"m", "path": None}], IMAGE))
        with pytest.raises(UsageError, match=r"image, mask .*\?column="):
            list(open_source(str(path)).items())
        assert [image.load().data for image in all_images(open_source(f"{path}?column=mask"))] == [b"m"]

    def test_that_is_none_is_a_usage_error_that_names_the_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"url": ["https://…"], "label": [1]}), path)
        with pytest.raises(UsageError, match=r"a\.parquet.* url, label"):
            list(open_source(str(path)).items())
        with pytest.raises(UsageError, match=r"'url'.* url, label"):
            list(open_source(f"{path}?column=url").items())


class TestMetadata:
    def test_is_what_the_other_columns_hold(self, tmp_path: Path) -> None:
        time = datetime.datetime(2024, 2, 3, 4, 5, 6)
        dotted: dict[str, Any] = {"a.b": [True]}
        path = write(
            tmp_path / "a.parquet",
            rows=1,
            **dotted,
            text=["Katze"],
            number=pa.array([3], pa.uint8()),
            score=[0.5],
            none=pa.array([None], pa.string()),
            tags=[["a", "b"]],
            box=[{"x": 1}],
            time=pa.array([time]),
            nanoseconds=pa.array([1], pa.timestamp("ns", "UTC")),
            day=pa.array([time.date()]),
            word=pa.array(["red"]).dictionary_encode(),
        )
        assert metadata(path) == {
            "text": "Katze",
            "number": 3,
            "score": 0.5,
            "tags": ["a", "b"],
            "box": '{"x": 1}',
            "time": "2024-02-03 04:05:06.000000",
            "nanoseconds": "1970-01-01 00:00:00.000000001Z",
            "day": "2024-02-03",
            "word": "red",
            "a.b": True,
        }

    @pytest.mark.parametrize(
        "name", ["", "#likes", "$price", "_a", "a'b\"c", "\x1b[31m", "e\u0301", "x" * 1000], ids=ascii
    )
    def test_has_the_names_of_the_columns(self, tmp_path: Path, name: str) -> None:
        assert metadata(write(tmp_path / "a.parquet", rows=1, **{name: [5], "a": [4]})) == {name: 5, "a": 4}

    @pytest.mark.parametrize(
        ("names", "sentence"),
        [
            (["label", "label"], "two values with the name 'label': rename the column"),
            (["x" * 1001], r"1,000 characters, 'x+'…: rename the column"),
        ],
        ids=["twice", "long"],
    )
    def test_with_names_that_cannot_be_used_is_refused_with_the_file(
        self, tmp_path: Path, names: list[str], sentence: str
    ) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table([[b"x"], *[["cat"]] * len(names)], names=["image", *names]), path)
        with pytest.raises(UsageError, match=f"a.parquet has .*{sentence}"):
            list(open_source(str(path)).items())

    def test_writes_the_names_of_class_labels(self, tmp_path: Path) -> None:
        label = {"names": ["cat", "dog"], "_type": "ClassLabel"}
        path = write(
            tmp_path / "a.parquet",
            rows=2,
            features={"label": label, "labels": {"feature": label, "_type": "List"}},
            label=[1, -1],
            labels=[[0, 1], []],
        )
        assert metadata(path) == {"label": "dog", "labels": ["cat", "dog"]}
        assert metadata(path, 1) == {}

    @pytest.mark.parametrize("schema_metadata", [b"{", b"[]", b'{"info": null}', b'{"info": {"features": [1]}}'])
    def test_survives_features_that_are_none(self, tmp_path: Path, schema_metadata: bytes) -> None:
        path = tmp_path / "a.parquet"
        table = pa.table({"image": [b"x"], "label": [1]}).replace_schema_metadata({b"huggingface": schema_metadata})
        pq.write_table(table, path)
        assert metadata(path) == {"label": 1}

    def test_takes_features_from_the_place_where_no_file_has_them(self, tmp_path: Path) -> None:
        class Declared(LocalFiles):
            def features(self) -> dict[str, Any]:
                return {"label": {"names": ["cat"], "_type": "ClassLabel"}}

        source = ParquetSource("fake", Declared(str(write(tmp_path / "a.parquet", rows=1, label=[0]))))
        assert [image.metadata for image in all_images(source)] == [{"label": "cat"}]
