"""From nothing to a search: install, index on the GPU node, search, upgrade under load, uninstall, install again."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml

from imgsearch.client import Client
from tests.cluster.conftest import CLIENT
from tests.cluster.load import Load
from tests.cluster.world import COMPONENT, RELEASE, World, ids, stored_ids, wait_until
from tests.conftest import ROOT

SOURCE = "/sources/photos/few"

pytestmark = pytest.mark.gpu_node


def test_every_image_of_the_source_is_searchable_or_bad(world: World, indexed: str, photos: int) -> None:
    report = world.ask("report", indexed)
    assert report["images"] + report["bad"] == photos
    assert report["shards"] == 4
    with world.searcher() as client:
        assert len(ids(client, "photos", indexed)) == report["images"]


def test_the_shards_ran_two_at_a_time_on_the_gpu_node(world: World, indexed: str) -> None:
    job = world.job(indexed, "embed")
    assert job is not None
    assert job["spec"]["completions"] == 4
    assert job["spec"]["parallelism"] == 2  # as many as the cluster has GPUs
    nodes = {pod["spec"]["nodeName"] for pod in world.pods("embed")}
    gpu = {
        node["metadata"]["name"]
        for node in world.get("nodes")["items"]
        if int(node["status"]["allocatable"].get("nvidia.com/gpu", 0))
    }
    assert nodes == gpu


def test_a_person_searches_by_text_and_by_image(world: World, indexed: str) -> None:
    with world.searcher() as client:
        by_text = client.post("/v1/search", json={"text": "a cat", "k": 5, "index": "photos"}).raise_for_status().json()
        first = by_text["results"][0]
        image = client.get(first["image"]).raise_for_status().content
        by_image = (
            client.post("/v1/search/image", files={"file": image}, data={"k": 1, "index": "photos"})
            .raise_for_status()
            .json()
        )
        assert by_image["results"][0]["id"] == first["id"]
        assert client.get(first["thumbnail"]).raise_for_status().headers["content-type"] == "image/webp"
        page = client.get("/").raise_for_status()
        assert "<html" in page.text


def test_a_program_searches_with_the_client(world: World, indexed: str) -> None:
    with world.searcher() as http, Client(str(http.base_url)) as client:
        (first,) = client.search("a cat", index="photos", k=1).results
        by_image = client.search(image=client.image(first), index="photos", k=1)
        assert [result.id for result in by_image.results] == [first.id]


def test_an_evaluation_measures_the_index_in_a_pod_of_its_own(world: World, indexed: str) -> None:
    measured = world.ask("evaluate", "photos")
    assert [index["run"] for index in measured["indexes"]] == [indexed]
    (recall,) = [
        figure["indexes"][0]
        for figure in measured["figures"]
        if (figure["of"], figure["figure"]) == ("images", "recall@10")
    ]
    assert recall["value"] >= 0.9
    wait_until(lambda: not world.pods("evaluate"), "it has left nothing")


def test_status_tells_stages_shards_and_cost(world: World, indexed: str, photos: int) -> None:
    status = world.ask("status", indexed)
    stages = {stage["stage"]: stage for stage in status["stages"]}
    assert [stage["state"] for stage in status["stages"]] == ["complete"] * 3
    assert stages["embed"]["done"] == stages["embed"]["of"] == 4
    assert stages["embed"]["images"] + stages["embed"]["bad"] >= photos
    assert stages["embed"]["cost"] > 0
    table = world.controller("status", indexed).stdout
    assert "4/4" in table
    assert "cost" in table


def test_the_same_command_again_changes_nothing(world: World, indexed: str, photos: int) -> None:
    job = world.job(indexed, "embed")
    completed = world.controller("run-pipeline", SOURCE, "--run", indexed, "--shard-size", str(-(-photos // 4)))
    assert completed.returncode == 0
    assert "done already" in completed.stdout
    assert world.job(indexed, "embed") == job


def test_other_options_under_the_same_name_are_refused(world: World, indexed: str) -> None:
    completed = world.controller("run-pipeline", SOURCE, "--run", indexed, "--shard-size", "7")
    assert completed.returncode == 3
    assert "other options" in completed.stderr


def test_runs_indexes_logs_and_events_are_there(world: World, indexed: str) -> None:
    runs = world.ask("runs")
    assert (indexed, "done") in {(row["run"], row["state"]) for row in runs}
    assert "photos" in {row["index"] for row in world.ask("indexes")}
    log = [json.loads(line) for line in world.controller("logs", indexed, "3").stdout.splitlines() if line[:1] == "{"]
    assert any(entry.get("run") == indexed and entry.get("shard") == 3 and entry.get("pod") for entry in log)
    events = world.get("events", "--field-selector", "reason=RunPublished")["items"]
    assert events
    assert "searchable" in events[0]["message"]


def test_a_dry_run_prints_what_the_cluster_accepts(world: World, indexed: str) -> None:
    dry = world.controller("run-pipeline", SOURCE, "--run", "dry", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    jobs = list(yaml.safe_load_all(dry.stdout))
    assert [job["kind"] for job in jobs] == ["Job"] * 3
    world.kubectl("apply", "--dry-run=server", "--filename", "-", input=dry.stdout)
    assert world.job("dry", "plan") is None


def test_a_model_gets_onto_its_claim_and_an_index_goes_back_and_is_filled_again(world: World, indexed: str) -> None:
    (searcher,) = world.pods("searcher", phase="Running")
    # As docs/kubernetes.md has it for a cluster without internet access.
    world.kubectl("cp", str(ROOT / "demo" / "model"), f"{searcher['metadata']['name']}:/models/copied")
    options = ("--index", "copied", "--model", "local-dir:/models/copied")
    for run in ("copied", "again"):
        completed = world.controller("run-pipeline", SOURCE, "--run", run, *options)
        assert completed.returncode == 0, completed.stdout + completed.stderr
    rolled_back = world.controller("rollback", "copied")
    assert rolled_back.returncode == 0, rolled_back.stderr
    assert {row["index"]: row["run"] for row in world.ask("indexes")}["copied"] == "copied"
    before = stored_ids(world, "copied", "copied")
    restored = world.controller("restore", "copied")
    assert restored.returncode == 0, restored.stderr
    assert {row["index"]: row["run"] for row in world.ask("indexes")}["copied"] == "copied"
    assert stored_ids(world, "copied", "copied") == before
    assert len(before) == world.ask("report", "copied")["images"]


def test_a_person_searches_from_a_desk(world: World, indexed: str) -> None:
    with world.searcher() as client:
        command = [*world.program, "search", "a cat", "--index", "photos", "--url", str(client.base_url)]
        completed = subprocess.run([*command, "--output", "json"], capture_output=True, text=True, timeout=60)
        assert completed.returncode == 0, completed.stderr
        (first,) = Client(str(client.base_url)).search("a cat", index="photos", k=1).results
    assert json.loads(completed.stdout)["results"][0]["id"] == first.id


def test_helm_test_passes(world: World, indexed: str) -> None:
    completed = world.helm("test", RELEASE, "--logs")
    assert completed.returncode == 0, completed.stdout + completed.stderr


def test_an_upgrade_with_other_values_fails_no_search(world: World, indexed: str, values: dict[str, Any]) -> None:
    new_values = {**values, "searcher": {**values["searcher"], "settings": {"drainSeconds": 15}}, "logLevel": "WARNING"}
    with Load(world, CLIENT) as load:
        world.install(new_values)
        load.wait_for_more()
        assert not load.failures()
    world.install(values)


def test_the_index_outlives_the_release(world: World, indexed: str, values: dict[str, Any]) -> None:
    with world.searcher() as client:
        ids_before = ids(client, "photos", indexed)
    completed = world.helm("uninstall", RELEASE, "--wait")
    assert completed.returncode == 0, completed.stderr
    # `helm uninstall` keeps the pod of `helm test`, as every hook.
    wait_until(lambda: not world.objects("jobs,pods", f"{COMPONENT}!=test"), "the Jobs and all pods are gone")
    world.install(values)
    with world.searcher() as client:
        assert ids(client, "photos", indexed) == ids_before
