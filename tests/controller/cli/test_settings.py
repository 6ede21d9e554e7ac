from __future__ import annotations

from pathlib import Path

import pytest

from controller.cli.options import ServeOptions
from controller.cli.settings import (
    local_settings,
    local_source,
    overridden,
    pod_model,
    pod_source,
    serving,
    with_run,
)
from imgsearch.errors import UsageError
from imgsearch.settings import EmbedSettings, JobSettings, LogSettings, RunSettings, Settings


def run(settings: Settings = Settings(), **changes: str | int | None) -> RunSettings:  # noqa: B008 (it is frozen)
    defaults = {"source": "/photos", "index": "photos", "model": None, "run": None, "shard_images": None, "base": None}
    return with_run(settings, **{**defaults, **changes}).run  # type: ignore[arg-type]


def test_what_the_command_line_does_not_say_is_what_the_release_says() -> None:
    release = Settings(run=RunSettings(model="ViT-L-14/openai", shard_images=500, part_images=100))
    assert run(release).model == "ViT-L-14/openai"
    assert (run(release).shard_images, run(release).part_images) == (500, 100)
    assert run(release, model="ViT-B-32/openai", shard_images=7).model == "ViT-B-32/openai"
    assert run(release, shard_images=7).shard_images == 7
    assert run().model == "ViT-B-32/laion2b_s34b_b79k"


def test_a_run_that_is_given_no_id_has_the_one_of_what_it_is() -> None:
    assert run().id == run().id != run(index="other").id
    assert run(run="mine").id == "mine"


@pytest.mark.parametrize(
    "changes", [{"index": "My Photos"}, {"run": "Run_1"}, {"model": "clip"}, {"shard_images": 0}, {"shard_images": -1}]
)
def test_what_cannot_be_is_refused(changes: dict[str, str | int]) -> None:
    with pytest.raises(UsageError):
        run(**changes)


def test_settings_are_overridden_by_their_path() -> None:
    settings = Settings(jobs=JobSettings(queue="gpus"), run=RunSettings(model="a/b"))
    changed = overridden(settings, ["embed.batch_images=64", "log.level=DEBUG", "jobs.queue=", "run.model=c/d=e"])
    assert changed == Settings(
        embed=EmbedSettings(batch_images=64),
        log=LogSettings(level="DEBUG"),
        jobs=JobSettings(queue=None),
        run=RunSettings(model="c/d=e"),
    )
    assert overridden(settings, []) == settings
    assert overridden(settings, ["embed.batch_images=1", "embed.batch_images=2"]).embed.batch_images == 2


def test_a_server_on_this_machine_has_overridden_settings() -> None:
    options = ServeOptions(port=81, overrides=("search.root_path=/photos", "search.trusted_proxies=127.0.0.1"))
    search = serving(Settings(), options).search
    assert (search.host, search.port) == ("127.0.0.1", 81)
    assert (search.root_path, search.trusted_proxies) == ("/photos", "127.0.0.1")
    with pytest.raises(UsageError, match=r"unknown setting embed\.batch;"):
        serving(Settings(), ServeOptions(overrides=("embed.batch=64",)))


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("batch=64", "--set batch=64"),
        ("embed.batch_images", "--set embed.batch_images"),
        ("embed.batch.images=64", "--set embed.batch.images=64"),
        ("embed.batch=64", "embed.batch;"),
        ("nodes.count=2", "nodes.count;"),
        ("embed.batch_images=many", "'many' for embed.batch_images (IMGSEARCH_EMBED_BATCH_IMAGES)"),
        ("run.shard_images=", "'' for run.shard_images (IMGSEARCH_RUN_SHARD_IMAGES)"),
    ],
)
def test_an_invalid_setting_is_refused(override: str, value: str) -> None:
    with pytest.raises(UsageError) as error:
        overridden(Settings(), [override])
    assert value in str(error.value)


@pytest.mark.parametrize("source", ["/sources/photos", "s3://bucket/photos", "hf://datasets/a/b?split=train"])
def test_a_source_that_pods_can_find_is_taken_as_it_is(source: str) -> None:
    assert pod_source(source) == source


@pytest.mark.parametrize("source", ["photos", "./photos", "~/Pictures", "data/*.parquet"])
def test_a_path_of_this_machine_is_none_of_a_cluster(source: str) -> None:
    with pytest.raises(UsageError, match=r"/sources/NAME"):
        pod_source(source)


def test_a_source_here_is_the_same_from_wherever_the_command_is_given() -> None:
    assert local_source("photos") == str(Path.cwd() / "photos")
    assert local_source("~/photos") == str(Path.home() / "photos")
    assert local_source("a/*.parquet?column=x") == f"{Path.cwd()}/a/*.parquet?column=x"
    assert local_source("s3://bucket/x") == "s3://bucket/x"


def test_on_this_machine_all_is_below_the_home(tmp_path: Path) -> None:
    settings = local_settings(tmp_path / "with space")
    assert settings.storage.uri == f"file://{tmp_path}/with%20space/storage"
    assert settings.store.url == f"chroma+file://{tmp_path}/with%20space/chroma"


@pytest.mark.parametrize("model", [None, "ViT-B-32/openai", "local-dir:/models/mine"])
def test_a_model_that_pods_find_is_taken_as_it_is(model: str | None) -> None:
    assert pod_model(model) == model


def test_a_models_folder_on_this_machine_is_none_in_a_cluster() -> None:
    with pytest.raises(UsageError, match="/models/NAME"):
        pod_model("local-dir:demo/model")
