"""Several processes behind one port, as real ones: what they share, and how they come and go."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from imgsearch.errors import UsageError
from imgsearch.settings import SearchSettings, Settings, StorageSettings, StoreSettings
from imgsearch.stores import Pointer, Record
from imgsearch.stores.chroma import ChromaStore
from searcher.server.socket import listen
from searcher.server.supervisor import worker_count
from tests.conftest import DEMO_MODEL
from tests.fakes import COLOURS
from tests.programs import PAUSE_SECONDS, ChromaServer, free_port, program_env
from tests.searcher.library import hashed
from tests.searcher.process import refuses, wait_for_text

BODY = json.dumps({"text": "red", "k": -1}).encode()
"""Of a search that needs no model to be answered: with 422."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """The address of a Chroma with an index of plain colours."""
    # Here, since torch takes seconds to import, and the other tests need none.
    from imgsearch.encoder.openclip import load_encoder

    encoder = load_encoder(DEMO_MODEL)
    (tmp_path / "chroma").mkdir()
    with ChromaServer(tmp_path / "chroma") as server:
        server.start()
        images = [Image.new("RGB", (32, 24), colour) for colour in COLOURS.values()]
        vectors = encoder.encode_images([encoder.prepare(image) for image in images])
        internal = {"key": "a.png", "run": "r1", "width": 32, "height": 24}
        records = [
            Record(name, {"colour": name}, vector, internal) for name, vector in zip(COLOURS, vectors, strict=True)
        ]
        chroma = ChromaStore(server.url)
        chroma.create("photos-r1", dim=encoder.dim, vectors=100)
        chroma.add("photos-r1", records)
        model_fields = {
            "model": DEMO_MODEL,
            "fingerprint": encoder.fingerprint,
            "dim": encoder.dim,
            "source": "/photos",
        }
        published_at = "2026-01-01T00:00:00+00:00"
        chroma.publish(
            Pointer("photos", "r1", "photos-r1", images=len(records), published=published_at, **model_fields)
        )
        yield server.url


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a searcher with two workers, whose store never answers."""
    return Settings(
        storage=StorageSettings((tmp_path / "storage").as_uri()),
        store=StoreSettings(f"chroma+http://127.0.0.1:{free_port()}"),
        search=SearchSettings(port=free_port(), workers=2),
    )


@dataclass(frozen=True)
class Searcher:
    """A searcher with workers."""

    process: subprocess.Popen[str]
    url: str

    def workers(self) -> list[int]:
        """Their process ids, the oldest first."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return sorted(map(int, children.read_text().split()))

    def answering(self, path: str = "/healthz", text: str = "ok") -> list[int]:
        """Its two workers, once each of them answers so."""
        while len(workers := self.workers()) < 2:
            assert self.process.poll() is None
            time.sleep(PAUSE_SECONDS)
        for worker in workers:
            with self.only(worker):
                wait_for_text(self.url, path, text)
        return workers

    @contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """Nobody but this worker answers."""
        other_workers = [name for name in self.workers() if name != worker]
        for other_worker in other_workers:
            os.kill(other_worker, signal.SIGSTOP)
        yield
        for other_worker in other_workers:
            os.kill(other_worker, signal.SIGCONT)

    def get(self, path: str) -> httpx.Response:
        """The answer over a connection of its own."""
        return httpx.get(self.url + path, timeout=30)

    def check_refused(self) -> None:
        assert httpx.post(self.url + "/v1/search", content=BODY, timeout=30).status_code == 422

    def samples(self) -> dict[str, float]:
        """Every sample of /metrics, written as name{label values}."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        all_samples = [sample for family in families for sample in family.samples]
        samples = {f"{sample.name}{{{','.join(sample.labels.values())}}}": sample.value for sample in all_samples}
        assert len(samples) == len(all_samples)
        return samples

    def wait_for_searches(self, searches: int) -> None:
        """Returns once so many are: each is when its answer has been sent, and a stopped worker counts none."""
        while self.samples().get("imgsearch_request_seconds_count{/v1/search}") != searches:
            time.sleep(PAUSE_SECONDS)


