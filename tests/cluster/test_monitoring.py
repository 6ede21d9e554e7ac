"""What a Prometheus sees of the release through the chart's own monitors: each query of the dashboard has an answer,
each alert can be evaluated, and the one that matters most comes although its pod is gone."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from tests.cluster.conftest import CLIENT
from tests.cluster.prometheus import Prometheus, prometheus
from tests.cluster.world import World, serves, wait_until

RUN = "watched"
SOURCE = f"/sources/photos/{RUN}"
KEYS = "imgsearch_key_requests_total"
"""The release has no API keys, so nobody brings one."""
COPIES = 8
"""Of each photo: enough for Prometheus, which takes up to 5 seconds to begin with a new pod."""
MAKE = f"""
import pathlib, shutil
watched = pathlib.Path('{SOURCE}'); watched.mkdir()
for file in pathlib.Path('/sources/photos/few').iterdir():
    for copy in range({COPIES}): shutil.copyfile(file, watched / f'{{copy}}-{{file.name}}')
(watched / '0-broken.jpg').write_bytes(b'<html>')
"""


@pytest.fixture(scope="module")
def chart(world: World, values: dict[str, Any]) -> list[dict[str, Any]]:
    """The release's objects with monitoring. They are not installed: the cluster need not know their kinds."""
    monitored_values = {**values, "monitoring": {"enabled": True, "interval": "1s"}}
    completed = world.chart("template", monitored_values, "--kube-version", "1.29")
    assert completed.returncode == 0, completed.stderr
    return [manifest for manifest in yaml.safe_load_all(completed.stdout) if manifest]


