"""The API keys: what needs one, how it is brought, and that a wrong one tells nothing."""

from __future__ import annotations

import base64
import json

import httpx
import pytest

from imgsearch.errors import UsageError
from searcher.http.api_keys import INVALID
from tests.searcher.library import Library, hashed, picture, problem, search_colours

pytestmark = pytest.mark.anyio

KEY = "correct-horse"
KEYS = hashed(KEY)
BEARER = {"Authorization": f"Bearer {KEY}"}


def basic(credentials: str | bytes) -> bytes:
    """The header of a user's name and a password."""
    value = credentials.encode() if isinstance(credentials, str) else credentials
    return b"Basic " + base64.b64encode(value)


PATHS = [
    "/v1/indexes",
    "/v1/images/some-id",
    "/v1/images/some-id/thumbnail",
    "/docs",
    "/docs/swagger-ui-bundle.js",
    "/v1/facets",
    "/v1/map/sprite",
    "/image/red.png",
    "/openapi.json",
    "/no/such/path",
    "/healthz/",
]


async def test_without_a_key_set_nobody_needs_one(gallery: Library) -> None:
    async with gallery.serving() as client:
        assert await search_colours(client, text="red", k=1) == ["red"]
        assert (await client.get("/docs")).status_code == 200
        problem(await client.post("/v1/login", json={"key": "any"}), 404)


@pytest.mark.parametrize("path", PATHS)
async def test_whatever_shows_something_needs_the_key(gallery: Library, path: str) -> None:
    async with gallery.serving(api_keys=KEYS) as client:
        response = await client.get(path)
        assert "Authorization: Bearer" in problem(response, 401)
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert (await client.get(path, headers=BEARER)).status_code != 401


async def test_searches_need_the_key_and_are_answered_with_it(gallery: Library) -> None:
    upload = {"file": picture("red")}
    async with gallery.serving(api_keys=KEYS) as client:
        for call in [
            {"url": "/v1/search", "json": {"text": "red", "k": 1}},
            {"url": "/v1/search/image", "files": upload},
            {"url": "/v1/embed", "json": {"text": ["red"]}},
        ]:
            problem(await client.request("POST", **call), 401)  # type: ignore[arg-type]
            assert (await client.request("POST", headers=BEARER, **call)).status_code == 200  # type: ignore[arg-type]
        assert "imgsearch_requests_total" in (await client.get("/metrics")).text


async def test_a_request_without_the_key_is_refused_before_its_body_is_looked_at(gallery: Library) -> None:
    async with gallery.serving(api_keys=KEYS, max_body_bytes=10) as client:
        problem(await client.post("/v1/search", content=b"x" * 100), 401)
        problem(await client.post("/v1/search", content=b"x" * 100, headers=BEARER), 413)


@pytest.mark.parametrize("path", ["/", "/page/page.css", "/page/main.js", "/healthz", "/readyz", "/metrics", "/health"])
async def test_probes_metrics_and_the_empty_page_need_no_key(gallery: Library, path: str) -> None:
    async with gallery.serving(api_keys=KEYS) as client:
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer wrong",
        b"Bearer correct-hors",
        b"Bearer correct-horse2",
        b"Bearer CORRECT-HORSE",
        basic(KEY),
        basic(f"{KEY}:"),
        basic(f"{KEY}:wrong"),
        basic(f":{KEY}:"),
        basic(f"::{KEY}"),
        basic(":"),
        basic(""),
        b"Basic",
        b"Basic correct-horse",
        b"Basic :correct-horse",
        b"Basic " + basic(f":{KEY}")[6:].rstrip(b"=") + b"?",
        b"Basic " + "schlüssel".encode(),
        b"Bearer " + basic(f":{KEY}")[6:],
        b"Digest " + basic(f":{KEY}")[6:],
        b"correct-horse",
        "Bearer schlüssel".encode(),
        b"Bearer \xff\xfe",
    ],
)
async def test_what_is_not_the_key_is_refused(gallery: Library, authorization: bytes) -> None:
    async with gallery.serving(api_keys=KEYS) as client:
        response = await client.get("/v1/indexes", headers={b"Authorization": authorization})
        assert problem(response, 401) == INVALID
        assert KEY not in response.text


