"""A folder of images, whatever is in it: nothing is lost, and nothing outside is read."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from imgsearch.errors import BadImage, NotFound, PermanentError, UsageError
from imgsearch.sources import Item, Source, open_source
from imgsearch.sources.folder import MAX_REASONS, Folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    draw(folder / "one.png")
    return folder


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder with an image and a sub-folder that may not be read, not by root either, who steps down."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        draw(folder / "one.png")
        (folder / "one.png").chmod(0)
        (folder / "sub").mkdir(mode=0)
        me = os.geteuid()
        if me == 0:
            os.seteuid(65534)
        yield folder
        os.seteuid(me)
        (folder / "sub").chmod(0o700)


def draw(path: Path, colour: str = "red") -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), colour).save(path, format="PNG")
    return path.read_bytes()


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**31)


def keys(source: Source) -> list[str]:
    return sorted(item.key for item in source.items())


def refusal(source: Source, key: str, etag: str = "listed") -> str:
    """Why the image cannot be loaded."""
    [image] = source.images([Item(key, size=1, etag=etag)])
    with pytest.raises(BadImage) as caught:
        image.load()
    assert caught.value.stage == "read"
    return caught.value.reason


class TestListing:
    def test_finds_images_in_all_sub_folders_by_their_ending_in_any_case(self, photos: Path) -> None:
        draw(photos / "a" / "b" / "two.JPeG")
        draw(photos / "a.png" / "three.tiff")
        assert keys(Folder(str(photos))) == ["a.png/three.tiff", "a/b/two.JPeG", "one.png"]

    def test_loads_the_bytes_of_each_in_order_and_skips_the_first(self, photos: Path) -> None:
        two = draw(photos / "two.png", "blue")
        source = Folder(str(photos))
        items = sorted(source.items(), key=lambda item: item.key)
        assert [image.key for image in source.images(items)] == ["one.png", "two.png"]
        [last] = source.images(items, skip=1)
        assert (last.key, last.load()) == ("two.png", two)

    def test_an_etag_changes_with_the_content(self, photos: Path) -> None:
        source = Folder(str(photos))
        [before] = source.items()
        os.utime(photos / "one.png", ns=(1, 1))
        [after] = source.items()
        assert before.etag != after.etag
        assert after.size == (photos / "one.png").stat().st_size

    def test_counts_what_it_passes_over_once_however_often_it_lists(self, photos: Path) -> None:
        for name in ("notes.txt", "more.TXT", "README", ".DS_Store", "metadata.csv"):
            (photos / name).write_text("file_name\n")
        draw(photos / ".thumbs" / "hidden.png")
        (photos / "again").symlink_to(photos, target_is_directory=True)
        source = Folder(str(photos))
        for _ in range(2):
            assert keys(source) == ["one.png"]
            assert list(source.metadata()) == []
        assert source.skipped == {
            ".txt files": 2,
            "files without an ending": 1,
            "hidden files": 1,
            "hidden folders": 1,
            "links to folders": 1,
        }

    def test_the_count_stays_small_where_every_ending_is_another(self, photos: Path) -> None:
        for number in range(MAX_REASONS + 20):
            (photos / f"file.x{number}").touch()
        source = Folder(str(photos))
        keys(source)
        assert len(source.skipped) == MAX_REASONS + 1
        assert source.skipped["other files"] == 20

    @pytest.mark.parametrize("prefix", ["", "file://"])
    def test_is_opened_by_path_or_uri(self, photos: Path, prefix: str) -> None:
        spaced = photos.rename(photos.with_name("my photos"))
        uri = f"{prefix}{str(spaced).replace(' ', '%20') if prefix else spaced}/"
        source = open_source(uri)
        assert source.uri == str(spaced)
        assert keys(source) == ["one.png"]

    def test_a_relative_path_is_recorded_as_an_absolute_one(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(photos.parent)
        assert open_source("photos").uri == str(photos)


class TestUnusable:
    """Each is an item still, with a reason to read."""

    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            pytest.param(lambda path: path.touch(), "empty", id="an empty file"),
            pytest.param(lambda path: path.symlink_to("nowhere.png"), "not there", id="a broken link"),
            pytest.param(lambda path: path.symlink_to(path.name), "symbolic links", id="a link to itself"),
            pytest.param(lambda path: path.symlink_to("/etc/hostname"), "out of the folder", id="a link out"),
            pytest.param(lambda path: path.symlink_to("../photos2.png"), "out of the folder", id="to a sibling"),
            pytest.param(lambda path: path.symlink_to("/dev/zero"), "out of the folder", id="an endless file"),
            pytest.param(os.mkfifo, "no regular file", id="a pipe"),
            pytest.param(huge, "more than", id="2 GiB"),
        ],
    )
    def test_is_an_item_whose_load_says_why(self, photos: Path, make: Callable[[Path], object], reason: str) -> None:
        draw(photos.parent / "photos2.png")
        make(photos / "odd.png")
        source = Folder(str(photos))
        assert keys(source) == ["odd.png", "one.png"]
        assert reason in refusal(source, "odd.png")

    def test_a_file_that_may_not_be_read_says_so(self, closed: Path) -> None:
        assert "permissions" in refusal(Folder(str(closed)), "one.png")

    def test_a_file_that_vanished_says_so(self, photos: Path) -> None:
        assert "gone now" in refusal(Folder(str(photos)), "vanished.png")

    def test_a_name_that_is_not_utf8_is_printable_and_asks_for_another(self, photos: Path) -> None:
        for path in (b"caf\xe9.png", b"\xe9t\xe9/one.png"):
            full = os.fsencode(photos) + b"/" + path
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "wb") as file:
                file.write(b"x")
        source = Folder(str(photos))
        assert keys(source) == ["\\udce9t\\udce9/one.png", "caf\\udce9.png", "one.png"]
        for key in keys(source)[:2]:
            assert refusal(source, key) == "its name is not UTF-8: rename it"

    def test_a_link_to_a_file_inside_is_an_image(self, photos: Path) -> None:
        (photos / "same.png").symlink_to("one.png")
        [image] = Folder(str(photos)).images([Item("same.png", size=1)])
        assert image.load() == (photos / "one.png").read_bytes()

    def test_a_folder_that_is_itself_a_link_is_read(self, photos: Path) -> None:
        link = photos.parent / "link"
        link.symlink_to(photos, target_is_directory=True)
        assert Folder(str(link)).read("one.png") == (photos / "one.png").read_bytes()

    def test_the_whole_folder_gone_is_no_fault_of_its_images(self, tmp_path: Path) -> None:
        with pytest.raises(PermanentError, match="volume mounted"):
            next(Folder(str(tmp_path / "gone")).images([Item("one.png", size=1)]))

    def test_a_sub_folder_that_may_not_be_listed_ends_the_listing(self, closed: Path) -> None:
        with pytest.raises(PermanentError, match=r"sub may not be listed.*permissions"):
            keys(Folder(str(closed)))


class TestNothing:
    def test_no_folder_is_a_usage_error(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="is not there"):
            keys(Folder(str(tmp_path / "nowhere")))

    def test_a_file_is_a_usage_error(self, photos: Path) -> None:
        with pytest.raises(UsageError, match="is a file: name the folder"):
            keys(Folder(str(photos / "one.png")))

    def test_no_images_is_a_usage_error(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"holds no image files$"):
            keys(Folder(str(tmp_path)))

    def test_parquet_files_without_images_are_explained(self, tmp_path: Path) -> None:
        (tmp_path / "train.parquet").touch()
        with pytest.raises(UsageError, match=r"are named '.*/\*\.parquet'"):
            keys(Folder(str(tmp_path)))

    @pytest.mark.parametrize("uri", ["", "s3://bucket/photos", "https://example.org/photos"])
    def test_an_unknown_kind_of_source_is_a_usage_error(self, uri: str) -> None:
        with pytest.raises(UsageError, match="no source understands"):
            open_source(uri)


class TestMetadata:
    def rows(self, folder: Path) -> dict[str, object]:
        return dict(Folder(str(folder)).metadata())

    def test_is_read_from_json_lines_with_names_relative_to_the_file(self, photos: Path) -> None:
        (photos / "sub").mkdir()
        (photos / "metadata.jsonl").write_text('\ufeff{"file_name": "one.png", "label": "cat"}\n\n')
        (photos / "sub" / "metadata.jsonl").write_text('{"file_name": "./deep/two.png", "n": 1}\n')
        assert self.rows(photos) == {"one.png": {"label": "cat"}, "sub/deep/two.png": {"n": 1}}

    def test_numbers_of_a_csv_are_numbers_where_the_whole_value_is_one(self, photos: Path) -> None:
        (photos / "metadata.csv").write_text(
            "file_name,int,float,exp,zip,underscore,word,empty,huge,text\n"
            'one.png,-7,2.50,1e3,00501,1_000,nan,,18446744073709551616,"a, ""b"""\n'
        )
        assert self.rows(photos) == {
            "one.png": {
                "int": -7,
                "float": 2.5,
                "exp": 1000.0,
                "zip": "00501",
                "underscore": "1_000",
                "word": "nan",
                "huge": "18446744073709551616",
                "text": 'a, "b"',
            }
        }

    def test_values_are_scalars_or_lists_of_one_kind(self, photos: Path) -> None:
        row = {
            "file_name": "one.png",
            "null": None,
            "nan": float("nan"),
            "tags": ["a", None, "b"],
            "mixed": [1, 2.5],
            "odd": [1, "a"],
            "large": [2**64, 1],
            "larger": 10**4000,
            "none": [],
            "box": {"x": 1},
            "yes": True,
            "broken": "\ud800",
        }
        (photos / "metadata.jsonl").write_text(json.dumps(row))
        assert self.rows(photos) == {
            "one.png": {
                "tags": ["a", "b"],
                "mixed": [1.0, 2.5],
                "odd": '[1, "a"]',
                "large": [2.0**64, 1.0],
                "box": '{"x": 1}',
                "yes": True,
                "broken": "\\ud800",
            }
        }

    @pytest.mark.parametrize(
        ("name", "text", "wrong"),
        [
            ("metadata.jsonl", b'{"file_name": "a.png"}\n{"file_name": ', "line 2, is not JSON"),
            ("metadata.jsonl", b"[" * 100_000, "line 1, is not JSON"),
            ("metadata.jsonl", b'["a.png"]', "line 1, is not a JSON object"),
            ("metadata.jsonl", b'{"name": "a.png"}', "line 1, names no image in `file_name`"),
            ("metadata.jsonl", b'{"file_name": 7}', "line 1, names no image in `file_name`"),
            ("metadata.jsonl", b'{"file_name": "caf\xe9.png"}', "line 1, is not UTF-8"),
            ("metadata.csv", b"file_name,label\na.png,cat\nb.png\n", "line 3, has not as many values"),
            ("metadata.csv", b"file_name,label\na.png,cat,dog\n", "line 2, has not as many values"),
            ("metadata.csv", b"image,label\na.png,cat\n", "line 2, names no image in `file_name`"),
            ("metadata.csv", b'file_name,label\na.png,"cat\n', "line 2, is not CSV"),
        ],
    )
    def test_a_line_that_is_wrong_is_named(self, photos: Path, name: str, text: bytes, wrong: str) -> None:
        (photos / name).write_bytes(text)
        with pytest.raises(UsageError, match=f"{name}, {wrong}.*: correct it"):
            self.rows(photos)

    def test_a_file_that_cannot_be_read_is_a_usage_error(self, photos: Path) -> None:
        (photos / "metadata.csv").symlink_to("nowhere")
        with pytest.raises(UsageError, match=r"metadata\.csv is no file"):
            self.rows(photos)

    @pytest.mark.parametrize(
        ("key", "reason"),
        [
            ("gone.png", "named in the metadata, but there is no such file"),
            ("../../etc/passwd.png", "named in the metadata, but there is no such file"),
            ("notes.txt", "named in the metadata, but its name has no image's ending"),
        ],
    )
    def test_of_a_file_that_is_no_image_there_says_so(self, photos: Path, key: str, reason: str) -> None:
        (photos / "notes.txt").write_text("secret")
        assert refusal(Folder(str(photos)), key, etag="") == reason


