"""A client that hangs up leaves its places, and its work, to others."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from searcher.http.connections import HangUpCancellation
from tests.searcher.library import TIMEOUT, uploads
from tests.searcher.process import SearcherProcess, metric, wait_for_metric, wait_for_text

pytestmark = pytest.mark.anyio

HUNG_UP = 'imgsearch_requests_total{method="POST",route="/v1/search",status="499"}'
ANSWERED = 'imgsearch_requests_total{method="POST",route="/v1/search",status="200"}'
QUEUE = "imgsearch_encode_queue"


def send(server: SearcherProcess, search: dict[str, Any], *, missing: int = 0, behind: bytes = b"") -> socket.socket:
    """Sends a search over a connection of its own, without its last bytes, or with others behind it."""
    address, body = urlsplit(server.url), json.dumps(search).encode()
    connection = socket.create_connection((address.hostname, address.port), timeout=TIMEOUT)
    head = "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) - missing] + behind)
    return connection


def colour(connection: socket.socket) -> str:
    """The colour of the best result, from the response."""
    with connection, connection.makefile("rb") as response:
        assert response.readline() == b"HTTP/1.1 200 OK\r\n"
        length = 0
        while (line := response.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split()[1])
        return str(json.loads(response.read(length))["results"][0]["metadata"]["colour"])


def test_searches_leave_the_middle_of_the_queue_with_their_clients(tmp_path: Path) -> None:
    """320 image queries, of which 256 are admitted: all but the first and the last of these hang up."""
    with SearcherProcess(tmp_path) as server:
        wait_for_text(server.url, "/readyz", "ready")
        red, blue = uploads("red", "blue")
        first = send(server, {"image": red, "k": 1})
        wait_for_metric(server.url, "imgsearch_batch_images_count", 1)  # the model is busy with it
        gone = [send(server, {"image": red, "k": 1}) for _ in range(254)]
        wait_for_metric(server.url, QUEUE, 255)
        last = send(server, {"image": blue, "k": 1})
        wait_for_metric(server.url, QUEUE, 256)
        assert httpx.post(server.url + "/v1/search", json={"text": "green"}, timeout=TIMEOUT).status_code == 429
        for connection in gone:
            connection.close()
        wait_for_metric(server.url, QUEUE, 2)
        text = send(server, {"text": "green", "k": 1})
        wait_for_metric(server.url, QUEUE, 3)
        server.finish()
        assert [colour(connection) for connection in (first, last, text)] == ["red", "blue", "green"]
        wait_for_metric(server.url, ANSWERED, 3)
        assert metric(server.url, HUNG_UP) == 254
        assert metric(server.url, "imgsearch_batch_images_sum") == 2  # the first and the last: no other was encoded


def test_a_search_whose_client_is_gone_ends_while_the_model_works_for_it(tmp_path: Path) -> None:
    with SearcherProcess(tmp_path, max_waiting=1) as server:
        wait_for_text(server.url, "/readyz", "ready")
        search = send(server, {"text": "red"})
        wait_for_metric(server.url, "imgsearch_batch_texts_count", 1)
        search.close()
        wait_for_metric(server.url, HUNG_UP, 1)
        assert metric(server.url, QUEUE) == 0
        search = send(server, {"text": "blue", "k": 1})
        wait_for_metric(server.url, QUEUE, 1)
        server.finish()
        assert colour(search) == "blue"


@pytest.mark.parametrize("together", [True, False], ids=["together", "later"])
def test_a_client_that_hangs_up_is_gone_also_with_a_second_request_behind_the_first(
    tmp_path: Path, together: bool
) -> None:
    second = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with SearcherProcess(tmp_path) as server:
        wait_for_text(server.url, "/readyz", "ready")
        connection = send(server, {"text": "red"}, behind=second if together else b"")
        wait_for_metric(server.url, QUEUE, 1)
        if not together:
            connection.sendall(second)
        connection.close()
        wait_for_metric(server.url, HUNG_UP, 1)
        assert metric(server.url, QUEUE) == 0


def test_a_client_that_hangs_up_before_its_body_is_complete_counts_as_gone(tmp_path: Path) -> None:
    with SearcherProcess(tmp_path) as server:
        send(server, {"text": "red"}, missing=1).close()
        wait_for_metric(server.url, HUNG_UP, 1)
        assert metric(server.url, 'imgsearch_requests_total{method="POST",route="/v1/search",status="400"}') == 0
        assert "Traceback" not in server.log.read_text()


async def test_a_fetch_ends_with_its_client_and_those_that_wait_for_a_place_never_begin(tmp_path: Path) -> None:
    requests, closed = 0, asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1
        await reader.read()  # until the searcher closes the connection
        writer.close()
        closed.set()

    async with await asyncio.start_server(stall, "127.0.0.1", 0) as web:
        port = web.sockets[0].getsockname()[1]
        settings = {"url_schemes": "http", "url_allow": f"127.0.0.1:{port}", "url_fetches": 1}
        with SearcherProcess(tmp_path, **settings, url_seconds=3600) as server:
            await asyncio.to_thread(wait_for_text, server.url, "/readyz", "ready")
            search = {"image_url": f"http://127.0.0.1:{port}/a.png"}
            fetching = send(server, search)
            await asyncio.to_thread(wait_for_metric, server.url, "imgsearch_fetch_queue", 1)
            waiting = [send(server, search) for _ in range(2)]
            await asyncio.to_thread(wait_for_metric, server.url, "imgsearch_fetch_queue", 3)
            for connection in waiting:
                connection.close()
            await asyncio.to_thread(wait_for_metric, server.url, "imgsearch_fetch_queue", 1)
            fetching.close()
            await asyncio.to_thread(wait_for_metric, server.url, HUNG_UP, 3)
            async with asyncio.timeout(TIMEOUT):
                await closed.wait()
            assert await asyncio.to_thread(metric, server.url, "imgsearch_fetch_queue") == 0
    assert requests == 1


# Without a server: what the middleware does with what a server tells it.


class Exchange:
    """A request of a client that can hang up, and what the middleware sends."""

    def __init__(self, *, body: bool = False) -> None:
        self.sent: list[Any] = []
        self.hang_up = asyncio.Event()
        self.scope = {"type": "http", "headers": [(b"content-length", b"4")] if body else []}
        self._messages = [{"type": "http.request", "body": b"body" if body else b"", "more_body": False}]

    async def receive(self) -> Any:
        if self._messages:
            return self._messages.pop()
        await self.hang_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body":
            self.hang_up.set()  # as servers do after a response

    @property
    def statuses(self) -> list[int]:
        return [message["status"] for message in self.sent if message["type"] == "http.response.start"]


async def respond(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("body", [False, True], ids=["no body", "body"])
async def test_a_request_is_cancelled_where_it_waits(body: bool) -> None:
    exchange, cancelled = Exchange(body=body), False

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal cancelled
        assert (await receive())["body"] == (b"body" if body else b"")
        exchange.hang_up.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    async with asyncio.timeout(TIMEOUT):
        await HangUpCancellation(app)(exchange.scope, exchange.receive, exchange.send)
    assert cancelled
    assert exchange.statuses == [499]
    task = asyncio.current_task()
    assert task
    assert task.cancelling() == 0


async def test_what_follows_a_complete_response_is_not_cancelled() -> None:
    exchange, finished = Exchange(), False

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal finished
        await respond(send)
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        await asyncio.sleep(0)
        finished = True

    await HangUpCancellation(app)(exchange.scope, exchange.receive, exchange.send)
    assert finished
    assert exchange.statuses == [200]


async def test_a_shutdown_cancels_as_before() -> None:
    exchange, started = Exchange(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(HangUpCancellation(app)(exchange.scope, exchange.receive, exchange.send))
    await started.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert exchange.statuses == []
