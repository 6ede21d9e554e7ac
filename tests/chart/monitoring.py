"""The chart's monitoring: the values that enable it, its alerts, and Prometheus' own checks of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.chart.helm import CHART, Object, Objects

DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
RUN, INDEX = "r1", "photos"
MONITORING: dict[str, Any] = {
    "enabled": True,
    "interval": "30s",
    "labels": {"prometheus": "team"},
    "dashboardLabels": {"dashboards": "search"},
    "searchSeconds": 0.5,
}


class Promtool:
    """The checks of Prometheus, on files below a folder."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder

    def write(self, name: str, content: Any) -> Path:
        file = self._folder / name
        file.write_text(yaml.safe_dump(content))
        return file

    def check(self, *arguments: str | Path) -> str:
        completed = subprocess.run([self._program, *arguments], capture_output=True, text=True, timeout=60)
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return completed.stdout


def monitors(chart: Objects) -> list[Object]:
    return [chart.named("ServiceMonitor", "searcher"), chart.named("PodMonitor", "pipeline")]


def spec(chart: Objects) -> dict[str, Any]:
    """The rule groups, as Prometheus reads them."""
    return dict(chart.named("PrometheusRule", "alerts")["spec"])


def alerts(chart: Objects) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in spec(chart)["groups"] for rule in group["rules"]}
