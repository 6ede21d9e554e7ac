"""Kubeconfig files of the user: lists their clusters, and adds or removes one entry."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from controller.backends.files import read_yaml, write_yaml

DEFAULT_KUBECONFIG = "~/.kube/config"


class MissingEntry(LookupError):
    """A kubeconfig has no entry of this name."""


class Kubeconfig:
    """One or more files that count as one
    (https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/)."""

    PARTS = ("clusters", "users", "contexts")

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    @classmethod
    def of(cls, paths: str | None) -> Kubeconfig:
        """The files of the variable KUBECONFIG; None or empty: the default file."""
        return cls([Path(path).expanduser() for path in (paths or DEFAULT_KUBECONFIG).split(os.pathsep) if path])

    def contexts(self) -> list[str]:
        return [entry["name"] for entry in self._entries("contexts")]

    def servers(self) -> dict[str, str]:
        """URLs by cluster name."""
        return {entry["name"]: entry["cluster"].get("server", "") for entry in self._entries("clusters")}

    def begin(self, servers: Mapping[str, str]) -> None:
        """Replaces the first file with one that contains clusters of these URLs only, by name."""
        clusters = [{"name": name, "cluster": {"server": url}} for name, url in servers.items()]
        write_yaml(
            self._files[0], {"apiVersion": "v1", "kind": "Config", "clusters": clusters, "users": [], "contexts": []}
        )

    def adopt(self, name: str, other: Kubeconfig, env: Mapping[str, str]) -> None:
        """Copies the entries of this name from another kubeconfig. Their credential plugin runs with `env`.

        Raises MissingEntry where the other one lacks a part."""
        source, target = read_yaml(other._files[0]), read_yaml(self._files[0])
        for part in self.PARTS:
            entries = _named(source, part, name)
            if not entries:
                raise MissingEntry(f"no {name} among the {part}")
            target[part] = _others(target, part, name) + entries
        for user in target["users"]:
            if user["name"] == name and (plugin := user["user"].get("exec")):
                plugin["env"] = [{"name": key, "value": value} for key, value in env.items()]
        write_yaml(self._files[0], {"apiVersion": "v1", "kind": "Config", **target})

    def drop(self, name: str) -> None:
        """Removes the entries of this name. Where it is the current context, none is current afterwards, so that no
        command uses another cluster by accident."""
        for file in self._files:
            old = read_yaml(file)
            new = {**old, **{part: _others(old, part, name) for part in self.PARTS if part in old}}
            if new.get("current-context") == name:
                del new["current-context"]
            if new != old:
                write_yaml(file, new)

    def _entries(self, part: str) -> list[dict[str, Any]]:
        return [entry for file in self._files for entry in read_yaml(file).get(part) or []]


def _named(config: Mapping[str, Any], part: str, name: str) -> list[dict[str, Any]]:
    return [entry for entry in config.get(part) or [] if entry["name"] == name]


def _others(config: Mapping[str, Any], part: str, name: str) -> list[dict[str, Any]]:
    return [entry for entry in config.get(part) or [] if entry["name"] != name]