@pytest.mark.parametrize(
    "authorization",
    [
        b"bearer correct-horse",
        b"BEARER correct-horse",
        b"Bearer  correct-horse",
        basic(f":{KEY}"),
        basic(f"anyone:{KEY}"),
        basic(b"\xff:" + KEY.encode()),
        basic(f":{KEY}").replace(b"Basic ", b"basic  "),
    ],
)
async def test_the_scheme_is_read_as_http_says(gallery: Library, authorization: bytes) -> None:
    async with gallery.serving(api_keys=KEYS) as client:
        assert (await client.get("/v1/indexes", headers={b"Authorization": authorization})).status_code == 200


async def test_a_key_need_not_be_ascii(gallery: Library) -> None:
    async with gallery.serving(api_keys=hashed("schlüssel-鍵")) as client:
        for authorization in (b"Bearer schlssel", "Bearer schlüssel-鍵 ".encode()[:-3]):
            problem(await client.get("/v1/indexes", headers={b"Authorization": authorization}), 401)
        headers = {b"Authorization": "Bearer schlüssel-鍵".encode()}
        assert (await client.get("/v1/indexes", headers=headers)).status_code == 200
        headers = {b"Authorization": basic(":schlüssel-鍵")}
        assert (await client.get("/v1/indexes", headers=headers)).status_code == 200
        assert (await client.post("/v1/login", json={"key": "schlüssel-鍵"})).status_code == 204


async def test_a_key_in_the_address_of_the_searcher_is_brought_as_a_password(gallery: Library) -> None:
    async with gallery.serving(api_keys=hashed("a:b/c@d")) as client:
        assert (await client.get("http://:a%3Ab%2Fc%40d@searcher/v1/indexes")).status_code == 200
        problem(await client.get("http://:a%3Ab@searcher/v1/indexes"), 401)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n, ",
        "hunter2",
        "team:hunter2",
        hashed("hunter2").partition(":")[2],
        hashed("hunter2") + "0",
        hashed("hunter2", name="two words"),
        hashed("hunter2", name=""),
        f"{KEYS};{KEYS}",
        f"{KEYS}\nhunter2",
    ],
)
def test_keys_that_cannot_be_read_are_refused_at_the_start_and_not_repeated(library: Library, text: str) -> None:
    with pytest.raises(UsageError, match="IMGSEARCH_SEARCH_API_KEYS") as error:
        library.app(api_keys=text)
    assert "sha256sum" in str(error.value)
    assert "hunter2" not in str(error.value)
    assert hashed("hunter2")[5:] not in str(error.value)


def test_the_hash_of_no_key_at_all_lets_nobody_in(library: Library) -> None:
    with pytest.raises(UsageError, match=r"IMGSEARCH_SEARCH_API_KEYS: entry 2 .*\bempty"):
        library.app(api_keys=f"{KEYS},{hashed('')}")


@pytest.mark.parametrize("separator", [",", "\n", " ,\n\r\n "])
async def test_several_keys_are_valid_at_a_time(gallery: Library, separator: str) -> None:
    entries = [hashed("old"), hashed("new"), hashed("other", name="robots").upper().replace("ROBOTS", "robots")]
    async with gallery.serving(api_keys=separator.join(entries)) as client:
        for key in ("old", "new", "other"):
            headers = {"Authorization": f"Bearer {key}"}
            assert (await client.get("/v1/indexes", headers=headers)).status_code == 200
        problem(await client.get("/v1/indexes", headers={"Authorization": "Bearer none"}), 401)


async def test_a_key_that_is_removed_ends_its_logins_and_no_others(gallery: Library) -> None:
    async with gallery.serving(api_keys=hashed("old", "new")) as client:
        await log_in(client, "old")
        old_cookies = dict(client.cookies)
        await log_in(client, "new")
        new_cookies = dict(client.cookies)
        assert old_cookies != new_cookies
    async with gallery.serving(api_keys=hashed("new")) as client:
        client.cookies.update(new_cookies)
        assert (await client.get("/v1/indexes")).status_code == 200
    async with gallery.serving(api_keys=hashed("new")) as client:
        client.cookies.update(old_cookies)
        problem(await client.get("/v1/indexes"), 401)


