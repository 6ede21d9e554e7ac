"""`controller pools` on a cluster."""

from __future__ import annotations

import json

from tests.controller.apiserver import ApiServer, refusing
from tests.controller.cli.commands import Cli, gpu_node
from tests.controller.objects import pod


def test_pools_lists_gpus_and_how_many_are_free(cli: Cli, server: ApiServer) -> None:
    server.put("nodes", gpu_node("a", "nvidia-l4", 2))
    held = pod(name="held", gpus=1)
    server.put("pods", {**held, "spec": {**held["spec"], "nodeName": "a"}})
    done = cli("pools", "-o", "json")
    (row,) = json.loads(done.stdout)
    assert (row["accelerator"], row["nodes"], row["gpus"], row["free"]) == ("L4", 1, 2, 1)
    assert "make install-sky" in done.stderr
    server.trouble("list", "nodes", refusing(403, "nodes is forbidden"))
    refused = cli("pools")
    assert refused.returncode == 3
    assert "list nodes" in refused.stderr
    assert "ClusterRole" in refused.stderr
