from __future__ import annotations

import dataclasses
import os
from contextlib import closing
from pathlib import Path

import pytest

from controller.backends.kubernetes.errors import Unavailable
from controller.backends.local import LocalBackend
from controller.cli.options import TargetOptions
from controller.cli.targets import open_target
from controller.cli.targets.local import LocalTarget
from controller.cli.targets.release import ReleaseTarget
from controller.jobs.results import Output
from imgsearch.errors import PermanentError, UsageError
from imgsearch.runs.layout import RunFolder
from imgsearch.settings import RunSettings, Settings
from imgsearch.storage import Storage
from imgsearch.stores import Pointer, open_store
from tests.controller.apiserver import NAMESPACE, ApiServer
from tests.controller.kubeconfigs import kubeconfig
from tests.controller.objects import release
from tests.searcher.admin.test_reports import REPORT


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


def test_a_lost_index_is_refused_however_many_are_lost(tmp_path: Path) -> None:
    """To embed all of it again is not what an update means."""
    local = open_target(TargetOptions(home=tmp_path), {**os.environ})
    storage = Storage(local.settings.storage.uri)
    for number in range(21):
        run = f"r{number:02d}"
        report = dataclasses.replace(REPORT, run=run, index=f"photos-{number:02d}")
        storage.put(RunFolder(run).report, report.to_json())
    assert local.published("another") is None
    with pytest.raises(
        PermanentError, match=rf"does not have photos-20 any more.*`controller restore --home {tmp_path}`"
    ):
        local.published("photos-20")


def test_an_index_whose_entry_is_too_long_for_a_response_is_refused(tmp_path: Path) -> None:
    local = open_target(TargetOptions(home=tmp_path), {**os.environ})
    with closing(open_store(local.settings.store.url)) as store:
        store.publish(Pointer("photos", "r1", "photos", "a/b", "f", 2, 1, "/" + "x" * 4096, "2026-01-01"))
    with pytest.raises(PermanentError, match="the entry of index photos is too long"):
        local.published("photos")


def test_a_command_in_the_error_of_a_program_selects_this_target(tmp_path: Path) -> None:
    """The program does not have the options with which the user reaches it."""
    local = open_target(TargetOptions(home=tmp_path), {**os.environ})
    with pytest.raises(UsageError, match=rf"^run r9 has no report: .*`controller status r9 --home {tmp_path}` shows"):
        local.query("report", RunSettings(id="r9"))


def test_an_error_of_the_backend_itself_stays_what_it_is(tmp_path: Path) -> None:
    local = open_target(TargetOptions(home=tmp_path), {**os.environ})

    class Away(LocalBackend):
        def call(self, program: str, verb: str, settings: Settings) -> Output:
            raise Unavailable("https://10.0.0.1", "does not answer", retry_after=7)

    local.backend = Away(tmp_path, env={})
    with pytest.raises(Unavailable, match=r"^the cluster at https://10.0.0.1 does not answer: try again") as raised:
        local.query("report", RunSettings(id="r9"))
    assert raised.value.retry_after == 7


def test_only_commands_that_select_a_target_get_its_options(tmp_path: Path) -> None:
    local = open_target(TargetOptions(home=tmp_path / "o'r \\1"), {})
    message = "`controller search` finds nothing: `controller rollback photos` or `kubectl get pods`, controller runs"
    assert local.with_flags(message) == message.replace("rollback photos", f"rollback photos{local.flags}")
