"""The person's kubeconfig: what is read of it, and how it is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from controller.backends.kubeconfig import Kubeconfig, MissingEntry
from imgsearch.errors import UsageError
from tests.skypilot.cluster import kubeconfig


def test_several_files_are_one(tmp_path: Path) -> None:
    first = kubeconfig(tmp_path / "one", {"a": "https://a"}, current="a")
    second = kubeconfig(tmp_path / "two", {"b": "https://b"}, current=None)
    config = Kubeconfig.of(os.pathsep.join([str(first), str(second), str(tmp_path / "none")]))
    assert config.contexts() == ["a", "b"]
    config.drop("b")
    assert config.contexts() == ["a"]
    assert yaml.safe_load(second.read_text())["contexts"] == []
    assert not (tmp_path / "none").exists()


def test_it_is_written_for_its_owner_alone_and_a_link_stays_one(tmp_path: Path) -> None:
    target = kubeconfig(tmp_path / "real", {"a": "https://a"}, current="a")
    link = tmp_path / "link"
    link.symlink_to(target)
    Kubeconfig.of(str(link)).drop("a")
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_one_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("a: [")
    with pytest.raises(UsageError, match="config: while parsing"):
        Kubeconfig.of(str(tmp_path / "config")).contexts()


def test_what_another_does_not_have_cannot_be_taken_over(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path / "mine", {"a": "https://a"}, current="a")
    other_file = kubeconfig(tmp_path / "other", {"b": "https://b"}, current="b")
    text = file.read_text()
    with pytest.raises(MissingEntry, match="no c among the clusters"):
        Kubeconfig.of(str(file)).adopt("c", Kubeconfig.of(str(other_file)), {})
    assert file.read_text() == text
