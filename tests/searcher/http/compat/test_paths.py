"""No spelling of a path leads out of the index: what is asked for is a name to look up, and never a file."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from imgsearch.runs.layout import image_id
from tests.searcher.library import picture
from tests.searcher.process import SearcherProcess, wait_for_text

SECRET = "secret-that-no-route-may-give"
ROUTES = ["/image/{}", "/v1/images/{}", "/v1/images/{}/thumbnail"]


@pytest.fixture(scope="module")
def outside_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file beside the searcher's folder, that it could read."""
    file = tmp_path_factory.mktemp("outside") / "secret.txt"
    file.write_text(SECRET)
    return file


@pytest.fixture(scope="module")
def port(outside_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a searcher in a process of its own: a client in ours would tidy up the paths."""
    with SearcherProcess(tmp_path_factory.mktemp("searcher")) as process:
        process.finish()
        wait_for_text(process.url, "/readyz", '"ready"')
        server_port = urlsplit(process.url).port
        assert server_port
        yield server_port


def get_raw(port: int, target: str) -> tuple[int, bytes]:
    """The status and the body for this target, sent byte by byte as it is."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        headers, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    return int(headers.split()[1]), body


def path_spellings(file: Path) -> Iterator[str]:
    """Ways to write the path of a file that have fooled one server or another."""
    absolute = str(file)
    relative = "../" * 12 + absolute.lstrip("/")
    yield absolute
    yield "/" + absolute
    yield quote(absolute, safe="")
    yield "file://" + absolute
    yield quote("file://" + absolute, safe="")
    yield "red.png/" + relative
    yield "red.png%00" + relative
    yield relative + "%00.png"
    yield relative + "%00"
    yield relative + "?index=photos"
    yield relative + "%3Findex=photos"
    yield relative + "%23.png"
    yield relative + ";.png"
    yield relative + "/."
    yield "./" + relative
    yield "~root/" + relative
    for step in [
        "../",
        "..%2f",
        "..%2F",
        "%2e%2e/",
        "%2e%2e%2f",
        "%2E%2E%2F",
        ".%2e/",
        "%252e%252e%252f",
        "..%252f",
        "%25252e%25252e%25252f",
        "..\\",
        "..%5c",
        "%2e%2e%5c",
        "..%255c",
        "....//",
        "....%2f%2f",
        "..;/",
        "..%00/",
        "..%0d%0a/",
        "..%09/",
        "..%c0%af",
        "%c0%ae%c0%ae/",
        "..%e0%80%af",
        "..%ef%bc%8f",
        "%uff0e%uff0e%u2215",
        "..%u2216",
        "/../",
        "//..//",
        "/%2e%2e/",
        "./../",
    ]:
        yield step * 12 + absolute.lstrip("/")
    yield "C:\\Windows\\win.ini"
    yield "..%5c..%5cwindows%5cwin.ini"
    yield "%5c%5chost%5cshare%5cfile"
    yield "/proc/self/environ"
    yield "%2fproc%2fself%2fenviron"
    yield "."
    yield ".."
    yield "%2e"
    yield "%2e%2e"
    yield "%00"
    yield "%ff%fe"
    yield "%"
    yield "%zz"
    yield "a" * 5000


@pytest.mark.parametrize("route", ROUTES)
def test_no_spelling_of_a_path_gives_a_file(port: int, outside_file: Path, route: str) -> None:
    paths = list(path_spellings(outside_file))
    assert len(set(paths)) > 55
    for path in paths:
        status, body = get_raw(port, route.format(path))
        assert status == 404, (route, path, status, body[:200])
        assert SECRET.encode() not in body


def test_what_is_in_the_index_is_given_by_its_own_name_only(port: int) -> None:
    red = picture("red")
    for target in ["/image/red.png", "/image/%72ed.png", f"/v1/images/{image_id('red.png')}"]:
        assert get_raw(port, target) == (200, red), target
    for target in ["/image//red.png", "/image/./red.png", "/image/x/../red.png", "/image/RED.PNG", "/image/red.png/"]:
        assert get_raw(port, target)[0] == 404, target
    assert get_raw(port, f"/image/{image_id('red.png')}")[0] == 404
    assert get_raw(port, "/v1/images/red.png")[0] == 404
