"""The source is indexed anew by the clock."""

from __future__ import annotations

from typing import Any

from tests.cluster.conftest import FEW
from tests.cluster.world import World, wait_until

SOURCE = "/sources/photos/scheduled"
INDEX = "scheduled"
COPY = f"import shutil; shutil.copytree('{FEW}', '{SOURCE}')"
ADD = f"""
import pathlib, shutil
one = next(pathlib.Path('{SOURCE}').iterdir())
shutil.copyfile(one, one.with_name('added' + one.suffix))
"""


def test_what_comes_into_the_source_is_found_after_the_next_time(
    world: World, values: dict[str, Any], photos: int
) -> None:
    world.python("filler", COPY)
    every_minute = {"enabled": True, "source": SOURCE, "index": INDEX, "schedule": "* * * * *"}
    world.install({**values, "reindex": every_minute})
    try:
        first = wait_until(lambda: published_pointer(world), "the first run", seconds=400)
        assert first["images"] == photos
        world.python("filler", ADD)
        wait_until(
            lambda: (pointer := published_pointer(world)) and pointer["images"] == photos + 1, "the update", seconds=400
        )
        assert published_pointer(world)["run"] != first["run"]
    finally:
        world.install(values)
        world.kubectl("delete", "jobs", "--selector", f"imgsearch.dev/index={INDEX}")


def published_pointer(world: World) -> dict[str, Any] | None:
    return next((row for row in world.ask("indexes") if row["index"] == INDEX), None)
