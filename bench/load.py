"""Clients of the searcher, as light as can be, since they share its cores: raw HTTP on one event loop, and no JSON
read before the end."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One search, in milliseconds."""

    wall: float
    """At the client."""
    encode: float
    store: float

    @property
    def ours(self) -> float:
        return self.wall - self.encode - self.store


@dataclass(frozen=True)
class Load:
    """Some seconds of searches."""

    rate: float
    """Searches per second."""
    answers: list[Answer]


@dataclass(frozen=True)
class Crowd:
    """Some seconds of requests by many clients at once."""

    rate: float
    """Requests per second that were answered with 200."""
    walls: list[float]
    """Milliseconds of those."""
    refused: int
    """Answers with 429."""
    failed: int
    """All others, and broken connections."""
    health: list[float]
    """Milliseconds of /healthz meanwhile."""
    seconds: float


def crowds(path: str) -> Callable[[int, list[bytes], int, float, bool], Crowd]:
    """Returns a function that posts JSON bodies to `path` on a port, with `count` clients for some seconds. Each client
    sends its next request after the last response. With `health`, one more client requests /healthz."""

    def run(port: int, bodies: list[bytes], count: int, seconds: float, health: bool) -> Crowd:
        return asyncio.run(_crowd(port, path, bodies, count, seconds, health))

    return run


async def _crowd(port: int, path: str, bodies: list[bytes], count: int, seconds: float, health: bool) -> Crowd:
    heads = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    requests = itertools.cycle([b"%b%d\r\n\r\n%b" % (heads.encode(), len(body), body) for body in bodies])
    start = time.perf_counter()
    until = start + seconds
    asking = [_posting(port, requests, until) for _ in range(count)]
    done, looks = await asyncio.gather(asyncio.gather(*asking), _looking(port, until) if health else _nothing())
    took = time.perf_counter() - start
    answers = [answer for some in done for answer in some]
    walls = [wall for status, wall in answers if status == 200]
    refused = sum(status == 429 for status, _ in answers)
    return Crowd(len(walls) / took, walls, refused, len(answers) - len(walls) - refused, looks, took)


def looks() -> Callable[[int, int, float], int]:
    """Returns a function that requests /healthz on a port with some clients for some seconds and counts responses."""

    async def crowd(port: int, count: int, seconds: float) -> int:
        until = time.perf_counter() + seconds
        return sum(map(len, await asyncio.gather(*(_looking(port, until, pause=0) for _ in range(count)))))

    def run(port: int, count: int, seconds: float) -> int:
        return asyncio.run(crowd(port, count, seconds))

    return run


async def _posting(port: int, requests: Iterator[bytes], until: float) -> list[tuple[int, float]]:
    """The status and the milliseconds of each answer; status 0 is a broken connection."""
    done = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (before := time.perf_counter()) < until:
        try:
            status = await _ask(reader, writer, next(requests))
        except (OSError, EOFError):
            status = 0
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        done.append((status, (time.perf_counter() - before) * 1000))
        if status == 429:
            await asyncio.sleep(0.1)
    writer.close()
    return done


async def _looking(port: int, until: float, *, pause: float = 0.01) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    looks = []
    while (before := time.perf_counter()) < until:
        assert await _ask(reader, writer, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") == 200
        looks.append((time.perf_counter() - before) * 1000)
        await asyncio.sleep(pause)
    writer.close()
    return looks


async def _nothing() -> list[float]:
    return []


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
    return int(head[9:12])


def clients(port: int) -> Callable[[str, list[str], int, float], Load]:
    """Returns a function that searches `index` for `texts` repeatedly, with `count` clients for some seconds."""

    def run(index: str, texts: list[str], count: int, seconds: float) -> Load:
        return asyncio.run(_search(port, index, texts, count, seconds))

    return run


async def _search(port: int, index: str, texts: list[str], count: int, seconds: float) -> Load:
    requests = _requests(index, texts)
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    start = time.perf_counter()
    done = await asyncio.gather(*(_client(*connection, requests, start + seconds) for connection in connections))
    took = time.perf_counter() - start
    for _, writer in connections:
        writer.close()
    answers = [_answer(wall, body) for some in done for wall, body in some]
    return Load(len(answers) / took, answers)


def _requests(index: str, texts: list[str]) -> Iterator[bytes]:
    while True:
        for text in texts:
            body = json.dumps({"text": text, "index": index, "k": 10}).encode()
            yield b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + (
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )


async def _client(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: Iterator[bytes], until: float
) -> list[tuple[float, bytes]]:
    done = []
    while (before := time.perf_counter()) < until:
        writer.write(next(requests))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        done.append((time.perf_counter() - before, body))
    return done


def _answer(wall: float, body: bytes) -> Answer:
    took = json.loads(body)["took_ms"]
    return Answer(wall * 1000, took["encode"], took["store"])
