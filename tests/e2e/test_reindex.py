"""An index is built again, updated and rolled back while clients search it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import DEMO_MODEL
from tests.programs import controller, serving

# Its clients search while two runs are made: minutes, on a busy machine.
pytestmark = pytest.mark.timeout(900)
PAUSE_SECONDS = 0.5
"""Pause of a client between two searches: the runs need the CPUs more."""


def photo(path: Path, seed: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((160, 120)).save(path)


class SearchLoop:
    """Clients that search in a loop and keep the responses."""

    def __init__(self, client: httpx.Client, clients: int = 2) -> None:
        self._client = client
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._loop, args=(number,)) for number in range(clients)]
        self.responses: list[dict[str, Any]] = []
        self.failures: list[str] = []

    def __enter__(self) -> SearchLoop:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _loop(self, number: int) -> None:
        count = 0
        while not self._stop.wait(PAUSE_SECONDS):
            count += 1
            try:
                response = self._client.post("/v1/search", json={"text": f"photo {number} {count % 50}", "k": 10})
                error_text = None if response.is_success else response.text
            except httpx.TransportError as error:
                error_text = repr(error)
            with self._changed:
                if error_text is None:
                    self.responses.append(response.json())
                else:
                    self.failures.append(error_text)
                self._changed.notify_all()

    def wait_for(self, run: str) -> None:
        """Waits until the run answers."""
        with self._changed:
            self._changed.wait_for(lambda: self.failures or (self.responses and self.responses[-1]["run"] == run))
        assert not self.failures, self.failures[0]


class Home:
    """A user's home, and their changing folder of photos."""

    def __init__(self, root: Path) -> None:
        self.path = root / "home"
        self.folder = root / "photos"
        self.folder.mkdir()
        for number in range(24):
            photo(self.folder / f"{number:02d}.jpg", number)

    def run(self, *arguments: str) -> tuple[str, str]:
        """`run-pipeline`. Returns its output, and the run that is published then."""
        completed = controller(
            *("run-pipeline", self.folder, "--local", "--home", self.path, "--model", DEMO_MODEL, *arguments)
        )
        assert completed.returncode == 0, completed.stderr
        return completed.stdout, self.published_run()

    def published_run(self) -> str:
        (index,) = json.loads(controller("indexes", "--home", self.path, "-o", "json").stdout)
        return str(index["run"])

    def output(self, *arguments: str) -> str:
        completed = controller(*arguments, "--home", self.path)
        assert completed.returncode == 0, completed.stderr
        return completed.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    new_home = Home(tmp_path_factory.mktemp("reindex"))
    new_home.run()
    return new_home


@pytest.fixture(scope="module")
def client(home: Home) -> Iterator[httpx.Client]:
    with serving(home.path) as http_client:
        yield http_client


def test_no_search_fails_and_none_is_mixed_while_runs_are_published_and_rolled_back(
    home: Home, client: httpx.Client
) -> None:
    keys = {home.published_run(): {file.name for file in home.folder.iterdir()}}
    with SearchLoop(client) as searching:
        for round in range(2):
            for number in range(8):  # a third of the photos is replaced
                (home.folder / sorted(keys[home.published_run()])[number]).unlink()
                photo(home.folder / f"round-{round}-{number}.jpg", 100 * round + 50 + number)
            _, run = home.run("--run", f"round-{round}")
            keys[run] = {file.name for file in home.folder.iterdir()}
            searching.wait_for(run)
        assert "round-0" in home.output("rollback", "photos")
        searching.wait_for("round-0")
        assert "round-1" in home.output("rollback", "photos")
        searching.wait_for("round-1")
    assert searching.failures == []
    assert len(keys) == 3
    assert {response["run"] for response in searching.responses} == keys.keys()
    for response in searching.responses:
        names = {hit["uri"].rsplit("/", 1)[-1] for hit in response["results"]}
        assert len(response["results"]) == 10
        assert names <= keys[response["run"]], f"an answer of run {response['run']} has images of another"


def test_an_update_embeds_only_what_is_new_and_forgets_what_is_gone(home: Home, client: httpx.Client) -> None:
    base = home.published_run()
    names = sorted(file.name for file in home.folder.iterdir())
    (home.folder / names[0]).unlink()
    photo(home.folder / names[1], 777)
    photo(home.folder / "new.jpg", 778)
    output, run = home.run("--update")
    assert run != base
    assert f"{len(names)} images searchable" in output
    report = json.loads(home.output("report", run, "-o", "json"))
    assert (report["images"], report["kept"], report["removed"]) == (len(names), len(names) - 2, 1)
    with SearchLoop(client, clients=1) as searching:
        searching.wait_for(run)
    response = client.post("/v1/search", json={"text": "a photo", "k": 100}).json()
    assert {hit["uri"].rsplit("/", 1)[-1] for hit in response["results"]} == {f.name for f in home.folder.iterdir()}
    for hit in response["results"]:
        assert client.get(hit["thumbnail"]).is_success
    output, second_run = home.run("--update")
    assert second_run == run
    assert "nothing has changed" in output


def test_an_update_that_only_removes_embeds_nothing(home: Home) -> None:
    count = len(list(home.folder.iterdir()))
    (home.folder / "new.jpg").unlink()
    output, run = home.run("--update")
    assert f"{count - 1} images searchable" in output
    assert "embed" not in json.loads(home.output("report", run, "-o", "json"))["embed_stages"]


def test_what_is_served_or_was_updated_from_is_not_removed_and_the_rest_is(home: Home) -> None:
    run = home.published_run()
    for needed_run in (run, "round-1"):
        completed = controller("cleanup", needed_run, "--data", "--home", home.path)
        assert completed.returncode == 2
        assert f"run {needed_run} is needed by index photos" in completed.stderr
    home.output("cleanup", "round-0", "--data")
    runs = {row["run"] for row in json.loads(home.output("runs", "-o", "json"))}
    assert "round-0" not in runs
    assert "round-1" in runs
    assert not (home.path / "storage" / "runs" / "round-0").exists()
    home.output("cleanup")
    assert list((home.path / "jobs").iterdir()) == []
    assert {row["run"] for row in json.loads(home.output("runs", "-o", "json"))} == runs


def test_a_damaged_shard_publishes_nothing_and_the_same_command_repairs_it(home: Home, client: httpx.Client) -> None:
    published_run = home.published_run()
    arguments = ("run-pipeline", home.folder, "--local", "--home", home.path, "--model", DEMO_MODEL, "--run", "mended")
    assert controller(*arguments, "--index", "other", "--shard-size", "12").returncode == 0
    home.output("cleanup", "mended")
    part = home.path / "storage" / "runs" / "mended" / "shards" / "00001" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-30])
    failed = controller(*arguments, "--index", "other", "--shard-size", "12")
    assert failed.returncode == 1
    assert "part-00000.parquet is damaged" in failed.stderr
    assert "give the same command again, which repairs shard 1" in failed.stderr
    assert {row["index"]: row["run"] for row in json.loads(home.output("indexes", "-o", "json"))}[
        "photos"
    ] == published_run
    repaired = controller(*arguments, "--index", "other", "--shard-size", "12")
    assert repaired.returncode == 0, repaired.stderr
    assert json.loads(home.output("report", "mended", "-o", "json"))["images"] == len(list(home.folder.iterdir()))
