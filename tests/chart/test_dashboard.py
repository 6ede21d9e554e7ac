"""The dashboard and the alerts show the metrics that exist, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.chart.helm import CHART, Objects
from tests.chart.monitoring import DASHBOARD, Promtool, alerts

DOCS = (CHART.parents[1] / "docs" / "metrics.md").read_text()
METRIC = re.compile(r"\b(imgsearch_\w+|up)\b")


def panels() -> list[dict[str, Any]]:
    """Those with something in them."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Each panel's queries."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_the_dashboards_queries_are_promql(tool: Promtool) -> None:
    substitutions = {"$__rate_interval": "1m", "$__range": "1h"}
    rules = []
    for number, (_, query) in enumerate(queries()):
        for name, value in substitutions.items():
            query = query.replace(name, value)
        rules.append({"record": f"query:{number}", "expr": query})
    tool.check("check", "rules", tool.write("queries.yaml", {"groups": [{"name": "queries", "rules": rules}]}))


def test_the_dashboards_queries_are_of_what_a_person_has_chosen() -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "namespace", "release", "run"}
    for title, query in queries():
        for metric, selector in re.findall(r"\b(imgsearch_\w+)(\{.*?\})?", query):
            assert selector.startswith('{namespace="$namespace",release="$release"'), (title, metric)
            has_run = re.match("imgsearch_(run|embed|ingest)_", metric)
            assert ('run=~"$run"' in selector) is bool(has_run), (title, metric)
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "$datasource"}, panel["title"]


def test_the_dashboards_panels_lie_beside_each_other() -> None:
    occupied: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        position = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert not cells & occupied, panel["title"]
        assert max(x for x, _ in cells) < 24
        occupied |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def documented() -> dict[str, str]:
    """Each metric of docs/metrics.md with its type."""
    return dict(re.findall(r"^\| `(imgsearch_\w+)` \| (\w+) \|", DOCS, re.MULTILINE))


def documented_series() -> set[str]:
    """The names under which the documented metrics are found."""
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + suffix for name, kind in documented().items() for suffix in suffixes.get(kind, ("",))}


def metric_of(name: str) -> str:
    return name if name in documented() else re.sub("_(bucket|sum|count)$", "", name)


def test_alerts_and_dashboard_use_metrics_that_there_are_and_show_all_of_them(monitored: Objects) -> None:
    plotted = {name for _, query in queries() for name in METRIC.findall(query)}
    variables = {
        name for variable in DASHBOARD["templating"]["list"] for name in METRIC.findall(str(variable["query"]))
    }
    alerted = {name for alert in alerts(monitored).values() for name in METRIC.findall(alert["expr"])}
    assert plotted | variables | alerted <= documented_series() | {"up"}
    assert {metric_of(name) for name in plotted} == documented().keys()


def test_the_docs_list_the_alerts(monitored: Objects) -> None:
    rows = re.findall(r"^\| `(Imgsearch\w+)` \| (\w+) \|", DOCS, re.MULTILINE)
    assert dict(rows) == {name: alert["labels"]["severity"] for name, alert in alerts(monitored).items()}