@contextmanager
def start_searcher(settings: Settings) -> Iterator[Searcher]:
    """In a process group of its own, as a terminal would have it."""
    with subprocess.Popen(
        [sys.executable, "-m", "searcher", "serve"],
        env=program_env(settings.to_env()),
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        try:
            yield Searcher(process, f"http://127.0.0.1:{settings.search.port}")
        finally:
            process.kill()


def run_to_end(settings: Settings) -> tuple[int, str]:
    """How a searcher ends that cannot serve: its exit code and what it wrote."""
    with start_searcher(settings) as searcher:
        _, log = searcher.process.communicate()
        return searcher.process.returncode, log


def test_workers_give_the_same_results_and_any_of_them_tells_what_all_have_counted(
    settings: Settings, store: str
) -> None:
    with start_searcher(replace(settings, store=StoreSettings(store))) as searcher:
        workers = searcher.answering("/readyz", '"serving":{"photos":"r1"}')
        results = []
        for texts, worker in zip((["red"], ["red", "blue"]), workers, strict=True):
            with searcher.only(worker):
                for text in texts:
                    response = httpx.post(searcher.url + "/v1/search", json={"text": text, "k": 3}, timeout=30)
                    assert response.status_code == 200, response.text
                    results.append(response.json()["results"])
        assert len(results[0]) == 3
        assert results[0] == results[1] != results[2]
        searcher.wait_for_searches(3)
        for worker in workers:
            with searcher.only(worker):
                samples = searcher.samples()
            assert samples["imgsearch_requests_total{POST,/v1/search,200}"] == 3
            assert samples["imgsearch_request_seconds_count{/v1/search}"] == 3
            assert samples["imgsearch_cache_misses_total{}"] == 3
            assert samples["imgsearch_encode_queue{}"] == 0
            assert samples["imgsearch_ready{}"] == 1
            assert samples["imgsearch_store_up{}"] == 1
            assert samples["imgsearch_index_images{photos}"] == len(COLOURS)
            assert samples[f"imgsearch_index_info{{photos,{DEMO_MODEL},r1}}"] == 1


def test_a_worker_that_is_killed_is_replaced_and_what_it_counted_stays(settings: Settings) -> None:
    with start_searcher(settings) as searcher:
        first, second = searcher.answering()
        with searcher.only(first):
            searcher.check_refused()
            assert searcher.get("/readyz").status_code == 503
        with searcher.only(second):
            assert searcher.samples()["imgsearch_ready{}"] == 0
        os.kill(first, signal.SIGKILL)
        while first in searcher.workers():
            pass
        searcher.check_refused()
        searcher.wait_for_searches(2)
        for worker in searcher.answering():
            with searcher.only(worker):
                samples = searcher.samples()
            assert samples["imgsearch_requests_total{POST,/v1/search,422}"] == 2
            assert "imgsearch_ready{}" not in samples  # as nobody has asked those that live
        searcher.process.terminate()
        assert searcher.process.wait() == 0


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_running_request_end_and_then_all(settings: Settings, stop: signal.Signals) -> None:
    with start_searcher(settings) as searcher:
        searcher.answering()
        with send_part_of_request(settings.search.port) as request:
            if stop == signal.SIGINT:
                os.killpg(searcher.process.pid, stop)  # as Ctrl-C does
            else:
                searcher.process.send_signal(stop)
            refuses(searcher.url)
            request.sendall(BODY)
            assert b"HTTP/1.1 422" in read_all(request)
        assert searcher.process.wait() == 0


def test_after_sigterm_no_worker_is_ready_and_all_linger_until_a_second_one(settings: Settings) -> None:
    with start_searcher(replace(settings, search=replace(settings.search, linger_seconds=3600))) as searcher:
        workers = searcher.answering()
        searcher.process.terminate()
        for worker in workers:
            with searcher.only(worker):
                wait_for_text(searcher.url, "/readyz", "shutting down")
                assert searcher.get("/healthz").headers["connection"] == "close"
        searcher.process.terminate()
        assert searcher.process.wait() == 0


def test_workers_leave_when_the_process_is_gone_that_looks_after_them(settings: Settings) -> None:
    with start_searcher(settings) as searcher:
        searcher.answering()
        searcher.process.kill()
        refuses(searcher.url)


def test_a_port_in_use_is_one_clear_sentence(settings: Settings) -> None:
    with listen("127.0.0.1", settings.search.port):
        code, log = run_to_end(settings)
    assert code == 2
    assert log.startswith(f"error: port {settings.search.port} ")
    assert "--port" in log
    assert log.count("\n") == 1


def test_settings_that_make_no_sense_are_one_clear_sentence(settings: Settings) -> None:
    search_settings = replace(settings.search, api_keys=hashed("secret") + ",oops")
    code, log = run_to_end(replace(settings, search=search_settings))
    assert code == 2
    assert log.startswith("error: IMGSEARCH_SEARCH_API_KEYS")
    assert "entry 2" in log
    assert log.count("\n") == 1


def test_workers_that_are_killed_before_they_can_answer_end_it(settings: Settings) -> None:
    with start_searcher(settings) as searcher:
        while not (workers := searcher.workers()):
            assert searcher.process.poll() is None
        os.kill(workers[0], signal.SIGKILL)
        _, log = searcher.process.communicate()
    assert searcher.process.returncode == 3
    assert "SIGKILL" in log
    assert "IMGSEARCH_SEARCH_WORKERS" in log


@pytest.mark.parametrize(
    ("limit", "workers", "expected"),
    [("max", None, 1), ("100000", None, 1), ("700000", None, 1), ("1200000", None, 3), ("100000", 5, 5)],
)
def test_there_is_a_worker_for_every_four_cpus_of_a_limit_or_as_many_as_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, workers: int | None, expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "cpu.max").write_text(f"{limit} 100000\n")
    settings = Settings(store=StoreSettings("chroma+http://chroma:8000"), search=SearchSettings(workers=workers))
    assert worker_count(settings, cgroup=tmp_path) == expected
    files = replace(settings, store=StoreSettings("chroma+file:///data"))
    if workers is None:
        assert worker_count(files, cgroup=tmp_path) == 1
    else:
        with pytest.raises(UsageError, match=r"IMGSEARCH_SEARCH_WORKERS=5 .*IMGSEARCH_STORE_URL"):
            worker_count(files, cgroup=tmp_path)


def test_no_worker_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'0' for search.workers \(IMGSEARCH_SEARCH_WORKERS\)"):
        Settings.from_env({"IMGSEARCH_SEARCH_WORKERS": "0"})


@contextmanager
def send_part_of_request(port: int) -> Iterator[socket.socket]:
    """A search that is being answered and waits for its body."""
    request = (
        "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request.encode())
        assert connection.recv(1024).startswith(b"HTTP/1.1 100")
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side has closed it."""
    return b"".join(iter(lambda: connection.recv(65536), b""))
