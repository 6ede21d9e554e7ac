"""Requests that are made up from the OpenAPI document, good and bad ones, to the real program, store and model."""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.engine import Status, events, from_schema

from imgsearch.settings import SearchSettings, Settings, StorageSettings, StoreSettings
from tests import index
from tests.programs import await_ready, free_port, program_env
from tests.searcher.library import picture

# The first test waits for all the requests: a minute or two, more on a busy machine.
pytestmark = pytest.mark.timeout(900)

CASES = 2_000
KEY = "of-the-team"
RED = "red.png"
PIXEL = "P3\n1 1\n255\n255 0 0\n"
"""An image file that is text: a red pixel as PPM."""
COMPARISON = {"subject": "a cat", "subject_type": "text", "prompt": ["a dog", "a rocket"]}
REJECTED = ["400", "401", "404", "405", "422"]

CHECKS = {
    # Valid by the document are also an id that no image has (404), a run that is gone (410), and what it can say only
    # in words: that base64 is of an image, that a filter is one of Chroma's, that vectors have the model's dimension,
    # that there is a limit in the settings, and that this searcher fetches no URLs (422). 3xx: the client's copy.
    "positive_data_acceptance": {"expected-statuses": ["2xx", "3xx", "404", "410", "422"]},
    "negative_data_rejection": {"expected-statuses": REJECTED},
}
ACCEPTED = {"negative_data_rejection": {"expected-statuses": ["200", *REJECTED]}}
EXCEPTIONS = [
    # One mistake must not cost the other searches of a batch their answers: it is told in the place of its own.
    {"include-path": "/v1/search/batch", "checks": ACCEPTED},
    # Browsers send a field that was left empty as an empty one: it is taken as not given.
    {"include-path": "/v1/search/image", "checks": ACCEPTED},
]


@dataclass
class Run:
    """What was sent, and what came of it."""

    modes: Counter[GenerationMode] = field(default_factory=Counter)
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    """By operation, as `GET /v1/indexes`."""
    complaints: list[str] = field(default_factory=list)

    def add(self, event: events.EngineEvent) -> None:
        match event:
            case events.ScenarioFinished():
                for case, interaction in event.recorder.interactions.items():
                    case_value = event.recorder.cases[case].value
                    if interaction.response is not None:
                        self.modes[case_value.meta.generation.mode] += 1
                        answered = self.statuses.setdefault(case_value.operation.label, Counter())
                        answered[interaction.response.status_code] += 1
                for checks in event.recorder.checks.values():
                    self.complaints += [_sentence(check) for check in checks if check.status is not Status.SUCCESS]
            case events.NonFatalError():
                self.complaints.append(f"{event.label}: {event.value}")
            case events.FatalError():
                raise event.exception
            case events.EngineFinished():
                self.complaints += [f"{failure.operation}: {failure}" for failure in event.failures]


def _sentence(check: Any) -> str:
    failure = check.failure_info
    return f"{check.name}: {failure.failure.title}: {failure.failure.message}\n{failure.code_sample}"


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Over four images with fields of every type. It wants a key, and fetches nothing from elsewhere."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "photos"
    folder.mkdir()
    rows = []
    for number, colour in enumerate(("red", "green", "blue", "yellow")):
        name = f"{colour}.png"
        (folder / name).write_bytes(picture(colour))
        rows.append(
            {"file_name": name, "colour": colour, "year": 2000 + number, "warm": number % 2 == 1, "tags": [colour]}
        )
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    index.fill(home, folder)
    settings = Settings(
        storage=StorageSettings((home / "storage").as_uri()),
        store=StoreSettings(f"chroma+{(home / 'chroma').as_uri()}"),
        search=SearchSettings(
            port=free_port(), url_schemes="", api_keys=f"team:{hashlib.sha256(KEY.encode()).hexdigest()}"
        ),
    )
    log = home / "log"
    with log.open("wb") as sink:
        command = [sys.executable, "-m", "searcher", "serve"]
        server = subprocess.Popen(command, env=program_env(settings.to_env()), stdout=sink, stderr=sink)
        try:
            url = f"http://127.0.0.1:{settings.search.port}"
            with httpx.Client(base_url=url, timeout=30, headers={"Authorization": f"Bearer {KEY}"}) as client:
                await_ready(client, server, log)
                yield client
        finally:
            server.terminate()
            server.wait(60)


@pytest.fixture(scope="module")
def document(searcher: httpx.Client) -> dict[str, Any]:
    """The description as it is served."""
    description: dict[str, Any] = searcher.get("/openapi.json").raise_for_status().json()
    return description


@pytest.fixture(scope="module")
def run(searcher: httpx.Client, document: dict[str, Any]) -> Run:
    """The same requests each time: what they are made up from is fixed."""
    config = {
        "base-url": str(searcher.base_url),
        "headers": {"Authorization": f"Bearer {KEY}"},
        "seed": 1,
        "generation": {"deterministic": True, "database": "none", "max-examples": 40, "no-shrink": True},
        "analysis": {"constants": {"enabled": False}},  # else texts of this very file are sent, too
        "continue-on-failure": True,
        "request-timeout": 60,
        "checks": CHECKS,
        "operations": EXCEPTIONS,
    }
    schema = schemathesis.openapi.from_dict(_with_help(document), config=schemathesis.Config.from_dict(config))
    run = Run()
    for event in from_schema(schema).execute():
        run.add(event)
    return run


def _with_help(document: dict[str, Any]) -> dict[str, Any]:
    """With what the document says in words only, so that more of the requests come as far as the store and the model,
    and with an image to upload and one to ask for."""
    document = copy.deepcopy(document)
    paths, schemas = document["paths"], document["components"]["schemas"]
    upload = paths["/v1/search/image"]["post"]["requestBody"]["content"]["multipart/form-data"]
    upload["example"] = {"file": PIXEL, "filter": '{"colour": "red"}'}
    paths["/clip/compare"]["post"]["requestBody"]["content"]["application/json"]["example"] = COMPARISON
    paths["/image/{path}"]["get"]["parameters"][0]["example"] = RED
    # True of the document too, but generators of clients make nothing good of `oneOf` beside properties.
    query = ("text", "image", "image_url", "id", "embedding")
    for name, choices in {"Term": query, "Search": (*query, "parts"), "Embed": ("text", "image")}.items():
        schemas[name]["oneOf"] = [
            {"required": [choice], "properties": {choice: {"not": {"type": "null"}}}} for choice in choices
        ]
    return document


def operations(document: dict[str, Any]) -> set[str]:
    return {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}


def test_every_answer_is_one_that_the_document_tells_of(run: Run) -> None:
    assert not run.complaints, "\n\n".join(run.complaints)


def test_thousands_of_requests_were_sent_good_and_bad_ones(run: Run) -> None:
    assert sum(run.modes.values()) >= CASES
    assert min(run.modes[mode] for mode in GenerationMode) >= CASES // 4


def test_every_operation_was_asked_for_and_has_given_what_it_is_for(run: Run, document: dict[str, Any]) -> None:
    assert run.statuses.keys() == operations(document)
    assert [name for name, statuses in run.statuses.items() if not statuses[200]] == []


def test_the_routes_of_other_servers_are_among_them(document: dict[str, Any]) -> None:
    assert {"POST /search", "GET /image/{path}", "POST /clip/compare", "POST /knn-service"} <= operations(document)
