"""The API key: what needs it, how it is brought, and that a wrong one tells nothing."""

from __future__ import annotations

import json

import httpx
import pytest

from imgsearch.errors import UsageError
from tests.searcher.library import Library, found, picture, problem

pytestmark = pytest.mark.anyio

KEY = "correct-horse"
BEARER = {"Authorization": f"Bearer {KEY}"}
PATHS = [
    "/v1/indexes",
    "/v1/images/some-id",
    "/v1/images/some-id/thumbnail",
    "/docs",
    "/openapi.json",
    "/no/such/path",
    "/healthz/",
]


async def test_without_a_key_set_nobody_needs_one(gallery: Library) -> None:
    async with gallery.serving() as client:
        assert await found(client, text="red", k=1) == ["red"]
        assert (await client.get("/docs")).status_code == 200
        problem(await client.post("/v1/login", json={"key": "any"}), 404)


@pytest.mark.parametrize("path", PATHS)
async def test_whatever_shows_something_needs_the_key(gallery: Library, path: str) -> None:
    async with gallery.serving(api_key=KEY) as client:
        refused = await client.get(path)
        assert "Authorization: Bearer" in problem(refused, 401)
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert (await client.get(path, headers=BEARER)).status_code != 401


async def test_searches_need_the_key_and_are_answered_with_it(gallery: Library) -> None:
    upload = {"file": picture("red")}
    async with gallery.serving(api_key=KEY) as client:
        for call in [
            {"url": "/v1/search", "json": {"text": "red", "k": 1}},
            {"url": "/v1/search/image", "files": upload},
            {"url": "/v1/embed", "json": {"text": ["red"]}},
        ]:
            problem(await client.request("POST", **call), 401)  # type: ignore[arg-type]
            assert (await client.request("POST", headers=BEARER, **call)).status_code == 200  # type: ignore[arg-type]
        assert "imgsearch_requests_total" in (await client.get("/metrics")).text


async def test_a_request_without_the_key_is_refused_before_its_body_is_looked_at(gallery: Library) -> None:
    async with gallery.serving(api_key=KEY, max_body_bytes=10) as client:
        problem(await client.post("/v1/search", content=b"x" * 100), 401)
        problem(await client.post("/v1/search", content=b"x" * 100, headers=BEARER), 413)


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js", "/healthz", "/readyz", "/metrics"])
async def test_probes_metrics_and_the_empty_page_need_no_key(gallery: Library, path: str) -> None:
    async with gallery.serving(api_key=KEY) as client:
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer wrong",
        b"Bearer correct-hors",
        b"Bearer correct-horse2",
        b"Bearer CORRECT-HORSE",
        b"Basic Y29ycmVjdC1ob3JzZQ==",
        b"correct-horse",
        "Bearer schlüssel".encode(),
        b"Bearer \xff\xfe",
    ],
)
async def test_what_is_not_the_key_is_refused(gallery: Library, given: bytes) -> None:
    async with gallery.serving(api_key=KEY) as client:
        answer = await client.get("/v1/indexes", headers={b"Authorization": given})
        assert "not the API key of this searcher" in problem(answer, 401)
        assert KEY not in answer.text


@pytest.mark.parametrize("given", [b"bearer correct-horse", b"BEARER correct-horse", b"Bearer  correct-horse"])
async def test_the_scheme_is_read_as_http_says(gallery: Library, given: bytes) -> None:
    async with gallery.serving(api_key=KEY) as client:
        assert (await client.get("/v1/indexes", headers={b"Authorization": given})).status_code == 200


async def test_a_key_need_not_be_ascii(gallery: Library) -> None:
    async with gallery.serving(api_key="schlüssel-鍵") as client:
        for given in (b"Bearer schlssel", "Bearer schlüssel-鍵 ".encode()[:-3]):
            problem(await client.get("/v1/indexes", headers={b"Authorization": given}), 401)
        known = {b"Authorization": "Bearer schlüssel-鍵".encode()}
        assert (await client.get("/v1/indexes", headers=known)).status_code == 200
        assert (await client.post("/v1/login", json={"key": "schlüssel-鍵"})).status_code == 204


@pytest.mark.parametrize("key", ["", " ", "two words", "with-a-line-break\n", "with-a-\0", "\ud800"])
def test_a_key_that_no_client_could_send_is_refused_at_the_start(library: Library, key: str) -> None:
    with pytest.raises(UsageError, match="IMGSEARCH_SEARCH_API_KEY"):
        library.app(api_key=key)


async def log_in(client: httpx.AsyncClient, key: str = KEY, origin: str = "http://searcher") -> httpx.Response:
    return await client.post("/v1/login", json={"key": key}, headers={"Origin": origin})


async def test_the_page_logs_in_once_and_then_shows_pictures(gallery: Library) -> None:
    async with gallery.serving(api_key=KEY) as client:
        answer = await log_in(client)
        assert answer.status_code == 204
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Secure" not in cookie
        assert KEY not in cookie
        (result,) = (await client.post("/v1/search", json={"text": "red", "k": 1})).json()["results"]
        assert (await client.get(result["thumbnail"])).status_code == 200
        assert (await client.get(result["image"])).status_code == 200
    async with gallery.serving(api_key=KEY) as replica:
        replica.cookies = client.cookies
        assert (await replica.get("/v1/indexes")).status_code == 200
    async with gallery.serving(api_key="a-new-key") as changed:
        changed.cookies = client.cookies
        problem(await changed.get("/v1/indexes"), 401)


async def test_over_https_the_cookie_stays_there(gallery: Library) -> None:
    async with gallery.serving(api_key=KEY) as client:
        assert "Secure" in (await log_in(client, origin="https://photos.example")).headers["set-cookie"]


@pytest.mark.parametrize("key", ["", "wrong", "\ud800", "schlüssel"])
async def test_the_page_does_not_log_in_with_another_key(gallery: Library, key: str) -> None:
    async with gallery.serving(api_key=KEY) as client:
        body = json.dumps({"key": key})
        answer = await client.post("/v1/login", content=body, headers={"Content-Type": "application/json"})
        assert "not the API key of this searcher" in problem(answer, 401)
        assert "set-cookie" not in answer.headers
        problem(await client.get("/v1/indexes"), 401)


@pytest.mark.parametrize("token", ["", "0" * 64, "correct-horse", "schlüssel"])
async def test_a_cookie_of_ones_own_making_is_refused(gallery: Library, token: str) -> None:
    async with gallery.serving(api_key=KEY) as client:
        headers = {b"Cookie": f"imgsearch={token}".encode()}
        problem(await client.get("/v1/indexes", headers=headers), 401)


def test_the_description_says_that_there_is_a_key(library: Library) -> None:
    described = library.app(api_key=KEY).openapi()
    (name, scheme), *others = described["components"]["securitySchemes"].items()
    assert not others
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path in described["paths"].values():
        for operation in path.values():
            assert operation["security"] == [{name: []}]
    assert "securitySchemes" not in library.app().openapi()["components"]
