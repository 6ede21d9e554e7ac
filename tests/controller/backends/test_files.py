from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.backends.files import read_yaml, write_atomically, write_json, write_yaml
from imgsearch.errors import UsageError


def test_a_file_is_replaced_as_a_whole_and_others_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    write_json(file, {"a": 1})
    write_json(file, {"a": 2})
    assert json.loads(file.read_text()) == {"a": 2}
    assert file.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [file]


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    write_atomically(link, "text")
    assert link.is_symlink()
    assert target.read_text() == "text"


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomically(file, "before")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "\ud800")
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_yaml_is_a_mapping_or_an_error(tmp_path: Path) -> None:
    file = tmp_path / "new" / "config.yaml"
    assert read_yaml(file) == {}
    write_yaml(file, {"b": 1, "a": [2]})
    assert read_yaml(file) == {"b": 1, "a": [2]}
    for text in ("- a", "a: ["):
        file.write_text(text)
        with pytest.raises(UsageError, match=str(file)):
            read_yaml(file)