async def test_a_key_beside_the_path_or_in_the_body_is_none(gallery: Library) -> None:
    """Roboflow's client sends it so unless told otherwise; but proxies log addresses, and bodies are not read yet."""
    async with gallery.serving(api_keys=KEYS) as client:
        problem(await client.post("/clip/embed_text", params={"api_key": KEY}, json={"text": "red"}), 401)
        problem(await client.post("/clip/embed_text", json={"text": "red", "api_key": KEY}), 401)


async def test_requests_are_counted_by_the_name_of_their_key(gallery: Library) -> None:
    async with gallery.serving(api_keys=f"{KEYS}\n{hashed('other', name='robots')}") as client:
        for _ in range(2):
            await client.get("/v1/indexes", headers={"Authorization": "Bearer other"})
        await client.get("/v1/indexes")
        text = (await client.get("/metrics")).text
    assert 'imgsearch_key_requests_total{key="robots"} 2.0' in text
    assert 'key="team"' not in text


async def log_in(client: httpx.AsyncClient, key: str = KEY, origin: str = "http://searcher") -> httpx.Response:
    return await client.post("/v1/login", json={"key": key}, headers={"Origin": origin})


async def test_the_page_logs_in_once_and_then_shows_pictures(gallery: Library) -> None:
    async with gallery.serving(api_keys=KEYS) as client:
        response = await log_in(client)
        assert response.status_code == 204
        cookie = response.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Secure" not in cookie
        assert KEY not in cookie
        (result,) = (await client.post("/v1/search", json={"text": "red", "k": 1})).json()["results"]
        assert (await client.get(result["thumbnail"])).status_code == 200
        assert (await client.get(result["image"])).status_code == 200
    async with gallery.serving(api_keys=KEYS) as replica:
        replica.cookies = client.cookies
        assert (await replica.get("/v1/indexes")).status_code == 200
    async with gallery.serving(api_keys=hashed("a-new-key")) as other_client:
        other_client.cookies = client.cookies
        problem(await other_client.get("/v1/indexes"), 401)


async def test_over_https_the_cookie_stays_there(gallery: Library) -> None:
    async with gallery.serving(api_keys=KEYS) as client:
        assert "Secure" in (await log_in(client, origin="https://photos.example")).headers["set-cookie"]


@pytest.mark.parametrize("key", ["", "wrong", "\ud800", "schlüssel"])
async def test_the_page_does_not_log_in_with_another_key(gallery: Library, key: str) -> None:
    async with gallery.serving(api_keys=KEYS) as client:
        body = json.dumps({"key": key})
        response = await client.post("/v1/login", content=body, headers={"Content-Type": "application/json"})
        assert problem(response, 401) == INVALID
        assert "set-cookie" not in response.headers
        problem(await client.get("/v1/indexes"), 401)


@pytest.mark.parametrize("token", ["", "0" * 64, "correct-horse", "schlüssel"])
async def test_a_cookie_of_ones_own_making_is_refused(gallery: Library, token: str) -> None:
    async with gallery.serving(api_keys=KEYS) as client:
        headers = {b"Cookie": f"imgsearch={token}".encode()}
        problem(await client.get("/v1/indexes", headers=headers), 401)


def test_the_description_says_that_there_is_a_key(library: Library) -> None:
    with_key = library.app(api_keys=KEYS).openapi()
    schemes = with_key["components"]["securitySchemes"]
    assert {name: (scheme["type"], scheme["scheme"]) for name, scheme in schemes.items()} == {
        "bearer": ("http", "bearer"),
        "basic": ("http", "basic"),
    }
    health = with_key["paths"].pop("/health")["get"]
    assert "security" not in health
    assert "401" not in health["responses"]
    for path in with_key["paths"].values():
        for operation in path.values():
            assert operation["security"] == [{"bearer": []}, {"basic": []}]
            assert operation["responses"]["401"]["headers"]["WWW-Authenticate"]
            assert "RateLimit" in operation["responses"]["429"]["headers"]
    without_key = library.app().openapi()
    assert "securitySchemes" not in without_key["components"]
    assert "401" not in without_key["paths"]["/v1/search"]["post"]["responses"]
