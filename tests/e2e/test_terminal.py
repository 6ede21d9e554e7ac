"""Names of files, metadata and messages with control characters: no command lets them reach the terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from PIL import Image

from controller.main import SUBCOMMANDS
from tests.conftest import DEMO_MODEL
from tests.programs import CONTROLLER, WIDE, controller, serving

HOSTILE = "\x1b]0;owned\x07\x9b31m\x7f\u202e:fire:"
"""Sets the title, sets the colour by a C1 character, deletes, and turns the direction."""
ESCAPED = r"\u001b]0;owned\u0007\u009b31m\u007f\u202e:fire:"
FORGED = f"bad{HOSTILE}\nerror: forged.png"
RUN = ("--model", DEMO_MODEL, "--local")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t") / f"photos{HOSTILE}"
    folder.mkdir()
    names = [f"{colour}{HOSTILE}\n.png" for colour in ("red", "blue", "green")]
    for name in names:
        Image.new("RGB", (40, 30), name.partition("\x1b")[0]).save(folder / name, "PNG")
    (folder / FORGED).write_text(f"<html>{HOSTILE}")
    rows = [{"file_name": name, f"#{HOSTILE}": HOSTILE, "label": f"label{HOSTILE}\n"} for name in names]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def home(folder: Path) -> Path:
    """The home of the run r1, which is published, and of r2, which fails."""
    home = folder.parent / "home"
    done = controller("run-pipeline", folder, "--home", home, "--run", "r1", *RUN)
    assert done.returncode == 0, done.stderr
    broken = folder.parent / f"broken{HOSTILE}"
    broken.mkdir()
    (broken / "one.png").write_bytes((folder / f"red{HOSTILE}\n.png").read_bytes())
    (broken / "metadata.jsonl").write_text("{")
    failed = controller("run-pipeline", broken, "--home", home, "--run", "r2", *RUN)
    assert failed.returncode == 1
    assert is_safe(failed.stdout + failed.stderr)
    assert f"plan: {folder.parent}/broken{ESCAPED}/metadata.jsonl, line 1" in failed.stderr
    return home


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    with serving(home) as client:
        yield str(client.base_url)
    assert is_safe((home / "serve.log").read_text())


def is_safe(output: str) -> bool:
    return all(character in "\n\t" or character.isprintable() for character in output)


LOCAL = {
    "run-pipeline": (["run-pipeline", "/no/such{hostile}", "--local"], "source /no/such{escaped}"),
    "status": (["status", "r2"], "plan: {parent}/broken{escaped}/metadata.jsonl, line 1"),
    "runs": (["runs"], "{parent}/photos{escaped}"),
    "indexes": (["indexes"], "{parent}/photos{escaped}"),
    "report": (["report", "r1"], "{parent}/photos{escaped}"),
    "evaluate": (["evaluate", "photos"], r"label{escaped}\n"),
    "logs": (["logs", "r2", "0", "--stage", "plan"], "{parent}/broken{escaped}/metadata.jsonl"),
    "rollback": (["rollback", "x{hostile}"], ""),
    "restore": (["restore", "x{hostile}"], ""),
    "stop": (["stop", "x{hostile}"], ""),
    "cleanup": (["cleanup", "x{hostile}"], ""),
    "serve": (["serve", "--local", "--port", "{hostile}"], ""),
    "pools": (["pools", "sideways{hostile}"], ""),
}


@pytest.mark.parametrize("command", LOCAL)
def test_a_command_prints_no_control_character_of_data(home: Path, folder: Path, command: str) -> None:
    arguments, expected = LOCAL[command]
    fields = {"hostile": HOSTILE, "escaped": ESCAPED, "parent": folder.parent}
    completed = controller(*(argument.format(**fields) for argument in arguments), "--home", home)
    assert is_safe(completed.stdout + completed.stderr), ascii(completed)
    assert expected.format(**fields) in completed.stdout + completed.stderr
    assert completed.returncode == 0 or not completed.stdout


def test_every_command_is_tested() -> None:
    assert {*LOCAL, "search"} == {*SUBCOMMANDS}


def test_a_search_prints_no_control_character_of_data(url: str, folder: Path) -> None:
    completed = controller("search", "red", "-k", "1", "--url", url)
    assert is_safe(completed.stdout + completed.stderr)
    assert completed.stdout.splitlines()[1].endswith(rf"{folder.parent}/photos{ESCAPED}/red{ESCAPED}\n.png")
    missing = controller("search", f"./{HOSTILE}", "--url", url)
    assert missing.stderr.splitlines() == [f"error: file ./{ESCAPED} does not exist"]


@pytest.mark.parametrize("field", ["label", f"#{HOSTILE}"])
def test_json_has_the_exact_names_in_safe_characters(url: str, folder: Path, field: str) -> None:
    value = HOSTILE if field.startswith("#") else f"label{HOSTILE}\n"
    condition = json.dumps({field: value})
    completed = controller("search", "red", "-k", "1", "--filter", condition, "--url", url, "-o", "json")
    assert is_safe(completed.stdout)
    (result,) = json.loads(completed.stdout)["results"]
    assert result["uri"] == f"{folder}/red{HOSTILE}\n.png"
    assert result["metadata"] == {f"#{HOSTILE}": HOSTILE, "label": f"label{HOSTILE}\n"}
    fields = httpx.get(f"{url}/v1/facets").json()["fields"]
    assert [facet["field"] for facet in fields] == [f"#{HOSTILE}", "label"]


def test_a_list_in_a_pipe_is_exact(home: Path) -> None:
    completed = subprocess.run(
        [*CONTROLLER, "report", "r1", "--bad", "--home", str(home)], stdout=subprocess.PIPE, check=True
    )
    rows = list(csv.DictReader(io.StringIO(completed.stdout.decode(), newline="")))
    assert [row["key"] for row in rows] == [FORGED]


@pytest.mark.parametrize("arguments", [("report", "r1", "--bad"), ("report", "r1"), ("status", "r2"), ("runs",)])
def test_a_terminal_gets_no_control_character_of_data(home: Path, arguments: tuple[str, ...]) -> None:
    controlling, terminal = pty.openpty()
    command = [*CONTROLLER, *arguments, "--home", str(home)]
    env = {**os.environ, **WIDE, "TERM": "dumb"}  # rich adds no colours of its own
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, env=env)
    os.close(terminal)
    output = b""
    with suppress(OSError):  # Linux raises EIO at the end
        while data := os.read(controlling, 65_536):
            output += data
    os.close(controlling)
    assert process.wait() == 0
    text = output.decode().replace("\r\n", "\n")
    assert is_safe(text), ascii(text)
    assert r"\u001b]0;owned\u0007" in "".join(text.split())  # rich cuts and folds at 80 columns
