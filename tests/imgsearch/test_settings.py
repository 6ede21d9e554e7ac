from __future__ import annotations

import pytest

from imgsearch.errors import UsageError
from imgsearch.settings import EmbedSettings, LogSettings, MetricsSettings, RunSettings, SearchSettings, Settings


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
    ("env", "sentence"),
    [
        ({"IMGSEARCH_SEARCH_PORT": "http"}, "IMGSEARCH_SEARCH_PORT='http' is not a valid int"),
        ({"IMGSEARCH_SEARCH_PROT": "80"}, "no setting is called IMGSEARCH_SEARCH_PROT"),
    ],
)
def test_a_wrong_variable_is_named(env: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Settings.from_env(env)


def test_an_empty_secret_is_an_error_and_not_no_secret() -> None:
    with pytest.raises(UsageError, match="IMGSEARCH_SEARCH_API_KEYS is empty"):
        Settings.from_env({"IMGSEARCH_SEARCH_API_KEYS": ""})


def test_a_secret_is_read_but_never_shown() -> None:
    settings = Settings.from_env({"IMGSEARCH_SEARCH_API_KEYS": "hunter2"})
    assert settings.search.api_keys == "hunter2"
    assert "hunter2" not in repr(settings)


def test_other_programs_variables_are_none_of_ours() -> None:
    assert Settings.from_env({"HOME": "/root", "HF_TOKEN": "x"}) == Settings()