@pytest.fixture(scope="module")
def watching(world: World, chart: list[dict[str, Any]], photos: int) -> Iterator[Prometheus]:
    """A Prometheus that has watched a run, and some searches in what came of it."""
    world.python("filler", MAKE)
    with prometheus(world, CLIENT, chart) as watching:
        shards = ("--shard-size", str(photos * COPIES // 2 + 1), "--set", "run.part_images=4")
        chroma = f"statefulset/{world.release}-chroma"
        world.kubectl("scale", chroma, "--replicas=0")  # ingest waits for it, until Prometheus has found ingest
        detached = world.controller("run-pipeline", SOURCE, "--run", RUN, "--index", RUN, *shards, "--detach")
        assert detached.returncode == 0, detached.stderr
        wait_until(lambda: watching.now('up{container="ingest"} == 1'), "ingest is scraped", seconds=400)
        world.kubectl("scale", chroma, "--replicas=1")
        wait_until(lambda: has_ended(world, RUN), "the run has ended", seconds=900)
        with world.searcher() as client:
            wait_until(lambda: serves(client, RUN, RUN), "the run is served")
            # Again and again: a rate takes two looks at a counter, and the first may come after the first search.
            wait_until(lambda: searched(client, watching), "searches were scraped")
        yield watching


def searched(client: httpx.Client, watching: Prometheus) -> bool:
    """Searches by a text that is known, one that is new and an image, asks for an image that is not there, and says
    whether that has been seen."""
    for text in ("a photo", f"a photo of {time.time()}"):
        response = client.post("/v1/search", json={"text": text, "index": RUN}).raise_for_status().json()
    image = client.get(response["results"][0]["image"]).raise_for_status().content
    client.post("/v1/search/image", files={"file": image}, data={"index": RUN}).raise_for_status()
    assert client.get("/v1/images/none", params={"index": RUN}).status_code == 404
    queries = ('imgsearch_encode_seconds_count{kind="image"}', 'imgsearch_checked_neighbours_total{k="10"}')
    return all(watching.ever(f"rate({query}[30s]) > 0") for query in queries)


def has_ended(world: World, run: str) -> bool:
    job = world.job(run, "controller")
    return bool(job and job["status"].get("conditions"))


def panels(chart: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The dashboard's queries by the titles of their panels, as Grafana sends them."""
    (config,) = [
        manifest
        for manifest in chart
        if manifest["kind"] == "ConfigMap" and manifest["metadata"]["name"].endswith("-dashboard")
    ]
    dashboard = json.loads(config["data"]["imgsearch.json"])
    metadata = config["metadata"]
    chosen = {
        "$namespace": metadata["namespace"],
        "$release": metadata["labels"]["app.kubernetes.io/instance"],
        "$run": RUN,
        "$__rate_interval": "30s",
        "$__range": "1h",
    }
    queries_by_panel = {}
    for panel in dashboard["panels"]:
        queries = [target["expr"] for target in panel.get("targets", [])]
        for name, value in chosen.items():
            queries = [query.replace(name, value) for query in queries]
        queries_by_panel[panel["title"]] = queries
    return queries_by_panel


def test_searcher_embedder_ingest_and_controller_are_scraped(watching: Prometheus) -> None:
    containers = {series["metric"]["container"] for series in watching.ever("up == 1")}
    assert containers == {"searcher", "embed", "ingest", "controller"}


def test_no_label_of_a_metric_clashes_with_one_of_its_target(watching: Prometheus) -> None:
    assert not [name for name in watching.get("labels") if name.startswith("exported_")]
    shards = watching.now(
        f'count by (shard) (max_over_time(imgsearch_embed_encoded_total{{run="{RUN}",index="{RUN}"}}[1h]))'
    )
    assert {series["metric"]["shard"] for series in shards} == {"0", "1"}


def test_each_query_of_the_dashboard_has_an_answer(watching: Prometheus, chart: list[dict[str, Any]]) -> None:
    unanswered = {
        f"{title}: {query}"
        for title, queries in panels(chart).items()
        for query in queries
        if KEYS not in query
        and not any(math.isfinite(float(value)) for series in watching.ever(query) for _, value in series["values"])
    }
    assert unanswered == set()


def test_what_a_person_can_choose_on_the_dashboard_is_there(world: World, watching: Prometheus) -> None:
    selector = f'namespace="{world.namespace}",release="{world.release}"'
    assert watching.get("label/namespace/values", **{"match[]": "imgsearch_ready"}) == [world.namespace]
    assert watching.get("label/release/values", **{"match[]": "imgsearch_ready"}) == [world.release]
    assert watching.get("label/run/values", **{"match[]": f'up{{{selector},run!=""}}'}) == [RUN]


def test_the_figures_are_those_of_the_run(world: World, watching: Prometheus) -> None:
    report = world.ask("report", RUN)
    total = report["images"] + report["bad"]
    assert last(watching, 'imgsearch_run_images{state="planned"}') == total
    assert last(watching, 'imgsearch_run_images{state="finished"}') == total
    assert last(watching, 'imgsearch_run_images{state="bad"}') == report["bad"] == 1
    assert last(watching, 'imgsearch_run_state{stage="ingest",state="complete"}') == 1
    assert last(watching, f'imgsearch_index_images{{index="{RUN}"}}') == report["images"]


def test_the_bad_images_of_the_run_are_listed_with_the_reason(world: World, watching: Prometheus) -> None:
    completed = world.controller("report", RUN, "--bad")
    assert completed.returncode == 0, completed.stderr
    (row,) = csv.DictReader(io.StringIO(completed.stdout))
    assert (row["key"], row["stage"]) == ("0-broken.jpg", "decode")
    assert row["reason"]


def last(watching: Prometheus, series: str) -> float:
    """The last figure of a series, also of one that has ended."""
    (sample,) = watching.now(f"last_over_time({series}[1h])")
    return float(sample["value"][1])


def test_each_alert_is_evaluated_and_none_fires_where_all_is_well(watching: Prometheus) -> None:
    rules = [rule for group in watching.get("rules")["groups"] for rule in group["rules"]]
    assert {(rule["name"], rule["health"]) for rule in rules if rule["health"] != "ok"} == set()
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def test_a_run_that_has_failed_is_told_of_although_its_controller_is_gone(world: World, watching: Prometheus) -> None:
    detached = world.controller("run-pipeline", "/sources/photos/none", "--run", "failing", "--detach")
    assert detached.returncode == 0, detached.stderr
    wait_until(lambda: has_ended(world, "failing"), "the run has ended", seconds=300)
    wait_until(lambda: not watching.now('imgsearch_run_state{run="failing"}'), "its series have ended", seconds=400)
    alert = wait_until(lambda: active_alert(watching, "ImgsearchRunFailed"), "an alert")
    assert alert["annotations"]["summary"] == "Run failing failed in plan."
    assert f"controller status failing --release {world.release}" in alert["annotations"]["description"]


def active_alert(watching: Prometheus, name: str) -> dict[str, Any] | None:
    return next((alert for alert in watching.get("alerts")["alerts"] if alert["labels"]["alertname"] == name), None)
