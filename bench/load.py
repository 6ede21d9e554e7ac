"""Clients of the searcher, as light as can be, since they share its cores: raw HTTP on one event loop, and no JSON
read before the end."""

from __future__ import annotations

import asyncio
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
    """What came of some seconds of searching."""

    rate: float
    """Searches per second."""
    answers: list[Answer]


def clients(port: int) -> Callable[[str, list[str], int, float], Load]:
    """What is returned searches `index` for `texts`, over and over, with `count` clients for so many seconds."""

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
