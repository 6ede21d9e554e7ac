"""The programs `helm` and `helm-docs`, as the tests of the chart call them, and the objects that a chart makes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "imgsearch"
RELEASE, NAMESPACE = "team", "search"
KUBERNETES = "1.29"
"""The oldest that the chart supports; without a cluster, helm would take the one that it was built with."""

Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod that an object makes, or would."""

    owner: str
    """The object, as `Kind/name`."""
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def env(self) -> dict[str, Any]:
        """Variables of the first container: the value, or where it comes from."""
        return {
            variable["name"]: variable.get("value", variable.get("valueFrom"))
            for variable in self.spec["containers"][0]["env"]
        }


class Objects:
    """What `helm template` made."""

    def __init__(self, text: str) -> None:
        self.manifests: list[Object] = [manifest for manifest in yaml.safe_load_all(text) if manifest]

    def named(self, kind: str, name: str) -> Object:
        (manifest,) = [manifest for manifest in self.of(kind) if manifest["metadata"]["name"] == f"{RELEASE}-{name}"]
        return manifest

    def of(self, kind: str) -> list[Object]:
        return [manifest for manifest in self.manifests if manifest["kind"] == kind]

    def pods(self) -> list[Pod]:
        """Every pod of every object: also those of Jobs to be, and that of `helm test`."""
        return [pod for manifest in self.manifests for pod in _pods(manifest)]

    def pod(self, component: str) -> Pod:
        return next(pod for pod in self.pods() if pod.component == component)

    def env(self, component: str) -> dict[str, Any]:
        return self.pod(component).env


def _pods(owner: Object) -> Iterator[Pod]:
    match owner["kind"]:
        case "Pod":
            template = owner
        case "PodTemplate":
            template = owner["template"]
        case "CronJob":
            template = owner["spec"]["jobTemplate"]["spec"]["template"]
        case "Deployment" | "StatefulSet":
            template = owner["spec"]["template"]
        case _:
            return
    yield Pod(f"{owner['kind']}/{owner['metadata']['name']}", template["metadata"]["labels"], template["spec"])


class Helm:
    """One `helm` binary."""

    def __init__(self, program: str) -> None:
        self._program = program

    def template(self, values: Path | Mapping[str, Any] | None = None, *, chart: Path = CHART) -> Objects:
        """The objects of a release with these values."""
        completed = self.try_template(values, chart=chart)
        assert completed.returncode == 0, completed.stderr
        return Objects(completed.stdout)

    def try_template(
        self,
        values: Path | Mapping[str, Any] | None = None,
        *,
        chart: Path = CHART,
        release: str = RELEASE,
        namespace: str = NAMESPACE,
    ) -> subprocess.CompletedProcess[str]:
        return self._run("template", release, chart, "--namespace", namespace, values=values)

    def lint(self, values: Path) -> subprocess.CompletedProcess[str]:
        return self._run("lint", "--strict", CHART, values=values)

    def _run(self, *arguments: str | Path, values: Path | Mapping[str, Any] | None) -> subprocess.CompletedProcess[str]:
        values_option: Sequence[str | Path] = (
            () if values is None else ("--values", values if isinstance(values, Path) else "-")
        )
        return subprocess.run(
            [self._program, *arguments, "--kube-version", KUBERNETES, *values_option],
            input=json.dumps(values) if isinstance(values, Mapping) else None,  # every string in quotes
            capture_output=True,
            text=True,
            timeout=60,
        )
