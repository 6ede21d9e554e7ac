from __future__ import annotations

import pytest

from imgsearch.errors import UsageError
from imgsearch.settings import (
    EmbedSettings,
    LogSettings,
    MetricsSettings,
    RunSettings,
    SearchSettings,
    Settings,
)
from imgsearch.settings.documentation import documentation


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(run=RunSettings(id="r1", source="/fotos/Käse & Co", base="r0", shard_images=5)),
        Settings(
            embed=EmbedSettings(batch_images=None), metrics=MetricsSettings(port=9000), log=LogSettings(level="DEBUG")
        ),
        Settings(search=SearchSettings(refresh_seconds=0.25, port=1)),
    ],
)
def test_what_is_written_to_the_environment_is_read_back(settings: Settings) -> None:
    assert Settings.from_env(settings.to_env()) == settings


def test_only_what_differs_from_the_defaults_is_written() -> None:
    assert Settings().to_env() == {}
    assert Settings(run=RunSettings(id="r1")).to_env() == {"IMGSEARCH_RUN_ID": "r1"}


def test_an_empty_value_means_none_where_none_is_allowed() -> None:
    assert Settings.from_env({"IMGSEARCH_EMBED_BATCH_IMAGES": ""}).embed.batch_images is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SEARCH_PORT", "http"),
        ("SEARCH_PORT", "-1"),
        ("SEARCH_PORT", "65536"),
        ("SEARCH_WORKERS", "0"),
        ("SEARCH_REFRESH_SECONDS", "0"),
        ("SEARCH_DRAIN_SECONDS", "-1"),
        ("SEARCH_DRAIN_SECONDS", "inf"),
        ("SEARCH_URL_SECONDS", "nan"),
        ("SEARCH_URL_SCHEMES", "ftp"),
        ("SEARCH_CACHE_VECTORS", "-1"),
        ("EMBED_THUMBNAIL_PX", "-1"),
        ("EMBED_THUMBNAIL_PX", "256.5"),
        ("EMBED_BATCH_IMAGES", "0"),
        ("EMBED_MAX_PIXELS", "many"),
        ("RUN_SHARD_IMAGES", ""),
        ("RUN_PART_IMAGES", "0"),
        ("JOBS_RETRIES", "-1"),
        ("JOBS_AUTOSCALER", "cluster"),
        ("JOBS_GPU_HOUR_PRICE", "-0.1"),
        ("EVALUATE_QUERIES", "0"),
        ("METRICS_PORT", "70000"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_an_invalid_value_is_refused_with_its_path_its_variable_and_itself(name: str, value: str) -> None:
    group, _, field = name.lower().partition("_")
    with pytest.raises(UsageError) as env_error:
        Settings.from_env({f"IMGSEARCH_{name}": value})
    assert f"invalid value {value!r} for {group}.{field} (IMGSEARCH_{name}): " in str(env_error.value)
    with pytest.raises(UsageError) as value_error:
        Settings().with_values({f"{group}.{field}": value})
    assert str(value_error.value) == str(env_error.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SEARCH_PORT", "0", 0),
        ("SEARCH_PORT", "65535", 65535),
        ("SEARCH_URL_SCHEMES", "https, HTTP", "https,http"),
        ("EMBED_THUMBNAIL_PX", "16", 16),
        ("SEARCH_DRAIN_SECONDS", "0", 0.0),
        ("SEARCH_CACHE_VECTORS", "0", 0),
        ("JOBS_TTL_SECONDS", "0", 0),
        ("JOBS_TTL_SECONDS", "", None),
        ("SEARCH_URL_SCHEMES", "", ""),
        ("LOG_LEVEL", "CRITICAL", "CRITICAL"),
    ],
)
def test_the_bounds_themselves_are_valid(name: str, value: str, expected: object) -> None:
    group, _, field = name.lower().partition("_")
    settings = Settings.from_env({f"IMGSEARCH_{name}": value})
    assert getattr(getattr(settings, group), field) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("17179869184", 17_179_869_184),
        ("16Gi", 17_179_869_184),
        ("1.5Gi", 1_610_612_736),
        ("512Ki", 524_288),
        ("16G", 16_000_000_000),
        ("5k", 5_000),
        ("4e9", 4_000_000_000),
        ("1.5E6", 1_500_000),
        ("2E", 2_000_000_000_000_000_000),
        ("128974848000m", 128_974_848),
        ("", None),
    ],
)
def test_bytes_are_a_quantity_of_kubernetes(text: str, expected: int | None) -> None:
    assert Settings.from_env({"IMGSEARCH_JOBS_STORE_MEMORY": text}).jobs.store_memory == expected


@pytest.mark.parametrize("text", ["16GiB", "16 Gi", "-1", "Gi", "1e400", "0", "1m"])
def test_bytes_that_are_no_quantity_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=rf"'?{text}.* for jobs\.store_memory|input should be greater"):
        Settings.from_env({"IMGSEARCH_JOBS_STORE_MEMORY": text})


def test_a_sentence_of_our_own_has_no_words_of_pydantic() -> None:
    with pytest.raises(UsageError, match=r"\(IMGSEARCH_JOBS_STORE_MEMORY\): use a number of bytes, such as 16Gi$"):
        Settings.from_env({"IMGSEARCH_JOBS_STORE_MEMORY": "much"})


def test_an_unknown_variable_and_an_unknown_path_are_refused() -> None:
    with pytest.raises(UsageError, match="IMGSEARCH_SEARCH_PROT"):
        Settings.from_env({"IMGSEARCH_SEARCH_PROT": "80"})
    with pytest.raises(UsageError, match=r"search\.prot"):
        Settings().with_values({"search.prot": "80"})


def test_the_key_of_a_client_is_no_setting() -> None:
    assert Settings.from_env({"IMGSEARCH_API_KEY": "hunter2"}) == Settings()


def test_values_are_changed_and_the_others_kept() -> None:
    settings = Settings(run=RunSettings(id="r1", index="photos"))
    changed = settings.with_values({"run.index": "cats", "search.port": 81})
    assert changed == Settings(run=RunSettings(id="r1", index="cats"), search=SearchSettings(port=81))


def test_the_documentation_shows_the_range() -> None:
    table = documentation()
    assert "| `IMGSEARCH_SEARCH_PORT` | int, from 0, to 65535 | `8000` |" in table
    assert "| `IMGSEARCH_JOBS_DEADLINE_SECONDS` | int, from 1; or None | |" in table.replace("|  |", "| |")
    assert "`DEBUG`, `INFO`, `WARNING`, `ERROR`, `CRITICAL`" in table


def test_an_empty_secret_is_an_error_and_not_no_secret() -> None:
    with pytest.raises(UsageError, match=r"search\.api_keys \(IMGSEARCH_SEARCH_API_KEYS\) is empty"):
        Settings.from_env({"IMGSEARCH_SEARCH_API_KEYS": ""})


def test_a_secret_is_read_but_never_shown() -> None:
    settings = Settings.from_env({"IMGSEARCH_SEARCH_API_KEYS": "hunter2"})
    assert settings.search.api_keys == "hunter2"
    assert "hunter2" not in repr(settings)


def test_other_programs_variables_are_none_of_ours() -> None:
    assert Settings.from_env({"HOME": "/root", "HF_TOKEN": "x"}) == Settings()
