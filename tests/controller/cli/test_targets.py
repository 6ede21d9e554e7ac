from __future__ import annotations

from pathlib import Path

import pytest

from controller.cli.options import TargetOptions
from controller.cli.targets import open_target
from controller.cli.targets.local import LocalTarget
from controller.cli.targets.release import ReleaseTarget
from imgsearch.errors import UsageError
from tests.controller.apiserver import NAMESPACE, ApiServer
from tests.controller.kubeconfigs import kubeconfig
from tests.controller.objects import release


@pytest.fixture
def env(server: ApiServer, tmp_path: Path) -> dict[str, str]:
    for kind, objects in release().items():
        for manifest in objects:
            server.put(kind, manifest)
    return {"KUBECONFIG": kubeconfig(tmp_path / "config", server.url)}


def test_local_or_a_home_is_this_machine(tmp_path: Path) -> None:
    local = open_target(TargetOptions(home=tmp_path), {})
    assert isinstance(local, LocalTarget)
    assert (local.release, local.flags) == ("local", f" --home {tmp_path}")
    assert local.settings.storage.uri == (tmp_path / "storage").as_uri()
    assert open_target(TargetOptions(local=True), {"HOME": str(tmp_path)}).flags == " --local"
    assert open_target(TargetOptions(local=True, home=tmp_path), {}).flags == f" --home {tmp_path}"
    spaces = tmp_path / "with space"
    assert open_target(TargetOptions(home=spaces), {}).flags == f" --home '{spaces}'"


def test_anything_else_is_a_release_in_the_cluster_of_the_kubeconfig(env: dict[str, str]) -> None:
    target = open_target(TargetOptions(release="team", namespace=NAMESPACE), env)
    assert isinstance(target, ReleaseTarget)
    assert (target.release, target.flags) == ("team", f" --release team --namespace {NAMESPACE}")
    assert target.settings.storage.uri == "file:///storage"


def test_a_context_is_named_again(env: dict[str, str]) -> None:
    target = open_target(TargetOptions(release="team", namespace=NAMESPACE, context="other"), env)
    assert target.flags == f" --release team --namespace {NAMESPACE} --context other"


def test_no_kubeconfig_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--local"):
        open_target(TargetOptions(), {"KUBECONFIG": str(tmp_path / "none")})
