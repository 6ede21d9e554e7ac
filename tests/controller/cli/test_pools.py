"""`controller pools` on a cluster."""

from __future__ import annotations

import json

from tests.controller.apifaults import refusal
from tests.controller.apiserver import ApiServer
from tests.controller.cli.commands import Cli, gpu_node
from tests.controller.objects import pod


def test_pools_lists_gpus_and_how_many_are_free(cli: Cli, server: ApiServer) -> None:
    server.put("nodes", gpu_node("a", "nvidia-l4", 2))
    gpu_pod = pod(name="held", gpus=1)
    server.put("pods", {**gpu_pod, "spec": {**gpu_pod["spec"], "nodeName": "a"}})
    completed = cli("pools", "-o", "json")
    (row,) = json.loads(completed.stdout)
    assert (row["accelerator"], row["nodes"], row["gpus"], row["free"]) == ("L4", 1, 2, 1)
    assert "make install-sky" in completed.stderr
    server.inject("list", "nodes", refusal(403, "nodes is forbidden"))
    failed = cli("pools")
    assert failed.returncode == 3
    assert "list nodes" in failed.stderr
    assert "ClusterRole" in failed.stderr
