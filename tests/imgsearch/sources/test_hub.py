"""A dataset of a hub that runs here, asked by the real libraries.

huggingface_hub reads HF_ENDPOINT when it is imported, so what talks to the hub does so in a process of its own.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any
from unittest.mock import patch

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgsearch.errors import ImgsearchError, NotFound, PermanentError, TemporaryError, UsageError
from imgsearch.sources import Item, open_source
from imgsearch.sources.hub import HubFiles, _translated
from tests.hub import TOKEN, Access, Hub, running_hub

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
LABEL = {"names": ["cat", "dog"], "_type": "ClassLabel"}
NAME = "acme/pets"
TEXTS = {"train.csv": b"text\nhello\n"}


def parquet(first: int, rows: int, *, features: dict[str, Any] | None = None, bytes_each: int = 10) -> bytes:
    """A file of images `0`, `1`, … in row groups of two, with a label beside each."""
    numbers = range(first, first + rows)
    table = pa.table(
        {
            "image": pa.array([{"bytes": b"%d" % n * bytes_each, "path": None} for n in numbers], IMAGE),
            "label": [n % 2 for n in numbers],
        }
    )
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=2, compression="none", use_dictionary=False)
    return sink.getvalue()


@dataclass
class Listing:
    """What a process that uses the source sees of it."""

    items: list[Item]
    images: list[tuple[str, bytes, dict[str, Any]]]


def list_source(uri: str, items: list[Item] | None, token: str) -> Listing:
    os.environ["HF_TOKEN"] = token
    source = open_source(uri)
    items = items or sorted(source.items(), key=lambda item: (item.key, item.unit))
    return Listing(items, [(image.key, image.load().data, dict(image.metadata)) for image in source.images(items)])


def read_image(uri: str, key: str) -> bytes:
    """As the searcher does it, which does not have `datasets`."""
    with patch.dict(sys.modules, {"datasets": None}):
        return open_source(uri).read(key)


class Client:
    """Another process, whose hub is ours, with an empty cache and no token."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def list(self, uri: str, items: list[Item] | None = None, *, token: str = "") -> Listing:
        return self._pool.submit(list_source, uri, items, token).result()

    def read(self, uri: str, key: str) -> bytes:
        return self._pool.submit(read_image, uri, key).result()


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def client(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as environ, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        environ.setenv("HF_ENDPOINT", hub.url)
        environ.setenv("HF_HOME", str(tmp_path_factory.mktemp("cache")))
        yield Client(pool)


@pytest.fixture(autouse=True)
def empty_hub(hub: Hub) -> None:
    hub.datasets.clear()
    hub.requests.clear()


class TestParquetDataset:
    def test_lists_the_row_groups_of_its_split_at_one_commit(self, hub: Hub, client: Client) -> None:
        files = {
            "README.md": b"# Pets\n",
            "data/train-00000-of-00002.parquet": parquet(0, 3, features={"label": LABEL}),
            "data/train-00001-of-00002.parquet": parquet(3, 1),
            "data/test-00000-of-00001.parquet": parquet(90, 1),
        }
        commit = hub.push(NAME, files)
        listing = client.list(f"hf://datasets/{NAME}?split=train&column=image")
        assert [(item.key, item.unit, item.first, item.images) for item in listing.items] == [
            ("data/train-00000-of-00002.parquet", 0, 0, 2),
            ("data/train-00000-of-00002.parquet", 1, 2, 1),
            ("data/train-00001-of-00002.parquet", 0, 0, 1),
        ]
        assert all(item.etag.endswith(f"@{commit}") for item in listing.items)
        assert listing.images == [
            ("data/train-00000-of-00002.parquet#0", b"0" * 10, {"label": "cat"}),
            ("data/train-00000-of-00002.parquet#1", b"1" * 10, {"label": "dog"}),
            ("data/train-00000-of-00002.parquet#2", b"2" * 10, {"label": "cat"}),
            ("data/train-00001-of-00002.parquet#0", b"3" * 10, {"label": 1}),
        ]

    def test_a_push_between_plan_and_embedding_changes_nothing(self, hub: Hub, client: Client) -> None:
        uri = f"hf://datasets/{NAME}?split=train"
        hub.push(NAME, {"train.parquet": parquet(0, 2), "more/train.parquet": parquet(7, 1)})
        listing = client.list(uri)
        hub.push(NAME, {"train.parquet": parquet(50, 2), "more/train.parquet": parquet(7, 1)})
        assert client.list(uri, listing.items).images == listing.images

    def test_an_etag_changes_with_the_file_and_not_with_the_commit(self, hub: Hub, client: Client) -> None:
        uri = f"hf://datasets/{NAME}?split=train"
        etags = []
        for changing in (parquet(0, 2), parquet(50, 2)):
            hub.push(NAME, {"data/train-0.parquet": parquet(7, 1), "data/train-1.parquet": changing})
            etags.append([item.etag.split("@") for item in client.list(uri).items])
        [[first_etag, changed_etag], [same_etag, new_etag]] = etags
        assert (first_etag[0] == same_etag[0], changed_etag[0] == new_etag[0]) == (True, False)
        assert first_etag[1] != same_etag[1]

    def test_names_labels_as_its_page_declares_them(self, hub: Hub, client: Client) -> None:
        page = b"""---
dataset_info:
  features:
  - {name: image, dtype: image}
  - name: label
    dtype: {class_label: {names: {'0': cat, '1': dog}}}
  splits: [{name: train}]
---
"""
        hub.push(NAME, {"README.md": page, "data/train-0.parquet": parquet(0, 2)})
        listing = client.list(f"hf://datasets/{NAME}?split=train")
        assert [metadata for _, _, metadata in listing.images] == [{"label": "cat"}, {"label": "dog"}]

    def test_reads_ranges_and_not_whole_files(self, hub: Hub, client: Client) -> None:
        data = parquet(0, 20, bytes_each=1_000_000)
        hub.push(NAME, {"data/train-0.parquet": data})
        hub.sent_bytes = 0
        item = Item("data/train-0.parquet", 1, images=2, unit=9, first=18)
        [*_, last] = client.list(f"hf://datasets/{NAME}?split=train", [item]).images
        assert last[0] == "data/train-0.parquet#19"
        assert len(data) > 30_000_000
        assert hub.sent_bytes < 6_000_000

    def test_chooses_the_only_split_where_none_is_named(self, hub: Hub, client: Client) -> None:
        hub.push(NAME, {"data/train-0.parquet": parquet(0, 1)})
        assert len(client.list(f"hf://datasets/{NAME}").images) == 1

    def test_chooses_a_config(self, hub: Hub, client: Client) -> None:
        page = b"""---
configs:
- {config_name: big, data_files: b.parquet}
- {config_name: small, data_files: s.parquet}
---
"""
        hub.push(NAME, {"README.md": page, "b.parquet": parquet(0, 2), "s.parquet": parquet(9, 1)})
        listing = client.list(f"hf://datasets/{NAME}?config=small&split=train")
        assert [key for key, _, _ in listing.images] == ["s.parquet#0"]
        for config in ("", "&config=none"):
            with pytest.raises(UsageError, match=r"&config=.*'big', 'small'"):
                client.list(f"hf://datasets/{NAME}?split=train{config}")

    def test_chooses_a_revision(self, hub: Hub, client: Client) -> None:
        hub.push(NAME, {"data/train-0.parquet": parquet(9, 1)}, branch="v1/old")
        hub.push(NAME, {"data/train-0.parquet": parquet(0, 2)})
        listing = client.list(f"hf://datasets/{NAME}?split=train&revision=v1/old")
        assert [data for _, data, _ in listing.images] == [b"9" * 10]

    def test_serves_one_image_by_its_key(self, hub: Hub, client: Client) -> None:
        hub.push(NAME, {"data/train-0.parquet": parquet(0, 5)})
        uri = f"hf://datasets/{NAME}?split=train"
        assert client.read(uri, "data/train-0.parquet#3") == b"3" * 10
        for key in ("data/train-0.parquet#5", "data/none.parquet#0", "../../other/train.parquet#0", "README.md#0"):
            with pytest.raises(NotFound):
                client.read(uri, key)


class TestOtherDatasets:
    def test_are_read_from_the_branch_of_converted_files(self, hub: Hub, client: Client) -> None:
        hub.push(NAME, TEXTS)
        converted = {
            "default/train/0000.parquet": parquet(0, 2),
            "default/test/0000.parquet": parquet(9, 1),
            "other/train/0000.parquet": parquet(9, 1),
        }
        commit = hub.push(NAME, converted, branch="refs/convert/parquet")
        uri = f"hf://datasets/{NAME}?split=train"
        listing = client.list(uri)
        assert [key for key, _, _ in listing.images] == ["default/train/0000.parquet#0", "default/train/0000.parquet#1"]
        assert listing.items[0].etag.endswith(f"@{commit}")
        assert client.read(uri, "default/train/0000.parquet#1") == b"1" * 10

    def test_that_were_converted_in_part_are_not_taken_for_whole(self, hub: Hub, client: Client) -> None:
        hub.push(NAME, TEXTS)
        hub.push(NAME, {"default/partial-train/0000.parquet": parquet(0, 2)}, branch="refs/convert/parquet")
        with pytest.raises(UsageError, match=r"'train'.* partial-train"):
            client.list(f"hf://datasets/{NAME}?split=train")

    def test_that_were_not_converted_are_a_usage_error(self, hub: Hub, client: Client) -> None:
        hub.push(NAME, TEXTS)
        with pytest.raises(UsageError, match=f"{NAME}.*Parquet"):
            client.list(f"hf://datasets/{NAME}?split=train")

    def test_that_are_made_by_a_script_are_read_from_the_converted_files(self, hub: Hub, client: Client) -> None:
        hub.push(NAME, {"pets.py": b"print('not run')"})
        hub.push(NAME, {"default/train/0000.parquet": parquet(0, 1)}, branch="refs/convert/parquet")
        assert len(client.list(f"hf://datasets/{NAME}?split=train").images) == 1

    def test_that_are_empty_are_a_usage_error(self, hub: Hub, client: Client) -> None:
        hub.push(NAME, {"README.md": b"# Pets\n"})
        with pytest.raises(UsageError, match=f"{NAME}.*Parquet"):
            client.list(f"hf://datasets/{NAME}?split=train")


class TestRefusals:
    @pytest.mark.parametrize(
        ("access", "error", "message"),
        [
            ("gated", UsageError, "acme/pets is gated.* HF_TOKEN"),
            ("private", UsageError, "acme/pets .*private.* HF_TOKEN"),
            ("files down", TemporaryError, "acme/pets"),
            ("down", TemporaryError, "acme/pets: .*501"),
        ],
    )
    def test_say_what_to_do(
        self, hub: Hub, client: Client, access: Access, error: type[ImgsearchError], message: str
    ) -> None:
        hub.push(NAME, {"data/train-0.parquet": parquet(0, 1)}, access=access)
        with pytest.raises(error, match=message):
            client.list(f"hf://datasets/{NAME}?split=train")

    def test_end_with_the_right_token(self, hub: Hub, client: Client) -> None:
        accesses: list[Access] = ["gated", "private"]
        for access in accesses:
            hub.datasets.clear()
            hub.push(NAME, {"data/train-0.parquet": parquet(0, 1)}, access=access)
            assert len(client.list(f"hf://datasets/{NAME}?split=train", token=TOKEN).images) == 1

    def test_of_a_commit_that_is_gone_are_no_fault_of_the_images(self, hub: Hub, client: Client) -> None:
        hub.push(NAME, {"data/train-0.parquet": parquet(0, 1)})
        item = Item("data/train-0.parquet", 1, f"blob@{'0' * 40}", images=1)
        with pytest.raises(PermanentError, match=r"acme/pets .* new --run"):
            client.list(f"hf://datasets/{NAME}?split=train", [item])

    def test_of_a_pod_without_the_token_are_no_fault_of_the_images(self, hub: Hub, client: Client) -> None:
        item = Item("data/train-0.parquet", 1, "blob@main", images=1)
        accesses: list[Access] = ["gated", "private"]
        for access in accesses:
            hub.datasets.clear()
            hub.push(NAME, {"data/train-0.parquet": parquet(0, 1)}, access=access)
            with pytest.raises(UsageError, match="HF_TOKEN"):
                client.list(f"hf://datasets/{NAME}?split=train", [item])

    @pytest.mark.parametrize("page", [b"---\nconfigs: [\n---\n", b"---\nconfigs: 7\n---\n"])
    def test_of_a_page_that_is_damaged_say_so(self, hub: Hub, client: Client, page: bytes) -> None:
        hub.push(NAME, {"README.md": page, "data/train-0.parquet": parquet(0, 1)})
        with pytest.raises(UsageError, match=r"acme/pets .*&config="):
            client.list(f"hf://datasets/{NAME}?split=train")

    def test_name_the_splits_and_revisions_there_are(self, hub: Hub, client: Client) -> None:
        hub.push(NAME, {"data/train-0.parquet": parquet(0, 1), "data/test-0.parquet": parquet(0, 1)})
        for query, message in {
            "": r"more than one split.* test, train .*\?split=",
            "?split=val": r"split 'val'.* test, train",
            "?split=train&revision=v9": r"revision 'v9'",
        }.items():
            with pytest.raises(UsageError, match=message):
                client.list(f"hf://datasets/{NAME}{query}")

    @pytest.mark.parametrize(
        ("uri", "message"),
        [
            ("hf://datasets/mnist?split=train", "hf://datasets/OWNER/NAME"),
            ("hf://models/acme/pets", "hf://models/acme/pets"),
            ("hf://datasets/acme/pets?splt=train", "'splt'.* column, config, revision, split"),
        ],
    )
    def test_of_a_uri_need_no_hub(self, uri: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            open_source(uri)

    def test_of_a_hub_that_does_not_answer_are_temporary(self) -> None:
        with pytest.raises(TemporaryError, match=r"acme/pets: no route$"), _translated(NAME):
            raise httpx2.ConnectError("no route\nto host")


def test_the_uri_is_recorded_as_it_was_given() -> None:
    uri = f"hf://datasets/{NAME}?split=train&column=image"
    source = open_source(uri)
    assert source.uri == uri
    assert source.skipped == Counter()
    assert isinstance(source._files, HubFiles)  # type: ignore[attr-defined]
