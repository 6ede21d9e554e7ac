"""The short commands on a cluster, and mistakes with any command."""

from __future__ import annotations

import json

import pytest

from tests.controller.apiserver import ApiServer
from tests.controller.cli.commands import FLAGS, INDEX, RELEASE_OPTIONS, REPORT, SOURCE, Cli, answer_queries
from tests.controller.workers import Ended, Workers
from tests.programs import controller


def test_what_the_store_knows_is_asked_in_the_cluster(cli: Cli, server: ApiServer) -> None:
    with Workers(server, answer_queries):
        heading, row = cli("indexes").stdout.splitlines()
        assert heading.split() == ["index", "run", "images", "recall@10"]
        assert row.split() == ["photos", "r0", "30", "0.9432"]
        assert json.loads(cli("indexes", "-o", "json").stdout) == [INDEX]
        runs = cli("runs", "-o", "json")
        assert json.loads(runs.stdout)[0]["state"] == "done"
        assert "warning: 4 earlier runs" in runs.stderr
        assert json.loads(cli("report", "-o", "json").stdout) == {**REPORT, "cost": None}
    with Workers(server, lambda command, index: Ended({"error": "no index is called 'x'"}, code=2)):
        completed = cli("rollback", "x")
    assert completed.returncode == 2
    assert completed.stderr == "error: no index is called 'x'\n"
    assert server.objects("jobs") == []


def test_indexes_that_are_not_shown_are_counted(cli: Cli, server: ApiServer) -> None:
    rows = [{"index": "photos", "run": "r0", "images": 30}]
    result = {"indexes": rows, "lost": ["small"], "left_out": {"indexes": 1200, "lost": 3}}
    with Workers(server, lambda command, index: Ended(result)):
        completed = cli("indexes")
    assert completed.returncode == 0
    assert "photos" in completed.stdout
    assert "further indexes (1,200) are not shown" in completed.stderr
    assert "does not have small and others (3) any more" in completed.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
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
def test_mistakes_get_one_sentence(env: dict[str, str], arguments: tuple[str, ...], sentence: str) -> None:
    completed = controller(arguments[0], *RELEASE_OPTIONS, *arguments[1:], env=env)
    assert completed.returncode == 2
    assert sentence in completed.stderr
    assert "Traceback" not in completed.stderr
