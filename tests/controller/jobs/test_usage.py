"""GPU hours of a Job, from its pods, its record and the annotations of its template."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.jobs.state import job_state
from controller.jobs.usage import Gpu
from imgsearch import labels
from tests.controller.jobs.job_objects import job


def job_with(**annotations: str) -> dict[str, Any]:
    """A Job whose pods say so of what they ask for."""
    manifest = job({}, completions=1)
    manifest["spec"]["template"] = {"metadata": {"annotations": annotations}}
    return manifest


@pytest.mark.parametrize(("spot_label", "spot"), [("only", True), ("never", False), ("prefer", None), ("", None)])
def test_what_no_node_has_told_is_what_pods_asked_for(spot_label: str, spot: bool | None) -> None:
    manifest = job_with(**{labels.ACCELERATOR: "nvidia-l4", labels.SPOT: spot_label})
    gpu_hours = {Gpu(): 1.0, Gpu("A10G"): 2.0, Gpu("", True): 4.0, Gpu("A10G", False): 8.0}
    by_gpu = job_state(manifest, {}, gpu_hours=gpu_hours).usage.by_gpu
    expected: dict[Gpu, float] = {}
    for gpu, hours in [
        (Gpu("L4", spot), 1.0),
        (Gpu("A10G", spot), 2.0),
        (Gpu("L4", True), 4.0),
        (Gpu("A10G", False), 8.0),
    ]:
        expected[gpu] = expected.get(gpu, 0.0) + hours
    assert by_gpu == expected


def test_pods_that_might_ask_for_several_kinds_had_one_that_nobody_knows() -> None:
    state = job_state(job_with(), {}, gpu_hours={Gpu(): 1.5})
    assert state.usage.by_gpu == {Gpu(): 1.5}
    assert state.usage.total == 1.5


def test_what_ran_outlives_the_nodes() -> None:
    manifest = job_with(**{labels.ACCELERATOR: "L4"})
    seen_state = job_state(manifest, {}, gpu_hours={Gpu("L4", True): 1 / 3, Gpu("L4", False): 1 / 7})
    manifest["metadata"]["annotations"][labels.RECORD] = json.dumps(seen_state.to_record().to_json())
    recorded = job_state(manifest, {})
    assert recorded.usage.by_gpu == {Gpu("L4", True): pytest.approx(1 / 3), Gpu("L4", False): pytest.approx(1 / 7)}
    assert recorded.usage.total == pytest.approx(10 / 21)
    unnamed = job_state(manifest, {}, gpu_hours={Gpu(): 10 / 21})
    assert unnamed.usage.by_gpu == recorded.usage.by_gpu, "of the same hours, the record knows on what"
    assert unnamed.to_record() == recorded.to_record()


def test_who_has_seen_more_than_was_kept_tells_more() -> None:
    manifest = job_with()
    state = job_state(manifest, {}, gpu_hours={Gpu("L4", True): 1.0})
    manifest["metadata"]["annotations"][labels.RECORD] = json.dumps(state.to_record().to_json())
    assert job_state(manifest, {}, gpu_hours={Gpu("L4", False): 1.0 + 1 / 3600}).usage.by_gpu == {
        Gpu("L4", False): 1.0 + 1 / 3600
    }


def test_of_the_same_hours_who_has_seen_the_nodes_tells() -> None:
    manifest = job_with(**{labels.ACCELERATOR: "L4", labels.SPOT: "never"})
    state = job_state(manifest, {}, gpu_hours={Gpu(): 1.0})
    manifest["metadata"]["annotations"][labels.RECORD] = json.dumps(state.to_record().to_json())
    assert job_state(manifest, {}).usage.by_gpu == {Gpu("L4", False): 1.0}
    assert job_state(manifest, {}, gpu_hours={Gpu("T4", True): 1.0}).usage.by_gpu == {Gpu("T4", True): 1.0}
    assert job_state(manifest, {}, gpu_hours={Gpu("T4", True): 0.5}).usage.by_gpu == {Gpu("L4", False): 1.0}, (
        "half of its pods went"
    )
