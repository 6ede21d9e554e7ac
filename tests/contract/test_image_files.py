"""What image files must be as a source wherever they are kept: on a disk, or in a bucket."""

from __future__ import annotations

import shutil
from operator import itemgetter
from pathlib import Path
from typing import Protocol

import pytest

from imgsearch.errors import BadImage, NotFound, PermanentError, UsageError
from imgsearch.sources.files import MAX_REASONS, ImageFiles
from imgsearch.sources.folder import Folder
from imgsearch.sources.objects import Prefix
from imgsearch.storage import Storage
from tests.sources import keys, refusal

TREE = {
    "one.png": b"1",
    "a/b/two.JPeG": b"22",
    "a.png/three.tiff": b"333",
    "Köln 100%/ein bild.png": b"4444",
    "a+b&c/#1? [x] %20.png": b"55555",
    "notes.txt": b"x",
    "a/MORE.TXT": b"x",
    "a/README": b"x",
    ".DS_Store": b"x",
    "a/.hidden.png": b"x",
    ".thumbs/one.png": b"x",
    ".thumbs/deep/.er/two.png": b"x",
    "a/.thumbs/three.png": b"x",
    "metadata.csv": b"file_name,label\none.png,cat\n",
    "a/metadata.jsonl": b'{"file_name": "./b/two.JPeG", "year": 2024}\n\n{"file_name": "gone.png"}\n',
}
KEYS = ["Köln 100%/ein bild.png", "a+b&c/#1? [x] %20.png", "a.png/three.tiff", "a/b/two.JPeG", "one.png"]


class Medium(Protocol):
    """A tree to fill, and to look at as a source."""

    def write(self, key: str, data: bytes) -> None: ...

    def remove(self, folder: str) -> None:
        """Everything below `folder`."""

    def source(self) -> ImageFiles: ...


class DiskMedium:
    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, key: str, data: bytes) -> None:
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def remove(self, folder: str) -> None:
        shutil.rmtree(self._root / folder)

    def source(self) -> ImageFiles:
        return ImageFiles(Folder(str(self._root)))


class BucketMedium:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.write = storage.put

    def remove(self, folder: str) -> None:
        self._storage.delete(folder)

    def source(self) -> ImageFiles:
        return ImageFiles(Prefix(self._storage))


@pytest.fixture(params=["disk", "file", "s3"])
def medium(request: pytest.FixtureRequest, tmp_path: Path) -> Medium:
    """With images beside it, which are none of its own."""
    if request.param == "disk":
        parent: Medium = DiskMedium(tmp_path)
        medium: Medium = DiskMedium(tmp_path / "my photos")
    else:
        storage: Storage = request.getfixturevalue(f"{request.param}_storage")
        parent = BucketMedium(storage)
        medium = BucketMedium(Storage(f"{storage.uri}/my%20photos/"))
    for key in ("secret.png", "my photos2/secret.png", "my photos.png"):
        parent.write(key, b"secret")
    return medium


@pytest.fixture
def tree(medium: Medium) -> Medium:
    for key, data in TREE.items():
        medium.write(key, data)
    return medium


class TestListing:
    def test_finds_images_by_their_ending_with_their_sizes(self, tree: Medium) -> None:
        items = sorted(tree.source().items(), key=lambda item: item.key)
        assert [(item.key, item.size) for item in items] == [(key, len(TREE[key])) for key in KEYS]
        assert all(item.etag and "@" not in item.etag and '"' not in item.etag for item in items)
        assert {(item.images, item.unit, item.first) for item in items} == {(1, 0, 0)}
        assert [key for item in items for key in tree.source().image_keys(item)] == KEYS

    def test_counts_what_it_passes_over_once_however_often_it_lists(self, tree: Medium) -> None:
        source = tree.source()
        for _ in range(2):
            assert keys(source) == KEYS
            assert source.skipped == {
                ".txt files": 2,
                "files without an extension": 1,
                "hidden files": 2,
                "hidden folders": 2,
            }

    def test_the_count_stays_small_where_every_ending_is_another(self, medium: Medium) -> None:
        medium.write("one.png", b"1")
        for number in range(MAX_REASONS + 20):
            medium.write(f"file.x{number}", b"x")
        source = medium.source()
        assert keys(source) == ["one.png"]
        assert len(source.skipped) == MAX_REASONS + 1
        assert source.skipped["other files"] == 20

    def test_an_etag_changes_with_the_content_only(self, medium: Medium) -> None:
        medium.write("one.png", b"1")
        medium.write("two.png", b"2")
        etags = {item.key: item.etag for item in medium.source().items()}
        medium.write("one.png", b"other")
        new_etags = {item.key: item.etag for item in medium.source().items()}
        assert etags["one.png"] != new_etags["one.png"]
        assert etags["two.png"] == new_etags["two.png"]

    def test_no_images_is_a_usage_error(self, medium: Medium) -> None:
        medium.write("notes.txt", b"x")
        with pytest.raises(UsageError, match=r"(my photos|my%20photos)[^.]*$"):
            keys(medium.source())

    def test_parquet_files_without_images_are_explained(self, medium: Medium) -> None:
        medium.write("train.parquet", b"x")
        with pytest.raises(UsageError, match=r"/\*\.parquet"):
            keys(medium.source())


