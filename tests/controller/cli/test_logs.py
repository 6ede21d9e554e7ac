"""`controller logs` on a cluster."""

from __future__ import annotations

from tests.controller.apiserver import ApiServer
from tests.controller.cli.commands import Cli
from tests.controller.objects import pod


def test_the_log_of_a_shard_is_printed(cli: Cli, server: ApiServer) -> None:
    server.put("pods", pod(1, name="p"))
    server.logs["p"] = '{"message": "embedded [7]"}\n'
    assert cli("logs", "r1", "1").stdout == '{"message": "embedded [7]"}\n'
