"""URLs that are invalid, and hosts that the settings allow or deny."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from imgsearch.errors import UsageError
from imgsearch.settings import SearchSettings
from searcher.content.fetcher import resolve_host
from searcher.content.url_rules import Reason
from tests.searcher.content.web import (
    HOST,
    LIMITS,
    FakeResolver,
    ReadingFetcher,
    reason,
    refusal,
    resolver,
)

pytestmark = pytest.mark.anyio

# URLs that are refused as they are.


@pytest.mark.parametrize(
    ("url", "expected", "value"),
    [
        ("http://photos.example/", Reason.SCHEME, "https://"),
        ("file:///etc/passwd", Reason.SCHEME, "https://"),
        ("file://localhost/etc/passwd", Reason.SCHEME, "https://"),
        ("gopher://photos.example:70/_", Reason.SCHEME, "https://"),
        ("ftp://photos.example/", Reason.SCHEME, "https://"),
        ("dict://photos.example:11211/stat", Reason.SCHEME, "https://"),
        ("ldap://photos.example/", Reason.SCHEME, "https://"),
        ("jar:https://photos.example!/", Reason.SCHEME, "https://"),
        ("data:image/png;base64,AAAA", Reason.SCHEME, "https://"),
        ("photos.example/a.png", Reason.SCHEME, "https://"),
        ("//photos.example/a.png", Reason.SCHEME, "https://"),
        ("", Reason.SCHEME, "https://"),
        ("https://user@photos.example/", Reason.INVALID_HOST, ""),
        ("https://user:word@photos.example/", Reason.INVALID_HOST, ""),
        ("https://photos.example@169.254.169.254/", Reason.INVALID_HOST, ""),
        ("https://photos.example:443@169.254.169.254/", Reason.INVALID_HOST, ""),
        ("https://photos.example\\@169.254.169.254/", Reason.INVALID_HOST, ""),
        ("https://a@b@photos.example/", Reason.INVALID_HOST, ""),
        ("https://:@photos.example/", Reason.INVALID_HOST, ""),
        ("https://", Reason.INVALID_HOST, ""),
        ("https:///a.png", Reason.INVALID_HOST, ""),
        ("https:photos.example", Reason.INVALID_HOST, ""),
        ("https://127.0.0.1%2f.photos.example/", Reason.INVALID_HOST, ""),
        ("https://photos%2eexample/", Reason.INVALID_HOST, ""),
        ("https://photos.example%00.evil.example/", Reason.INVALID_HOST, ""),
        ("https://photos example/", Reason.INVALID_HOST, ""),
        ("https://photos.example\\evil.example/", Reason.INVALID_HOST, ""),
        ("https://photos.example./", Reason.INVALID_HOST, ""),
        ("https://photos..example/", Reason.INVALID_HOST, ""),
        ("https://.photos.example/", Reason.INVALID_HOST, ""),
        ("https://-photos.example/", Reason.INVALID_HOST, ""),
        ("https://photos-.example/", Reason.INVALID_HOST, ""),
        (f"https://{'a' * 64}.example/", Reason.INVALID_HOST, ""),
        (f"https://{'a.' * 127}/", Reason.INVALID_HOST, ""),
        (f"https://{'a.' * 126}aa/", Reason.INVALID_HOST, ""),
        (f"https://{'a.' * 126}a/", Reason.ADDRESS, ""),
        (f"https://{'a' * 63}.example/", Reason.ADDRESS, ""),
        ("https://[fe80::1%25eth0]/", Reason.INVALID_HOST, ""),
        ("https://[::1/", Reason.INVALID_URL, ""),
        ("https://[127.0.0.1]/", Reason.INVALID_URL, ""),
        ("https://::1/", Reason.INVALID_URL, ""),
        ("https://photos.example\r\nX: y/", Reason.INVALID_URL, ""),
        ("https://photos.example/\x00", Reason.INVALID_URL, ""),
        ("https://127.0.0.01/", Reason.INVALID_URL, ""),
        ("https://256.256.256.256/", Reason.INVALID_URL, ""),
        ("https://①②⑦.⓪.⓪.①/", Reason.INVALID_URL, ""),
        ("https://photos.example:https/", Reason.INVALID_URL, ""),
        ("https://photos.example/" + "a" * 70_000, Reason.INVALID_URL, ""),
        ("https://photos.example:22/", Reason.DENIED, "port 22 of host photos.example "),
        ("https://photos.example:6379/", Reason.DENIED, "port 6379 of host photos.example "),
        ("https://photos.example:8443/", Reason.DENIED, "port 8443 of host photos.example "),
        ("https://photos.example:0/", Reason.DENIED, "port 0 of host photos.example "),
        ("https://photos.example:-1/", Reason.DENIED, "port -1 of host photos.example "),
        ("https://photos.example:65979/", Reason.DENIED, "port 65979 of host photos.example "),
        ("https://no-such-name.example/", Reason.ADDRESS, ""),
    ],
)
async def test_an_invalid_url_is_refused_before_any_name_is_looked_up(url: str, expected: Reason, value: str) -> None:
    resolve = resolver()
    error = await refusal(ReadingFetcher(SearchSettings(**LIMITS), resolve=resolve).read(url))
    assert error.reason is expected
    assert value in error.detail
    assert expected is Reason.ADDRESS or not resolve.lookups


# The lists.


@pytest.mark.parametrize(
    ("allow", "deny", "host", "allowed"),
    [
        ("", "", "a.example", True),
        ("a.example", "", "a.example", True),
        ("A.Example ,", "", "a.example", True),
        ("b.example, a.example", "", "A.EXAMPLE", True),
        ("a.example:443", "", "a.example", True),
        ("a.example:8443", "", "a.example:8443", True),
        ("a.example", "", "a.example:80", True),
        ("*.example", "", "a.example", True),
        ("*.example", "", "b.a.example", True),
        ("8.8.8.8", "", "8.8.8.8", True),
        ("[2606:4700:0::1]", "", "[2606:4700::1]", True),
        ("", "b.example", "a.example", True),
        ("", "*.a.example", "a.example", True),
        ("", "a.example:80", "a.example", True),
        ("b.example", "", "a.example", False),
        ("a.example", "", "b.a.example", False),
        ("a.example", "", "aa.example", False),
        ("*.a.example", "", "a.example", False),
        ("*.a.example", "", "ba.example", False),
        ("*.a.example", "", "a.example.evil.example", False),
        ("a.example", "", "a.example.evil.example", False),
        ("a.example:8443", "", "a.example", False),
        ("a.example", "", "a.example:8443", False),
        ("8.8.8.8", "", "134744072", False),
        ("", "a.example", "a.example", False),
        ("", "a.example", "A.example", False),
        ("", "*.example", "a.example", False),
        ("", "a.example:443", "a.example", False),
        ("a.example", "a.example", "a.example", False),
        ("*.example", "a.example", "a.example", False),
        ("", "8.8.8.8", "8.8.8.8", False),
    ],
)
async def test_the_lists_say_whose_name_is_looked_up(allow: str, deny: str, host: str, allowed: bool) -> None:
    resolve = resolver()
    outcome = await reason(
        ReadingFetcher(SearchSettings(url_allow=allow, url_deny=deny), resolve=resolve).read(f"https://{host}/")
    )
    assert bool(resolve.lookups) == allowed
    assert outcome is (Reason.ADDRESS if allowed else Reason.DENIED)


@pytest.mark.parametrize("host", ["134744072", "0x08080808", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]", HOST])
async def test_a_denied_address_is_refused_however_the_url_comes_to_it(host: str) -> None:
    class KnownHostResolver(FakeResolver):
        def __call__(self, host: str, port: int) -> Sequence[str]:
            return ["8.8.8.8"] if host == HOST else resolve_host(host, port)

    fetcher = ReadingFetcher(SearchSettings(url_deny="1.1.1.1, 8.8.8.8"), resolve=KnownHostResolver())
    assert await reason(fetcher.read(f"https://{host}/")) is Reason.ADDRESS


@pytest.mark.parametrize(
    "settings",
    [
        {"url_allow": "https://photos.example"},
        {"url_allow": "photos.example/a"},
        {"url_allow": "photos.example?"},
        {"url_allow": "photos.example#"},
        {"url_allow": "*"},
        {"url_allow": "*.*.example"},
        {"url_allow": "photos.*"},
        {"url_allow": "user@photos.example"},
        {"url_allow": "photos.example:https"},
        {"url_deny": "::1"},
        {"url_deny": "a.example b.example"},
        {"url_deny": "[fe80::1%eth0"},
    ],
)
def test_settings_that_cannot_be_read_are_named_at_the_start(settings: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=f"IMGSEARCH_SEARCH_{next(iter(settings)).upper()}"):
        ReadingFetcher(SearchSettings(**settings))
