"""A cluster as the tests use it: kubectl, helm and the controller as programs, and one namespace."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import chromadb
import httpx
import yaml

from imgsearch.runs.layout import collection_name
from tests.programs import CONTROLLER, ROOT, WIDE, free_port

T = TypeVar("T")

CHART = ROOT / "charts" / "imgsearch"
RELEASE = "imgsearch"
COMMANDS = {name: value for name, value in os.environ.items() if name.startswith("IMGSEARCH_TEST_")}
"""Read here, since a test's own environment is clean of them."""
POLL_SECONDS = 0.5
NAME, INSTANCE, COMPONENT = (f"app.kubernetes.io/{key}" for key in ("name", "instance", "component"))


class NotYet(Exception):
    """What was waited for has not come."""


def wait_until(probe: Callable[[], T | None], event: str, *, seconds: float = 120) -> T:
    """What `look` returns once it is something; raises NotYet, naming `what`, when the time is over."""
    given_up = time.monotonic() + seconds
    while time.monotonic() < given_up:
        if result := probe():
            return result
        time.sleep(POLL_SECONDS)
    raise NotYet(f"{event}: not within {seconds:.0f} s")


def pause(seconds: float) -> None:
    """Lets time pass that is the test's subject: a node's absence."""
    time.sleep(seconds)


def command(name: str, *arguments: str, seconds: float = 300) -> str:
    """Runs the command that the environment variable `name` holds, with `words` behind it; returns its output."""
    if name not in COMMANDS:
        raise LookupError(f"{name} is not set; tests/cluster/README.md says what it must do")
    return subprocess.run(
        [*shlex.split(COMMANDS[name]), *arguments], check=True, capture_output=True, text=True, timeout=seconds
    ).stdout