class TestReadByKey:
    def test_gives_the_bytes(self, photos: Path) -> None:
        assert Folder(str(photos)).read("one.png") == (photos / "one.png").read_bytes()

    @pytest.mark.parametrize(
        "key",
        [
            "two.png",
            "one.png/x.png",
            "../secret.png",
            "sub/../../secret.png",
            "sub/../one.png",
            "./one.png",
            "/etc/hostname",
            "/etc/hostname.png",
            "",
            ".",
            ".hidden.png",
            ".git/one.png",
            "notes.txt",
            "metadata.jsonl",
            "sub",
            "one.png\0",
            "one\0.png",
            "a" * 5000 + ".png",
        ],
    )
    def test_finds_nothing_but_images_of_the_folder(self, photos: Path, key: str) -> None:
        draw(photos.parent / "secret.png")
        draw(photos / ".hidden.png")
        draw(photos / ".git" / "one.png")
        (photos / "sub").mkdir()
        for name in ("notes.txt", "metadata.jsonl"):
            (photos / name).write_text("secret")
        with pytest.raises((NotFound, BadImage)):
            Folder(str(photos)).read(key)

    def test_follows_no_folder_link_out(self, photos: Path) -> None:
        draw(photos.parent / "outside" / "secret.png")
        (photos / "out").symlink_to("../outside", target_is_directory=True)
        with pytest.raises(BadImage, match="out of the folder"):
            Folder(str(photos)).read("out/secret.png")
