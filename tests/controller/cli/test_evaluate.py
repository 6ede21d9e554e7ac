"""`controller evaluate` on a cluster."""

from __future__ import annotations

import json

import pytest

from tests.controller.apiserver import ApiServer
from tests.controller.cli.commands import Cli
from tests.controller.workers import Ended, Workers


@pytest.mark.parametrize("lost_bytes", [0, 1])
def test_an_evaluation_is_asked_for_in_the_cluster_and_comes_whole_or_not_at_all(
    cli: Cli, server: ApiServer, lost_bytes: int
) -> None:
    document = json.dumps({"indexes": [], "figures": [], "é": 1}, ensure_ascii=False)
    commands: list[str] = []

    def measure(command: list[str], index: int) -> Ended:
        commands.extend(command)
        return Ended({"bytes": len(document.encode()) + lost_bytes}, output=f"a library warns\n{document}\n")

    with Workers(server, measure):
        completed = cli("evaluate", "photos", "other", "--queries", "7", "-o", "json")
    assert commands == ["python", "-m", "searcher", "evaluate"]
    (manifest,) = [request.body for request in server.requests if request.method == "POST"]
    env = {
        variable["name"]: variable.get("value")
        for variable in manifest["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert env["IMGSEARCH_RUN_INDEX"] == "photos"
    assert env["IMGSEARCH_EVALUATE_AGAINST"] == "other"
    assert env["IMGSEARCH_EVALUATE_QUERIES"] == "7"
    if lost_bytes:
        assert completed.returncode == 3
        assert "incomplete" in completed.stderr
    else:
        assert json.loads(completed.stdout)["é"] == 1
