"""`controller evaluate` on a cluster."""

from __future__ import annotations

import json

import pytest

from tests.controller.apiserver import ApiServer
from tests.controller.cli.commands import Cli
from tests.controller.workers import Said, Workers


@pytest.mark.parametrize("lost", [0, 1])
def test_an_evaluation_is_asked_for_in_the_cluster_and_comes_whole_or_not_at_all(
    cli: Cli, server: ApiServer, lost: int
) -> None:
    told = json.dumps({"indexes": [], "figures": [], "é": 1}, ensure_ascii=False)
    asked: list[str] = []

    def measure(command: list[str], index: int) -> Said:
        asked.extend(command)
        return Said({"bytes": len(told.encode()) + lost}, printed=f"a library warns\n{told}\n")

    with Workers(server, measure):
        done = cli("evaluate", "photos", "other", "--queries", "7", "-o", "json")
    assert asked == ["python", "-m", "searcher", "evaluate"]
    (made,) = [each.body for each in server.requests if each.method == "POST"]
    env = {each["name"]: each.get("value") for each in made["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["IMGSEARCH_RUN_INDEX"] == "photos"
    assert env["IMGSEARCH_EVALUATE_AGAINST"] == "other"
    assert env["IMGSEARCH_EVALUATE_QUERIES"] == "7"
    if lost:
        assert done.returncode == 3
        assert "incomplete" in done.stderr
    else:
        assert json.loads(done.stdout)["é"] == 1
