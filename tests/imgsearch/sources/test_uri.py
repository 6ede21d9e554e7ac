"""Source URIs: their kinds, their options, and the URIs of their images."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name

import pytest

from imgsearch.errors import UsageError
from imgsearch.sources.uri import (
    KINDS,
    BucketParquet,
    BucketPrefix,
    DiskFolder,
    DiskParquet,
    HubDataset,
    SourceUri,
    parse_source,
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("photos", DiskFolder),
        ("file:///data/my%20photos", DiskFolder),
        ("data/**/*.parquet", DiskParquet),
        ("file:///data/a.parquet?column=image", DiskParquet),
        ("s3://bucket/photos", BucketPrefix),
        ("az://bucket", BucketPrefix),
        ("gs://bucket/data/*.parquet?column=image", BucketParquet),
        ("hf://datasets/acme/pets?split=train", HubDataset),
    ],
)
def test_a_uri_has_one_kind(text: str, kind: type[SourceUri]) -> None:
    uri = parse_source(text)
    assert type(uri) is kind
    assert uri.text == text


@pytest.mark.parametrize(
    ("source", "key", "location"),
    [
        ("/data/photos", "a/b.jpg", "/data/photos/a/b.jpg"),
        ("s3://bucket/prefix/", "b.jpg", "s3://bucket/prefix/b.jpg"),
        ("hf://datasets/acme/beans?split=train", "train.parquet#7", "hf://datasets/acme/beans/train.parquet#7"),
        ("/data/one.parquet", "one.parquet#7", "/data/one.parquet#7"),
        ("/data/*/*.parquet?column=photo", "x/one.parquet#7", "/data/x/one.parquet#7"),
    ],
)
def test_the_uri_of_an_image_is_the_prefix_and_the_key(source: str, key: str, location: str) -> None:
    assert parse_source(source).image_prefix + key == location


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("photos", "photos"),
        ("a?.parquet?column=x", "a?.parquet"),
        ("file:///photos", None),
        ("file:///a.parquet", None),
        ("s3://bucket/a.parquet", None),
        ("hf://datasets/acme/pets", None),
    ],
)
def test_only_a_path_of_the_shell_is_a_path(text: str, path: str | None) -> None:
    assert parse_source(text).path == path


def test_a_uri_with_another_path_keeps_its_options() -> None:
    assert parse_source("a/*.parquet?column=a%2Bb+%26c").with_path("/x/*.parquet") == "/x/*.parquet?column=a%2Bb+%26c"
    assert parse_source("a.parquet?column=é").with_path("/x/a.parquet") == "/x/a.parquet?column=é"
    assert parse_source("a/*.parquet").with_path("/x/*.parquet") == "/x/*.parquet"
    assert parse_source("photos").with_path("/photos") == "/photos"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", "''"),
        ("ftp://example.org/photos", "ftp://example.org/photos"),
        ("https://example.org/photos", "https://example.org/photos"),
        ("hf://datasets/mnist?split=train", "OWNER/NAME"),
        ("hf://models/acme/pets", "hf://models/acme/pets"),
        ("hf://datasets/acme/pets?splt=train", "'splt'; known are column, config, revision, split"),
        ("a.parquet?colour=red", "'colour'; known are column"),
        ("s3://bucket/a.parquet?colour=red", "'colour'; known are column"),
    ],
)
def test_an_invalid_uri_is_a_usage_error(text: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_source(text)
    assert value in str(caught.value)


def test_a_file_uri_is_unquoted() -> None:
    uri = parse_source("file:///data/my%20photos/")
    assert isinstance(uri, DiskFolder)
    assert Path(uri.folder) == Path("/data/my photos")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_names_a_function_that_opens_it(kind: type[SourceUri]) -> None:
    assert callable(resolve_name(kind.opener))
