"""A folder of images, and what only a disk has: links, permissions, odd names. tests/contract has the rest."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from imgsearch.errors import BadImage, PermanentError, UsageError
from imgsearch.sources import Item, open_source
from tests.sources import keys, refusal


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
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        yield folder
        os.seteuid(user)
        (folder / "sub").chmod(0o700)


def draw(path: Path, colour: str = "red") -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), colour).save(path, format="PNG")
    return path.read_bytes()


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**31)


class TestListing:
    def test_follows_no_link_to_a_folder(self, photos: Path) -> None:
        (photos / "again").symlink_to(photos, target_is_directory=True)
        source = open_source(str(photos))
        assert keys(source) == ["one.png"]
        assert source.skipped == {"links to folders": 1}

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
            pytest.param(lambda path: path.symlink_to("nowhere.png"), "broken link", id="a broken link"),
            pytest.param(lambda path: path.symlink_to(path.name), "symbolic links", id="a link to itself"),
            pytest.param(lambda path: path.symlink_to("/etc/hostname"), "out of the folder", id="a link out"),
            pytest.param(lambda path: path.symlink_to("../photos2.png"), "out of the folder", id="to a sibling"),
            pytest.param(lambda path: path.symlink_to("/dev/zero"), "out of the folder", id="an endless file"),
            pytest.param(os.mkfifo, "not a regular file", id="a pipe"),
            pytest.param(huge, "more than", id="2 GiB"),
        ],
    )
    def test_is_an_item_whose_load_says_why(self, photos: Path, make: Callable[[Path], object], reason: str) -> None:
        draw(photos.parent / "photos2.png")
        make(photos / "odd.png")
        source = open_source(str(photos))
        assert keys(source) == ["odd.png", "one.png"]
        assert reason in refusal(source, "odd.png")

    def test_a_file_that_may_not_be_read_says_so(self, closed: Path) -> None:
        assert "permissions" in refusal(open_source(str(closed)), "one.png")

    def test_a_name_that_is_not_utf8_is_printable_and_asks_for_another(self, photos: Path) -> None:
        for path in (b"caf\xe9.png", b"\xe9t\xe9/one.png"):
            path_bytes = os.fsencode(photos) + b"/" + path
            os.makedirs(os.path.dirname(path_bytes), exist_ok=True)
            with open(path_bytes, "wb") as file:
                file.write(b"x")
        source = open_source(str(photos))
        assert keys(source) == ["\\udce9t\\udce9/one.png", "caf\\udce9.png", "one.png"]
        for key in keys(source)[:2]:
            assert refusal(source, key) == "its name is not UTF-8: rename it"

    def test_a_link_to_a_file_inside_is_an_image(self, photos: Path) -> None:
        (photos / "same.png").symlink_to("one.png")
        [image] = open_source(str(photos)).images([Item("same.png", size=1, etag="listed")])
        assert image.load().data == (photos / "one.png").read_bytes()

    def test_a_folder_that_is_itself_a_link_is_read(self, photos: Path) -> None:
        link = photos.parent / "link"
        link.symlink_to(photos, target_is_directory=True)
        assert open_source(str(link)).read("one.png") == (photos / "one.png").read_bytes()

    def test_the_whole_folder_gone_is_no_fault_of_its_images(self, tmp_path: Path) -> None:
        with pytest.raises(PermanentError, match=str(tmp_path / "gone")):
            next(open_source(str(tmp_path / "gone")).images([Item("one.png", size=1)]))

    def test_a_sub_folder_that_may_not_be_listed_ends_the_listing(self, closed: Path) -> None:
        with pytest.raises(PermanentError, match=r"sub.*permissions"):
            keys(open_source(str(closed)))


class TestNothing:
    def test_no_folder_is_a_usage_error(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="/nowhere does not exist"):
            keys(open_source(str(tmp_path / "nowhere")))

    def test_a_file_is_a_usage_error(self, photos: Path) -> None:
        with pytest.raises(UsageError, match=r"one\.png is a file"):
            keys(open_source(str(photos / "one.png")))

    @pytest.mark.parametrize("uri", ["", "ftp://example.org/photos", "https://example.org/photos"])
    def test_an_unknown_kind_of_source_is_a_usage_error(self, uri: str) -> None:
        with pytest.raises(UsageError, match=repr(uri)):
            open_source(uri)


class TestMetadata:
    def test_a_file_that_cannot_be_read_is_a_usage_error(self, photos: Path) -> None:
        (photos / "metadata.csv").symlink_to("nowhere")
        source = open_source(str(photos))
        assert keys(source) == ["one.png"]
        with pytest.raises(UsageError, match=r"metadata\.csv"):
            list(source.metadata())


class TestReadByKey:
    def test_finds_no_name_that_is_too_long(self, photos: Path) -> None:
        with pytest.raises(BadImage, match="too long"):
            open_source(str(photos)).read("a" * 5000 + ".png")

    def test_follows_no_folder_link_out(self, photos: Path) -> None:
        draw(photos.parent / "outside" / "secret.png")
        (photos / "out").symlink_to("../outside", target_is_directory=True)
        with pytest.raises(BadImage, match="out of the folder"):
            open_source(str(photos)).read("out/secret.png")
