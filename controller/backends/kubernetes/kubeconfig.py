"""The person's kubeconfig: which clusters it leads to, and one entry put in or taken out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller.backends import files as yamlfile

USUAL = "~/.kube/config"


class NotThere(LookupError):
    """A kubeconfig has no entry of this name."""


class Kubeconfig:
    """Kubeconfig files, several of them being one: what is in them by name, each entry put in or taken out alone
    (https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/)."""

    PARTS = ("clusters", "users", "contexts")

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    @classmethod
    def of(cls, paths: str | None) -> Kubeconfig:
        """Of what KUBECONFIG says; None or empty: the usual one."""
        return cls([Path(path).expanduser() for path in (paths or USUAL).split(os.pathsep) if path])

    def contexts(self) -> list[str]:
        return [each["name"] for file in self._files for each in yamlfile.read(file).get("contexts") or []]

    def servers(self) -> dict[str, str]:
        """By cluster, its URL."""
        named = [each for file in self._files for each in yamlfile.read(file).get("clusters") or []]
        return {each["name"]: each["cluster"].get("server", "") for each in named}

    def begin(self, servers: Mapping[str, str]) -> None:
        """Leaves nothing in it but clusters with these URLs, by name."""
        clusters = [{"name": name, "cluster": {"server": url}} for name, url in servers.items()]
        yamlfile.write(
            self._files[0], {"apiVersion": "v1", "kind": "Config", "clusters": clusters, "users": [], "contexts": []}
        )

    def adopt(self, name: str, other: Kubeconfig, env: Mapping[str, str]) -> None:
        """Puts in what another has of this name, its credential plugin being run with `env`.

        Raises NotThere where the other lacks a part of it."""
        theirs, mine = yamlfile.read(other._files[0]), yamlfile.read(self._files[0])
        for part in self.PARTS:
            found = [each for each in theirs.get(part) or [] if each["name"] == name]
            if not found:
                raise NotThere(f"no {name} among the {part}")
            mine[part] = [each for each in mine.get(part) or [] if each["name"] != name] + found
        for user in mine["users"]:
            if user["name"] == name and (plugin := user["user"].get("exec")):
                plugin["env"] = [{"name": key, "value": value} for key, value in env.items()]
        yamlfile.write(self._files[0], {"apiVersion": "v1", "kind": "Config", **mine})

    def drop(self, name: str) -> None:
        """Takes out all that has this name. Where it was the current context, there is none then: no other cluster must
        be meant by chance."""
        for file in self._files:
            old = yamlfile.read(file)
            kept = {part: [each for each in old.get(part) or [] if each["name"] != name] for part in self.PARTS}
            new = {**old, **{part: each for part, each in kept.items() if part in old}}
            if new.get("current-context") == name:
                del new["current-context"]
            if new != old:
                yamlfile.write(file, new)
