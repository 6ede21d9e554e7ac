"""`controller report` on a cluster."""

from __future__ import annotations

import json

import pytest

from tests.controller.apiserver import ApiServer
from tests.controller.cli.commands import Cli
from tests.controller.workers import Ended, Unfinished, Workers

CSV = "key,stage,reason\r\na,read,é\r\n"


@pytest.mark.parametrize("length", [35, 20_000_000])
def test_a_list_of_bad_images_is_whole_or_refused(cli: Cli, server: ApiServer, length: int) -> None:
    def write_bad_list(command: list[str], index: int) -> Ended | Unfinished:
        line = json.dumps(CSV, ensure_ascii=False)
        return Ended({"run": "r1", "bytes": length}, output=f"{line}\n")

    with Workers(server, write_bad_list):
        completed = cli("report", "r1", "--bad")
    if length == 35:
        assert completed.returncode == 0, completed.stderr
        assert completed.stdout == CSV.replace("\r\n", "\n")  # as a pipe that is read as text has it
    else:
        assert completed.returncode == 3
        assert completed.stdout == ""
        for value in ("20,000,000 bytes", "runs/r1/bad.csv", "file:///storage"):
            assert value in completed.stderr