class TestMetadata:
    def test_is_by_item_key_with_names_relative_to_the_file(self, tree: Medium) -> None:
        source = tree.source()
        for _ in range(2):
            keys(source)
            assert sorted(source.metadata(), key=itemgetter(0)) == [
                ("a/b/two.JPeG", {"year": 2024}),
                ("a/gone.png", {}),
                ("one.png", {"label": "cat"}),
            ]

    def test_that_is_large_is_read_line_by_line(self, medium: Medium) -> None:
        rows = [f'{{"file_name": "{n:06}.png", "text": "{"ä" * 500}"}}\n' for n in range(3_000)]
        medium.write("one.png", b"1")
        medium.write("metadata.jsonl", "".join(rows).encode())
        source = medium.source()
        keys(source)
        assert [(key, len(values["text"])) for key, values in source.metadata()] == [
            (f"{n:06}.png", 500) for n in range(3_000)
        ]

    @pytest.mark.parametrize(
        ("name", "text", "mistake"),
        [
            ("metadata.jsonl", '{"file_name": "a.png"}\n{"file_name": ', "line 2, .*JSON"),
            ("metadata.csv", "file_name,label\na.png,cat\nb.png\n", "line 3, .*values"),
        ],
    )
    def test_that_is_wrong_is_named_by_file_and_line(self, medium: Medium, name: str, text: str, mistake: str) -> None:
        medium.write("sub/one.png", b"1")
        medium.write(f"sub/{name}", text.encode())
        source = medium.source()
        keys(source)
        with pytest.raises(UsageError, match=f"{source.uri}/sub/{name}, {mistake}"):
            list(source.metadata())


class TestImages:
    def test_are_in_the_order_of_the_items_without_the_first(self, tree: Medium) -> None:
        source = tree.source()
        items = sorted(source.items(), key=lambda item: item.key)
        assert [(image.key, image.load().data) for image in source.images(items)] == [(key, TREE[key]) for key in KEYS]
        assert [image.key for image in source.images(items, skip=3)] == KEYS[3:]

    def test_that_are_empty_or_gone_say_so(self, medium: Medium) -> None:
        medium.write("empty.png", b"")
        medium.write("sub/one.png", b"1")
        source = medium.source()
        assert keys(source) == ["empty.png", "sub/one.png"]
        medium.remove("sub")
        assert refusal(source, "empty.png") == "the file is empty"
        assert "deleted" in refusal(source, "sub/one.png")

    @pytest.mark.parametrize(
        ("key", "reason"),
        [
            ("gone.png", "named in the metadata, but the file does not exist"),
            ("../../etc/passwd.png", "named in the metadata, but the file does not exist"),
            ("a" * 5000 + ".png", "named in the metadata, but the file does not exist"),
            ("notes.txt", "named in the metadata, but its name has no image extension"),
        ],
    )
    def test_that_only_the_metadata_names_say_so(self, tree: Medium, key: str, reason: str) -> None:
        assert refusal(tree.source(), key, etag="") == reason

    def test_that_are_all_gone_are_no_bad_images(self, tree: Medium) -> None:
        source = tree.source()
        items = list(source.items())
        images = list(source.images(items))
        tree.remove("")
        with pytest.raises(PermanentError):
            images[0].load()
        with pytest.raises(PermanentError):
            next(source.images(items))


class TestReadByKey:
    def test_gives_the_bytes(self, tree: Medium) -> None:
        source = tree.source()
        assert [source.read(key) for key in KEYS] == [TREE[key] for key in KEYS]

    @pytest.mark.parametrize(
        "key",
        [
            "two.png",
            "one.png/x.png",
            "../one.png",
            "../secret.png",
            "a/../one.png",
            "a/../../secret.png",
            "./one.png",
            "a//b/two.JPeG",
            "one.png/",
            "/one.png",
            "/etc/hostname.png",
            "",
            ".",
            "..",
            "a",
            "a.png",
            "a/.hidden.png",
            ".thumbs/one.png",
            "a/.thumbs/three.png",
            "notes.txt",
            "metadata.csv",
            "one.png\0",
            "one\0.png",
            "one\n.png",
        ],
    )
    def test_finds_nothing_but_images_of_the_tree(self, tree: Medium, key: str) -> None:
        with pytest.raises((NotFound, BadImage)):
            tree.source().read(key)