class World:
    """One namespace, and one release of the chart in it. `program` is the controller, which `env` is told too."""

    def __init__(
        self,
        namespace: str,
        release: str = RELEASE,
        *,
        program: Sequence[str] = CONTROLLER,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.namespace = namespace
        self.release = release
        self.program = program
        self.env = dict(env or {})

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True, seconds: float = 180) -> str:
        completed = subprocess.run(
            ["kubectl", "--namespace", self.namespace, *arguments],
            input=input,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        if check and completed.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {completed.stderr.strip()}")
        return completed.stdout if completed.returncode == 0 or not check else completed.stderr

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        self.kubectl("apply", "--filename", "-", input=yaml.safe_dump_all(objects))

    def helm(self, *arguments: str, seconds: float = 400) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["helm", "--namespace", self.namespace, *arguments], capture_output=True, text=True, timeout=seconds
        )

    def install(self, values: Mapping[str, Any]) -> str:
        """`helm upgrade --install --wait`; returns NOTES."""
        completed = self.chart("upgrade", values, "--install", "--wait", "--timeout", "5m")
        assert completed.returncode == 0, completed.stderr + self.kubectl("get", "pods,events", check=False)
        return completed.stdout

    def chart(self, verb: str, values: Mapping[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
        """`helm VERB` of the chart with these values."""
        return subprocess.run(
            ["helm", "--namespace", self.namespace, verb, self.release, str(CHART), "--values", "-", *arguments],
            input=yaml.safe_dump(dict(values)),
            capture_output=True,
            text=True,
            timeout=400,
        )

    def controller(self, *arguments: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Runs `controller WORDS` against this namespace to its end."""
        return subprocess.run(
            [*self.program, *arguments, "--namespace", self.namespace, "--release", self.release],
            env={**os.environ, **WIDE, **self.env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def ask(self, *arguments: str) -> Any:
        """What `controller WORDS --output json` prints."""
        completed = self.controller(*arguments, "--output", "json")
        assert completed.returncode == 0, completed.stderr
        return json.loads(completed.stdout)

    @contextmanager
    def controlling(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """`controller WORDS` while the block runs; killed at its end if it has not ended by itself."""
        with subprocess.Popen(
            [*self.program, *arguments, "--namespace", self.namespace, "--release", self.release],
            env={**os.environ, **WIDE, **self.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def searcher(self, key: str | None = None) -> Iterator[httpx.Client]:
        """A client of the searcher through `kubectl port-forward`, as a person at a desk has it."""
        with self.forwarded(f"svc/{self.release}-searcher", 80) as url:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            with httpx.Client(base_url=url, timeout=30, headers=headers) as client:
                yield client

    @contextmanager
    def forwarded(self, target: str, port: int) -> Iterator[str]:
        local_port = free_port()
        with subprocess.Popen(
            ["kubectl", "--namespace", self.namespace, "port-forward", target, f"{local_port}:{port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()  # it says when it listens
                assert "Forwarding from" in line, line + process.stdout.read()
                yield f"http://127.0.0.1:{local_port}"
            finally:
                process.kill()

    def job(self, run: str, stage: str) -> dict[str, Any] | None:
        chosen = f"{INSTANCE}={self.release},imgsearch.dev/run={run},{COMPONENT}={stage}"
        jobs = self.get("jobs", "--selector", chosen)["items"]
        return jobs[0] if jobs else None

    def pods(self, component: str, *, phase: str | None = None) -> list[dict[str, Any]]:
        pods = self.get("pods", "--selector", f"{INSTANCE}={self.release},{COMPONENT}={component}")["items"]
        return [pod for pod in pods if phase in (None, pod["status"].get("phase"))]

    def objects(self, kinds: str, selector: str) -> list[str]:
        """Names of the release's objects of these kinds, with these labels."""
        items = self.get(kinds, "--selector", f"{INSTANCE}={self.release},{selector}")["items"]
        return [str(item["metadata"]["name"]) for item in items]

    def status_with(self, sentence: str, *arguments: str) -> str:
        """What `controller status WORDS` prints, if the sentence is in it; else empty."""
        completed = self.controller("status", *arguments)
        text = completed.stdout + completed.stderr
        return text if sentence in text else ""

    def embedding(self, run: str) -> dict[str, Any]:
        """The stage `embed` in `status`; empty before its Job exists."""
        if self.job(run, "embed") is None:
            return {}
        return next((stage for stage in self.ask("status", run)["stages"] if stage["stage"] == "embed"), {})

    def pods_of(self, run: str) -> list[dict[str, Any]]:
        """The pods that embed a run."""
        return [pod for pod in self.pods("embed") if pod["metadata"]["labels"]["imgsearch.dev/run"] == run]

    def python(self, pod: str, script: str) -> str:
        """Runs a script in a pod."""
        return self.kubectl("exec", "--stdin", pod, "--", "python", "-", input=script)


def stored_ids(world: World, index: str, run: str) -> list[str]:
    """Every id of a run's collection, as Chroma has it: pages of a search overlap where photos are alike."""
    with world.forwarded(f"svc/{world.release}-chroma", 8000) as url:
        quiet = chromadb.Settings(anonymized_telemetry=False)
        client = chromadb.HttpClient(host="127.0.0.1", port=int(url.rpartition(":")[2]), settings=quiet)
        collection = client.get_collection(collection_name(index, run), embedding_function=None)
        return sorted(collection.get(include=[])["ids"])


def serves(client: httpx.Client, index: str, run: str) -> bool:
    """Whether the searcher has noticed that the index points to the run, and has loaded its model."""
    response = client.post("/v1/search", json={"text": "a photo", "k": 1, "index": index})
    return response.is_success and bool(response.json()["run"] == run)


def ids(client: httpx.Client, index: str, run: str) -> list[str]:
    """Every id of an index of up to a few thousand images, by paging through a search, once it serves the run."""
    wait_until(lambda: serves(client, index, run), f"the searcher serves {run}")
    all_ids: list[str] = []
    offset: int | None = 0
    while offset is not None:
        response = client.post("/v1/search", json={"text": "a photo", "k": 200, "offset": offset, "index": index})
        response.raise_for_status()
        all_ids += [hit["id"] for hit in response.json()["results"]]
        offset = response.json()["next_offset"]
    return sorted(all_ids)
