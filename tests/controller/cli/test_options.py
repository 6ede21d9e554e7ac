"""Options are values that become arguments of a command line and come back from them."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import pytest

from controller.cli.options import RunOptions, TargetOptions, add_options, read_options, to_arguments
from controller.gpus.accelerators import Kind
from controller.gpus.nodes import Spot

RUN = RunOptions(
    source="s3://photos/new",
    index="cats",
    model="ViT-L-14/openai",
    run="r1",
    update=True,
    shard_size=7,
    accelerators=(Kind("L4"), Kind("A10G")),
    overflow="sky",
    overflow_after=12.5,
    spot=Spot.ONLY,
    parallelism=3,
    max_parallelism=9,
    overrides=("embed.batch_images=64", "jobs.queue=", "run.model=c/d=e"),
    detach=True,
    dry_run=True,
)
TARGET = TargetOptions(
    release="team",
    namespace="photos",
    context="other",
    pool="garage",
    local=True,
    backend="sky",
    sky_tasks=Path("my tasks"),
    home=Path("/home/x"),
)


def parsed(cls: type[Any], arguments: list[str]) -> Any:
    parser = argparse.ArgumentParser()
    add_options(parser, cls)
    return read_options(cls, parser.parse_args(arguments))


def fields(options: Any) -> list[dataclasses.Field[Any]]:
    return list(dataclasses.fields(options))


@pytest.mark.parametrize(
    ("options", "name"), [(options, field.name) for options in (RUN, TARGET) for field in fields(options)]
)
def test_each_option_survives_the_way_through_a_command_line(options: Any, name: str) -> None:
    required = {field.name: getattr(options, field.name) for field in fields(options) if field.default is MISSING}
    single = type(options)(**{**required, name: getattr(options, name)})
    assert single != type(options)(**required) or name in required, "the value is the default"
    assert parsed(type(options), to_arguments(single)) == single


@pytest.mark.parametrize(
    "options",
    [
        dataclasses.replace(RUN, parallelism=None),
        dataclasses.replace(RUN, max_parallelism=None),
        dataclasses.replace(TARGET, pool=None),
        dataclasses.replace(TARGET, context=None),
    ],
)
def test_all_options_together_survive(options: Any) -> None:
    assert parsed(type(options), to_arguments(options)) == options


def test_defaults_need_no_arguments() -> None:
    assert to_arguments(RunOptions(source="/photos")) == ["/photos"]
    assert to_arguments(TargetOptions()) == []
    assert parsed(RunOptions, ["/photos"]) == RunOptions(source="/photos")


@pytest.mark.parametrize(
    "arguments",
    [
        ["/photos", "--parallelism", "2", "--max-parallelism", "3"],
        ["/photos", "--parallelism", "0"],
        ["/photos", "--shard-size", "-1"],
        ["/photos", "--spot", "sometimes"],
        [],
    ],
)
def test_invalid_options_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        parsed(RunOptions, arguments)
    assert error.value.code == 2
