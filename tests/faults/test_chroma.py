"""A searcher with a real Chroma that is killed and restarted: it answers 503 meanwhile, then recovers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from imgsearch.errors import ExitCode
from imgsearch.stores import open_store
from tests.programs import ChromaServer
from tests.searcher.library import Library, problem, search_colours, wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def chroma(tmp_path: Path) -> Iterator[ChromaServer]:
    (tmp_path / "chroma").mkdir()
    with ChromaServer(tmp_path / "chroma") as server:
        yield server


@pytest.fixture
def library(tmp_path: Path, chroma: ChromaServer) -> Iterator[Library]:
    library = Library(tmp_path / "storage")
    with closing(open_store(chroma.url)) as library.store:
        yield library


async def ready(client: httpx.AsyncClient) -> None:
    await wait_until(lambda: client.get("/readyz"), lambda response: response.status_code == 200)


async def test_a_searcher_without_its_store_answers_503_and_recovers(chroma: ChromaServer, library: Library) -> None:
    chroma.start()
    library.publish()
    async with library.serving() as client:
        assert await search_colours(client, text="red", k=1) == ["red"]
        thumbnail = (await client.post("/v1/search", json={"text": "red"})).json()["results"][0]["thumbnail"]
        chroma.kill()
        for call in [
            client.post("/v1/search", json={"text": "red"}),
            client.post("/v1/search", json={"text": "a text that it does not know"}),
            client.get(thumbnail),
            client.get("/readyz"),
        ]:
            response = await call
            assert f"{chroma.url} does not answer" in problem(response, 503)
            assert int(response.headers["Retry-After"]) > 0
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.post("/v1/embed", json={"text": ["red"]})).status_code == 200
        await asyncio.to_thread(chroma.start)
        await ready(client)
        assert await search_colours(client, text="red", k=1) == ["red"]
        assert (await client.get(thumbnail)).status_code == 200
        library.publish({"new.png": "white"}, run="r2")
        serves_r2 = lambda response: response.json()["serving"] == {"photos": "r2"}  # noqa: E731
        await wait_until(lambda: client.get("/readyz"), serves_r2)
        assert await search_colours(client, text="red") == ["white"]
    assert library.loaded == [library.encoder.model], "the model was loaded again"


async def test_a_searcher_that_starts_before_its_store_waits_for_it(chroma: ChromaServer, library: Library) -> None:
    chroma.start()
    library.publish()
    chroma.kill()
    with closing(open_store(chroma.url)) as library.store:  # one that has never had an answer
        async with library.serving(ready=False) as client:
            store_down = lambda response: "does not answer" in response.text  # noqa: E731
            problem(await wait_until(lambda: client.get("/readyz"), store_down), 503)
            assert "does not answer" in problem(await client.post("/v1/search", json={"text": "red"}), 503)
            await asyncio.to_thread(chroma.start)
            await ready(client)
            assert await search_colours(client, text="red", k=1) == ["red"]


def test_a_restore_waits_until_the_store_answers(chroma: ChromaServer, tmp_path: Path) -> None:
    """A NetworkPolicy takes seconds to admit a new pod, as is the one of `controller restore`."""
    env = {**os.environ, "IMGSEARCH_STORE_URL": chroma.url, "IMGSEARCH_STORAGE_URI": (tmp_path / "storage").as_uri()}
    command = [sys.executable, "-m", "searcher", "restore"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("retrying in" in line for line in process.stderr)
        chroma.start()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == ExitCode.USAGE
    assert "the storage has no published run" in output


async def test_searches_during_two_restarts_are_right_or_503(chroma: ChromaServer, library: Library) -> None:
    chroma.start()
    library.publish()
    responses: list[httpx.Response] = []
    async with library.serving() as client:

        async def keep_searching() -> None:
            while not stop:
                responses.append(await client.post("/v1/search", json={"text": "red", "k": 1}))

        stop = False
        clients = [asyncio.create_task(keep_searching()) for _ in range(4)]
        for _ in range(2):
            chroma.kill()
            await wait_until(lambda: client.get("/readyz"), lambda response: response.status_code == 503)
            await asyncio.to_thread(chroma.start)
            await ready(client)
        stop = True
        await asyncio.gather(*clients)
    assert {response.status_code for response in responses} == {200, 503}
    for response in responses:
        if response.status_code == 503:
            assert "does not answer" in problem(response, 503)
        else:
            assert [result["metadata"]["colour"] for result in response.json()["results"]] == ["red"]
