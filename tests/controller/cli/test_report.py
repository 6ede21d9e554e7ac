"""`controller report` on a cluster."""

from __future__ import annotations

import pytest

from tests.controller.apiserver import ApiServer
from tests.controller.cli.commands import Cli
from tests.controller.workers import Said, Stays, Workers


@pytest.mark.parametrize("length", [27, 20_000_000])
def test_a_list_of_bad_images_is_whole_or_refused(cli: Cli, server: ApiServer, length: int) -> None:
    def printing(command: list[str], index: int) -> Said | Stays:
        return Said({"run": "r1", "bytes": length}, printed="key,stage,reason\na,read,é\n")

    with Workers(server, printing):
        done = cli("report", "r1", "--bad")
    if length == 27:
        assert done.stdout == "key,stage,reason\na,read,é\n"
    else:
        assert done.returncode == 3
        assert done.stdout == ""
        for value in ("20,000,000 bytes", "runs/r1/bad.csv", "file:///storage"):
            assert value in done.stderr
