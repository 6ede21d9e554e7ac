"""`controller report` on a cluster."""

from __future__ import annotations

import pytest

from tests.controller.apiserver import ApiServer
from tests.controller.cli.commands import Cli
from tests.controller.workers import Ended, Unfinished, Workers


@pytest.mark.parametrize("length", [27, 20_000_000])
def test_a_list_of_bad_images_is_whole_or_refused(cli: Cli, server: ApiServer, length: int) -> None:
    def write_bad_list(command: list[str], index: int) -> Ended | Unfinished:
        return Ended({"run": "r1", "bytes": length}, output="key,stage,reason\na,read,é\n")

    with Workers(server, write_bad_list):
        completed = cli("report", "r1", "--bad")
    if length == 27:
        assert completed.stdout == "key,stage,reason\na,read,é\n"
    else:
        assert completed.returncode == 3
        assert completed.stdout == ""
        for value in ("20,000,000 bytes", "runs/r1/bad.csv", "file:///storage"):
            assert value in completed.stderr
