from __future__ import annotations

import base64
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from controller.backends.kubernetes.api import Api
from controller.backends.kubernetes.connection import connect
from imgsearch.errors import UsageError
from tests.controller.apiserver import NAMESPACE, ApiServer
from tests.controller.kubeconfigs import kubeconfig
from tests.programs import free_port

JOBS = ("batch/v1", "jobs")


@contextmanager
def connected_api(kubeconfig: str, *, context: str | None = None, namespace: str | None = NAMESPACE) -> Iterator[Api]:
    api = connect(kubeconfig=kubeconfig, context=context, namespace=namespace)
    with api._http:
        yield api


def test_the_kubeconfig_says_where_and_the_context_which_namespace(server: ApiServer, tmp_path: Path) -> None:
    file = kubeconfig(tmp_path / "config", server.url)
    with connected_api(file, namespace=None) as api:
        assert api.namespace == "default"
    with connected_api(file, context="other", namespace=None) as api:
        assert api.namespace == "theirs"
    with connected_api(file, context="other") as api:
        assert api.select(*JOBS)[0] == []
    assert "Authorization" not in server.requests[-1].headers


def test_several_files_are_one_kubeconfig(server: ApiServer, tmp_path: Path) -> None:
    kubeconfig(tmp_path / "one", server.url)
    (tmp_path / "two").write_text(yaml.safe_dump({"current-context": "other"}))
    with connected_api(f"{tmp_path / 'one'}:{tmp_path / 'two'}", namespace=None) as api:
        assert api.namespace == "theirs"


def test_a_token_goes_into_each_request(server: ApiServer, tmp_path: Path) -> None:
    with connected_api(kubeconfig(tmp_path / "config", server.url, user={"token": "secret"})) as api:
        api.select(*JOBS)
    assert server.requests[-1].headers["Authorization"] == "Bearer secret"


def test_a_proxy_is_used_where_the_environment_names_one(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "localhost")
    with connected_api(kubeconfig(tmp_path / "config", "http://cluster.example")) as api:
        assert api.select(*JOBS)[0] == []
    assert server.requests[-1].headers["Host"] == "cluster.example"


def test_no_proxy_is_used_for_a_host_that_needs_none(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with connected_api(kubeconfig(tmp_path / "config", server.url)) as api:
        assert api.select(*JOBS)[0] == []


PLUGIN = """#!/bin/sh
echo asked >> {asked}
cat <<END
{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
  "status": {{"token": "from-plugin", "expirationTimestamp": "{until}"}}}}
END
"""


@pytest.mark.parametrize(("expiry", "times"), [("2999-01-01T00:00:00Z", 1), ("2020-01-01T00:00:00Z", 3)])
def test_a_credential_plugin_is_asked_again_when_its_token_has_expired(
    server: ApiServer, tmp_path: Path, expiry: str, times: int
) -> None:
    plugin, log = tmp_path / "plugin", tmp_path / "asked"
    plugin.write_text(PLUGIN.format(asked=log, until=expiry))
    plugin.chmod(0o755)
    user = {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    }
    with connected_api(kubeconfig(tmp_path / "config", server.url, user=user)) as api:
        api.select(*JOBS)
        api.select(*JOBS)
    assert {request.headers["Authorization"] for request in server.requests} == {"Bearer from-plugin"}
    assert log.read_text().count("asked") == times


@pytest.mark.parametrize(
    ("text", "context"),
    [
        (None, None),
        ("", None),
        ("clusters: [", None),
        ("just a word", None),
        ("{current-context: x, clusters: [], contexts: [], users: []}", None),
        (None, "no-such"),
    ],
)
def test_a_kubeconfig_that_says_nothing_gets_one_sentence(
    tmp_path: Path, text: str | None, context: str | None
) -> None:
    file = tmp_path / "config"
    if text is not None:
        file.write_text(text)
    elif context:
        kubeconfig(file, "http://127.0.0.1:1")
    with pytest.raises(UsageError, match=r"\(.+\): set KUBECONFIG"):
        connect(kubeconfig=str(file), context=context, namespace=None)


@dataclass(frozen=True)
class Certificate:
    """A certificate of 127.0.0.1 that signs itself, and its key."""

    cert: Path
    key: Path

    @property
    def data(self) -> str:
        return base64.b64encode(self.cert.read_bytes()).decode()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    new_certificate = Certificate(folder / "cert.pem", folder / "key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1,DNS:api.example", "-days", "2"),
            *("-keyout", new_certificate.key, "-out", new_certificate.cert),
        ],
        check=True,
        capture_output=True,
    )
    return new_certificate


@pytest.fixture
def secure(certificate: Certificate) -> Iterator[ApiServer]:
    """A server that lets in only whoever brings the certificate."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.cert, certificate.key)
    tls.load_verify_locations(certificate.cert)
    tls.verify_mode = ssl.CERT_REQUIRED
    api_server = ApiServer(tls=tls)
    yield api_server
    api_server.close()


def test_certificates_are_checked_on_both_sides(secure: ApiServer, certificate: Certificate, tmp_path: Path) -> None:
    user = {
        "client-certificate-data": certificate.data,
        "client-key-data": base64.b64encode(certificate.key.read_bytes()).decode(),
    }
    for cluster in ({"certificate-authority-data": certificate.data}, {"insecure-skip-tls-verify": True}):
        with connected_api(kubeconfig(tmp_path / "config", secure.url, cluster=cluster, user=user)) as api:
            assert api.select(*JOBS)[0] == []
    with (
        connected_api(kubeconfig(tmp_path / "config", secure.url, user=user)) as api,
        pytest.raises(UsageError, match=f"{secure.url}: self-signed certificate"),
    ):
        api.select(*JOBS)


def test_a_broken_certificate_gets_one_sentence(tmp_path: Path) -> None:
    not_a_certificate = base64.b64encode(b"no certificate").decode()
    for text in (not_a_certificate, "%"):
        file = kubeconfig(tmp_path / "config", "https://127.0.0.1:1", cluster={"certificate-authority-data": text})
        with pytest.raises(UsageError, match="set KUBECONFIG"):
            connect(kubeconfig=file, context=None, namespace=None)
