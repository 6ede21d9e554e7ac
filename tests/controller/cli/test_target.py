from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from controller.cli.target import Here, Release, place
from controller.main import parser
from imgsearch.errors import UsageError
from tests.controller.apiserver import NAMESPACE, ApiServer
from tests.controller.backends.kubernetes.test_connection import kubeconfig
from tests.controller.objects import release


def args(*words: str) -> argparse.Namespace:
    return parser().parse_args(["status", *words])


@pytest.fixture
def env(server: ApiServer, tmp_path: Path) -> dict[str, str]:
    for kind, objects in release().items():
        for each in objects:
            server.put(kind, each)
    return {"KUBECONFIG": kubeconfig(tmp_path / "config", server.url)}


def test_local_or_a_home_is_this_machine(tmp_path: Path) -> None:
    here = place(args("--home", str(tmp_path)), {})
    assert isinstance(here, Here)
    assert (here.release, here.flags) == ("local", f" --home {tmp_path}")
    assert here.settings.storage.uri == (tmp_path / "storage").as_uri()
    assert place(args("--local"), {"HOME": str(tmp_path)}).flags == " --local"
    assert place(args("--local", "--home", str(tmp_path)), {}).flags == f" --home {tmp_path}"


def test_anything_else_is_a_release_in_the_cluster_of_the_kubeconfig(env: dict[str, str]) -> None:
    there = place(args("--release", "team", "-n", NAMESPACE), env)
    assert isinstance(there, Release)
    assert (there.release, there.flags) == ("team", f" --release team --namespace {NAMESPACE}")
    assert there.settings.storage.uri == "file:///storage"


def test_a_context_is_named_again(env: dict[str, str]) -> None:
    there = place(args("--release", "team", "-n", NAMESPACE, "--context", "other"), env)
    assert there.flags == f" --release team --namespace {NAMESPACE} --context other"


def test_no_kubeconfig_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="say --local to work on this machine"):
        place(args(), {"KUBECONFIG": str(tmp_path / "none")})
