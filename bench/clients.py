"""Light clients of the searcher: raw HTTP on one event loop, because they share the cores of the searcher."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
RETRY_SECONDS = 0.1
"""The pause of a client after a response 429."""


@dataclass(frozen=True)
class SearchTimes:
    """The times of one search, in milliseconds."""

    total: float
    """The time at the client."""
    encode: float
    store: float

    @property
    def ours(self) -> float:
        return self.total - self.encode - self.store


@dataclass(frozen=True)
class SearchLoad:
    """The searches of some clients."""

    rate: float
    """Searches per second."""
    searches: list[SearchTimes]


@dataclass(frozen=True)
class RequestLoad:
    """The requests of some clients."""

    rate: float
    """Responses 200 per second."""
    milliseconds: list[float]
    """The time of each response 200."""
    refused: int
    """Responses 429."""
    failed: int
    """Other responses, and broken connections."""
    health_milliseconds: list[float]
    """The time of each request to /healthz meanwhile."""


def request_clients(path: str) -> Callable[[int, list[bytes], int, float, bool], RequestLoad]:
    """Returns a function that posts JSON bodies to `path` on a port, with `count` clients for some seconds. Each client
    sends its next request after the last response. With `health`, one more client requests /healthz."""

    def run(port: int, bodies: list[bytes], count: int, seconds: float, health: bool) -> RequestLoad:
        return asyncio.run(_request_load(port, _posts(path, bodies), count, seconds, health))

    return run


def health_clients() -> Callable[[int, int, float], int]:
    """Returns a function that requests /healthz on a port with some clients for some seconds and counts responses."""

    async def requests(port: int, count: int, seconds: float) -> int:
        deadline = time.perf_counter() + seconds
        clients = [_check_health(port, deadline, pause=0) for _ in range(count)]
        return sum(map(len, await asyncio.gather(*clients)))

    def run(port: int, count: int, seconds: float) -> int:
        return asyncio.run(requests(port, count, seconds))

    return run


def search_clients(port: int) -> Callable[[str, list[str], int, float], SearchLoad]:
    """Returns a function that searches `index` for `texts` repeatedly, with `count` clients for some seconds."""

    def run(index: str, texts: list[str], count: int, seconds: float) -> SearchLoad:
        bodies = [json.dumps({"text": text, "index": index, "k": 10}).encode() for text in texts]
        return asyncio.run(_search_load(port, _posts("/v1/search", bodies), count, seconds))

    return run


def _posts(path: str, bodies: list[bytes]) -> Iterator[bytes]:
    """The requests, repeated without end."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ".encode()
    return itertools.cycle([b"%b%d\r\n\r\n%b" % (head, len(body), body) for body in bodies])


async def _request_load(port: int, requests: Iterator[bytes], count: int, seconds: float, health: bool) -> RequestLoad:
    start = time.perf_counter()
    deadline = start + seconds
    checks = asyncio.create_task(_check_health(port, deadline)) if health else None
    clients = await asyncio.gather(*(_post(port, requests, deadline) for _ in range(count)))
    health_milliseconds = await checks if checks else []
    duration = time.perf_counter() - start
    responses = [response for client in clients for response in client]
    succeeded = [milliseconds for status, milliseconds in responses if status == 200]
    refused = sum(status == 429 for status, _ in responses)
    failed = len(responses) - len(succeeded) - refused
    return RequestLoad(len(succeeded) / duration, succeeded, refused, failed, health_milliseconds)


async def _search_load(port: int, requests: Iterator[bytes], count: int, seconds: float) -> SearchLoad:
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    start = time.perf_counter()
    deadline = start + seconds
    clients = await asyncio.gather(*(_search(*connection, requests, deadline) for connection in connections))
    duration = time.perf_counter() - start
    for _, writer in connections:
        writer.close()
    # The JSON is parsed at the end, because parsing takes CPU time, too.
    searches = [_search_times(milliseconds, body) for client in clients for milliseconds, body in client]
    return SearchLoad(len(searches) / duration, searches)


async def _post(port: int, requests: Iterator[bytes], deadline: float) -> list[tuple[int, float]]:
    """Sends requests until the deadline. Returns the status and the milliseconds of each response; the status of a
    broken connection is 0."""
    responses = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (start := time.perf_counter()) < deadline:
        try:
            status, _ = await _send(reader, writer, next(requests))
        except (OSError, EOFError):
            status = 0
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        responses.append((status, _milliseconds(start)))
        if status == 429:
            await asyncio.sleep(RETRY_SECONDS)
    writer.close()
    return responses


async def _check_health(port: int, deadline: float, *, pause: float = 0.01) -> list[float]:
    """Requests /healthz until the deadline. Returns the milliseconds of each response."""
    milliseconds = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (start := time.perf_counter()) < deadline:
        status, _ = await _send(reader, writer, HEALTH)
        assert status == 200, status
        milliseconds.append(_milliseconds(start))
        await asyncio.sleep(pause)
    writer.close()
    return milliseconds


async def _search(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: Iterator[bytes], deadline: float
) -> list[tuple[float, bytes]]:
    """Searches until the deadline. Returns the milliseconds and the body of each response."""
    responses = []
    while (start := time.perf_counter()) < deadline:
        status, body = await _send(reader, writer, next(requests))
        assert status == 200, body
        responses.append((_milliseconds(start), body))
    return responses


async def _send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes]:
    """The status and the body of the response."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    return int(head[9:12]), await reader.readexactly(length)


def _search_times(milliseconds: float, body: bytes) -> SearchTimes:
    took = json.loads(body)["took_ms"]
    return SearchTimes(milliseconds, took["encode"], took["store"])


def _milliseconds(start: float) -> float:
    return (time.perf_counter() - start) * 1000
