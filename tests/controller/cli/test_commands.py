"""The short commands on a cluster, and mistakes with any command."""

from __future__ import annotations

import json

import pytest

from tests.controller.apiserver import ApiServer
from tests.controller.cli.commands import FLAGS, REPORT, SOURCE, WHERE, Cli, play
from tests.controller.workers import Said, Workers
from tests.programs import controller


def test_what_the_store_knows_is_asked_in_the_cluster(cli: Cli, server: ApiServer) -> None:
    with Workers(server, play):
        assert "r0" in cli("indexes").stdout
        runs = cli("runs", "-o", "json")
        assert json.loads(runs.stdout)[0]["state"] == "done"
        assert "warning: 4 earlier runs" in runs.stderr
        assert json.loads(cli("report", "-o", "json").stdout) == {**REPORT, "cost": None}
    with Workers(server, lambda command, index: Said({"error": "no index is called 'x'"}, code=2)):
        refused = cli("rollback", "x")
    assert refused.returncode == 2
    assert refused.stderr == "error: no index is called 'x'\n"
    assert server.all("jobs") == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("run-pipeline", "photos"), "'photos' is a path on this machine"),
        (("run-pipeline", SOURCE, "--release", "other"), "'other'"),
        (("serve",), "add --local"),
        (("runs", "--backend", "sky"), "--namespace"),
        (("status",), f"`controller run-pipeline SOURCE {FLAGS}`"),
        (("status", "r9"), "'r9'"),
        (("logs", "r9", "0"), "run r9"),
    ],
)
def test_mistakes_get_one_sentence(env: dict[str, str], words: tuple[str, ...], sentence: str) -> None:
    done = controller(words[0], *WHERE, *words[1:], env=env)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
