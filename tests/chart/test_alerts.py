"""Each alert: its texts, the series that make it fire, and the series that do not. Prometheus applies the rules itself,
with promtool."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.chart.helm import NAMESPACE, RELEASE, Helm, Objects
from tests.chart.monitoring import INDEX, MONITORING, RUN, Promtool, alerts, spec


def test_the_rules_pass_the_check(tool: Promtool, chart: Objects, monitored: Objects) -> None:
    for objects in (chart, monitored):
        for rules in objects.of("PrometheusRule"):
            tool.check("check", "rules", "--lint-fatal", tool.write("rules.yaml", rules["spec"]))


def test_each_alert_has_its_time_its_severity_and_a_command(monitored: Objects) -> None:
    for name, alert in alerts(monitored).items():
        assert alert["for"], name
        assert alert["labels"] == {
            "severity": alert["labels"]["severity"],
            "namespace": NAMESPACE,
            "release": RELEASE,
        }
        assert alert["labels"]["severity"] in ("warning", "critical")
        annotations = alert["annotations"]
        assert annotations.keys() == {"summary", "description"}
        assert annotations["summary"].endswith("."), name
        assert re.search(
            rf"(kubectl --namespace {NAMESPACE}|controller \w+ .*--release {RELEASE}) ", annotations["description"]
        )


def test_with_a_store_elsewhere_no_pod_of_it_is_named(helm: Helm) -> None:
    chart = helm.template({"monitoring": MONITORING, "store": {"url": "chroma+http://vectors:8000"}})
    description = alerts(chart)["ImgsearchStoreDown"]["annotations"]["description"]
    assert "chroma+http://vectors:8000" in description
    assert "component=chroma" not in description


@dataclass(frozen=True)
class Case:
    """Series that were scraped each minute, and the alert that fires at a moment."""

    name: str
    series: Mapping[str, str]
    time: str
    alert: str = ""
    """As Prometheus writes its labels, without those that every alert has; empty: none does."""
    pending_time: str = ""
    """When it does not fire yet: it might pass."""


def series_of(metric: str, **labels: str) -> str:
    """A series of the release."""
    all_labels = {"namespace": NAMESPACE, "release": RELEASE, **labels}
    return f"{metric}{{{','.join(f'{name}={json.dumps(value)}' for name, value in all_labels.items())}}}"


searcher_series = partial(series_of, pod="s1")
controller_series = partial(series_of, pod="c1", run=RUN, index=INDEX)
embed_series = partial(controller_series, stage="embed")
HEALTHY = {searcher_series("imgsearch_ready"): "1x900", searcher_series("imgsearch_store_up"): "1x900"}
"""A searcher with nothing to do."""
ROUTE = {"route": "/v1/search", "method": "POST"}


def latency(slow: int, route: str = "/v1/search") -> dict[str, str]:
    """100 requests a minute, so many of them slower than half a second."""
    bucket = partial(searcher_series, "imgsearch_request_seconds_bucket", route=route)
    return {
        bucket(le="0.25"): "0x30",
        bucket(le="0.5"): f"0+{100 - slow}x30",
        bucket(le="1.0"): "0+100x30",
        bucket(le="+Inf"): "0+100x30",
    }


def requests(failed: int, route: str = "/v1/search", status: str = "503", minutes: int = 30) -> dict[str, str]:
    """100 requests a minute, so many of them answered with the status."""
    count = partial(searcher_series, "imgsearch_requests_total", route=route, method="POST")
    return {count(status="200"): f"0+{100 - failed}x30", count(status=status): f"0+{failed}x{minutes} _x900"}


def stage(name: str, state: str, values: str = "1x60", pod: str = "c1") -> dict[str, str]:
    return {series_of("imgsearch_run_state", pod=pod, run=RUN, index=INDEX, stage=name, state=state): values}


def shards(name: str, *, active: int, waiting: int, failed: int = 0) -> dict[str, str]:
    return {
        controller_series("imgsearch_run_shards", stage=name, state="active"): f"{active}x60",
        controller_series("imgsearch_run_shards", stage=name, state="failed"): f"{failed}x60",
        controller_series("imgsearch_run_waiting_pods", stage=name): f"{waiting}x60",
    }


def images(finished: str, bad: str = "0x60") -> dict[str, str]:
    return {
        controller_series("imgsearch_run_images", state="finished"): finished,
        controller_series("imgsearch_run_images", state="bad"): bad,
    }


def recall(k: str = "10", **values_by_queries: str) -> dict[str, str]:
    figure = partial(searcher_series, "imgsearch_index_recall", index=INDEX, k=k)
    return {figure(queries=queries): values for queries, values in values_by_queries.items()}


def live_recall(found: int, checked: int) -> dict[str, str]:
    """So many neighbours a minute, of so many."""
    series = {"imgsearch_found_neighbours_total": found, "imgsearch_checked_neighbours_total": checked}
    return {searcher_series(name, index=INDEX, k="10"): f"0+{number}x60" for name, number in series.items()}


ENDED = "1x3 stale"
"""Said by a controller that ended after it."""
EVENT = f'run="{RUN}", index="{INDEX}"'
CASES = [
    Case("all is well", HEALTHY, "30m"),
    Case(
        "the store is down, and so the searcher",
        {searcher_series("imgsearch_ready"): "0x9", searcher_series("imgsearch_store_up"): "0x9"},
        "5m",
        'alertname="ImgsearchStoreDown", severity="critical"',
        "1m",
    ),
    Case(
        "it restarts",
        {searcher_series("imgsearch_ready"): "0 1x9", searcher_series("imgsearch_store_up"): "0 1x9"},
        "5m",
    ),
    Case(
        "one searcher does not reach the store",
        HEALTHY | {series_of("imgsearch_ready", pod="s2"): "0x9", series_of("imgsearch_store_up", pod="s2"): "0x9"},
        "5m",
    ),
    Case(
        "no searcher is ready",
        {searcher_series("imgsearch_ready"): "0x9", searcher_series("imgsearch_store_up"): "1x9"},
        "5m",
        'alertname="ImgsearchSearcherDown", severity="critical"',
        "1m",
    ),
    Case("there is none", {}, "5m", 'alertname="ImgsearchSearcherDown", severity="critical"', "1m"),
    Case(
        "another release's is no help",
        {'imgsearch_ready{namespace="search",release="other"}': "1x9"},
        "5m",
        'alertname="ImgsearchSearcherDown", severity="critical"',
        "1m",
    ),
    Case(
        "a tenth fails", HEALTHY | requests(10), "12m", 'alertname="ImgsearchSearchErrors", severity="critical"', "4m"
    ),
    Case("a tenth failed for a minute", HEALTHY | requests(10, minutes=1), "8m"),
    Case("a twenty-fifth fails", HEALTHY | requests(4), "12m"),
    Case("a tenth asks for what is not there", HEALTHY | requests(10, status="404"), "12m"),
    Case("not ready again and again", HEALTHY | requests(50, route="/readyz"), "12m"),
    Case("a tenth is slow", HEALTHY | latency(10), "20m", 'alertname="ImgsearchSearchSlow", severity="warning"', "9m"),
    Case("a fiftieth is slow", HEALTHY | latency(2), "20m"),
    Case("embedding is slow, which it may be", HEALTHY | latency(10, route="/v1/embed"), "20m"),
    Case(
        "the model answers nobody",
        HEALTHY
        | {
            searcher_series("imgsearch_encode_queue"): "3x30",
            searcher_series("imgsearch_encode_seconds_count", kind="text"): "7x30",
        },
        "10m",
        'alertname="ImgsearchModelStuck", severity="critical", pod="s1"',
        "1m",
    ),
    Case(
        "it never has",
        HEALTHY | {searcher_series("imgsearch_encode_queue"): "3x30"},
        "10m",
        'alertname="ImgsearchModelStuck", severity="critical", pod="s1"',
        "1m",
    ),
    Case(
        "the model is busy",
        HEALTHY
        | {
            searcher_series("imgsearch_encode_queue"): "9x30",
            searcher_series("imgsearch_encode_seconds_count", kind="text"): "0+9x30",
        },
        "10m",
    ),
    Case(
        "nobody asks the model",
        HEALTHY
        | {
            searcher_series("imgsearch_encode_queue"): "0x30",
            searcher_series("imgsearch_encode_seconds_count", kind="text"): "7x30",
        },
        "10m",
    ),
    Case(
        "a run is not served",
        HEALTHY | {searcher_series("imgsearch_index_problem", index=INDEX): "1x30"},
        "17m",
        f'alertname="ImgsearchIndexNotServed", severity="warning", index="{INDEX}"',
        "10m",
    ),
    Case(
        "its model is loaded", HEALTHY | {searcher_series("imgsearch_index_problem", index=INDEX): "1x5 stale"}, "17m"
    ),
    Case(
        "texts find too little",
        HEALTHY | recall(images="0.999x30", texts="0.94x30"),
        "10m",
        f'alertname="ImgsearchRecallLow", severity="warning", index="{INDEX}", queries="texts"',
        "4m",
    ),
    Case(
        "a searcher still serves the run before, which finds less",
        HEALTHY | recall(images="0.999x30", texts="0.94x3 0.97x30"),
        "10m",
    ),
    Case("all find enough", HEALTHY | recall(images="0.96x30", texts="0.95x30"), "10m"),
    Case("of a hundred, too few are found", HEALTHY | recall("100", images="0.9x30", texts="0.9x30"), "10m"),
    Case(
        "searches of users find too little",
        HEALTHY | live_recall(found=89, checked=100),
        "12m",
        f'alertname="ImgsearchLiveRecallLow", severity="warning", index="{INDEX}"',
        "7m",
    ),
    Case("they find a little less than ingest's", HEALTHY | live_recall(found=91, checked=100), "50m"),
    Case("few were checked", HEALTHY | live_recall(found=0, checked=5), "50m"),
    Case(
        "a run has failed, hours ago",
        HEALTHY | stage("plan", "complete", ENDED) | stage("embed", "failed", ENDED),
        "6h",
        f'alertname="ImgsearchRunFailed", severity="warning", stage="embed", {EVENT}',
        "0m",
    ),
    Case("long ago", HEALTHY | stage("embed", "failed", ENDED), "13h"),
    Case(
        "and was started again",
        HEALTHY | stage("embed", "failed", ENDED) | stage("embed", "active", "_x20 1x60", pod="c2"),
        "30m",
    ),
    Case(
        "and has succeeded then",
        HEALTHY | stage("embed", "failed", ENDED) | stage("ingest", "complete", "_x20 1x3 stale", pod="c2"),
        "2h",
    ),
    Case(
        "shards have failed, the others go on",
        HEALTHY | stage("embed", "active") | shards("embed", active=2, waiting=0, failed=3),
        "5m",
        f'alertname="ImgsearchShardFailed", severity="warning", stage="embed", state="failed", pod="c1", {EVENT}',
        "0m",
    ),
    Case("no shard has failed", HEALTHY | stage("embed", "active") | shards("embed", active=2, waiting=0), "5m"),
    Case(
        "no pod finds its node",
        HEALTHY | stage("embed", "active") | shards("embed", active=2, waiting=2) | images("50x60"),
        "50m",
        f'alertname="ImgsearchRunWaits", severity="warning", stage="embed", pod="c1", {EVENT}',
        "10m",
    ),
    Case(
        "none could even be made",
        HEALTHY | stage("plan", "active") | shards("plan", active=0, waiting=1),
        "20m",
        f'alertname="ImgsearchRunWaits", severity="warning", stage="plan", pod="c1", {EVENT}',
        "10m",
    ),
    Case(
        "a node is gone with two pods",
        HEALTHY
        | stage("embed", "active")
        | shards("embed", active=2, waiting=0)
        | {embed_series("imgsearch_run_lost_pods"): "0 0 0 0 0 2x60"},
        "8m",
        f'alertname="ImgsearchNodeLost", severity="warning", stage="embed", run="{RUN}"',
        "5m",
    ),
    Case("one of two does", HEALTHY | stage("embed", "active") | shards("embed", active=2, waiting=1), "20m"),
    Case(
        "embedding hangs",
        HEALTHY | stage("embed", "active") | shards("embed", active=2, waiting=1) | images("0+9x10 90x60"),
        "50m",
        f'alertname="ImgsearchRunStalled", severity="warning", stage="embed", state="finished", pod="c1", {EVENT}',
        "42m",
    ),
    Case(
        "embedding is slow",
        HEALTHY | stage("embed", "active") | shards("embed", active=2, waiting=0) | images("0+1x60"),
        "50m",
    ),
    Case(
        "embedding is done",
        HEALTHY | stage("ingest", "active") | shards("embed", active=0, waiting=0) | images("90x60"),
        "50m",
    ),
    Case(
        "ingest hangs",
        HEALTHY | stage("ingest", "active") | {controller_series("imgsearch_ingest_parts_total", pod="i1"): "4x60"},
        "40m",
        f'alertname="ImgsearchRunStalled", severity="warning", stage="ingest", pod="i1", {EVENT}',
        "32m",
    ),
    Case(
        "ingest has begun anew",
        HEALTHY | {controller_series("imgsearch_ingest_parts_total", pod="i1"): "_x20 4x60"},
        "40m",
    ),
    Case("ingest goes on", HEALTHY | {controller_series("imgsearch_ingest_parts_total", pod="i1"): "0+1x60"}, "40m"),
    Case(
        "a fifth is bad",
        HEALTHY | images("0+100x20", "0+20x20"),
        "10m",
        f'alertname="ImgsearchBadImages", severity="warning", pod="c1", {EVENT}',
        "4m",
    ),
    Case("a twentieth is bad", HEALTHY | images("0+100x20", "0+5x20"), "10m"),
    Case("nothing is finished yet", HEALTHY | images("0x20", "0x20"), "10m"),
]


def alert_samples(case: Case, state: str) -> list[dict[str, Any]]:
    """The series by which Prometheus says that the alert of a case is pending or firing."""
    labels = f'alertstate="{state}", namespace="{NAMESPACE}", release="{RELEASE}", {case.alert}'
    return [{"labels": f"ALERTS{{{labels}}}", "value": 1}] if case.alert else []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_alert_fires_when_it_should_and_no_other_does(tool: Promtool, monitored: Objects, case: Case) -> None:
    moments = [(case.time, "firing"), *([(case.pending_time, "pending")] if case.pending_time else [])]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [
            {"expr": "ALERTS", "eval_time": time, "exp_samples": alert_samples(case, state)} for time, state in moments
        ],
    }
    rules = tool.write("rules.yaml", spec(monitored))
    tool.check("test", "rules", tool.write("test.yaml", {"rule_files": [str(rules)], "tests": [test]}))


def test_each_alert_has_a_case_and_finds_the_labels_that_it_speaks_of(monitored: Objects) -> None:
    expected = [dict(re.findall(r'(\w+)="(.*?)"', case.alert)) for case in CASES if case.alert]
    assert {labels["alertname"] for labels in expected} == alerts(monitored).keys()
    for labels in expected:
        annotations = alerts(monitored)[labels["alertname"]]["annotations"]
        assert set(re.findall(r"\$labels\.(\w+)", str(annotations))) <= labels.keys()


def test_an_alert_says_what_has_happened_in_figures(tool: Promtool, monitored: Objects) -> None:
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in (HEALTHY | requests(10)).items()],
        "alert_rule_test": [
            {
                "alertname": "ImgsearchSearchErrors",
                "eval_time": "12m",
                "exp_alerts": [
                    {
                        "exp_labels": {"severity": "critical", "namespace": NAMESPACE, "release": RELEASE},
                        "exp_annotations": {
                            "summary": "10% of the requests to the search server fail.",
                            "description": "They get 5xx. Show the reasons: kubectl --namespace search logs "
                            "deployment/team-searcher --since 10m",
                        },
                    }
                ],
            }
        ],
    }
    rules = tool.write("rules.yaml", spec(monitored))
    tool.check("test", "rules", tool.write("test.yaml", {"rule_files": [str(rules)], "tests": [test]}))
