"""GPU hours of a Job, from its pods, its record and the annotations of its template."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.jobs.state import job_state
from controller.jobs.usage import Gpu
from imgsearch import labels
from tests.controller.jobs.test_state import job


def asking(**annotations: str) -> dict[str, Any]:
    """A Job whose pods say so of what they ask for."""
    made = job({}, completions=1)
    made["spec"]["template"] = {"metadata": {"annotations": annotations}}
    return made


@pytest.mark.parametrize(("asked", "spot"), [("only", True), ("never", False), ("prefer", None), ("", None)])
def test_what_no_node_has_told_is_what_pods_asked_for(asked: str, spot: bool | None) -> None:
    made = asking(**{labels.ACCELERATOR: "nvidia-l4", labels.SPOT: asked})
    held = {Gpu(): 1.0, Gpu("A10G"): 2.0, Gpu("", True): 4.0, Gpu("A10G", False): 8.0}
    ran = job_state(made, {}, gpu_hours=held).usage.by_gpu
    wanted: dict[Gpu, float] = {}
    for gpu, hours in [
        (Gpu("L4", spot), 1.0),
        (Gpu("A10G", spot), 2.0),
        (Gpu("L4", True), 4.0),
        (Gpu("A10G", False), 8.0),
    ]:
        wanted[gpu] = wanted.get(gpu, 0.0) + hours
    assert ran == wanted


def test_pods_that_might_ask_for_several_kinds_had_one_that_nobody_knows() -> None:
    state = job_state(asking(), {}, gpu_hours={Gpu(): 1.5})
    assert state.usage.by_gpu == {Gpu(): 1.5}
    assert state.usage.total == 1.5


def test_what_ran_outlives_the_nodes() -> None:
    made = asking(**{labels.ACCELERATOR: "L4"})
    before = job_state(made, {}, gpu_hours={Gpu("L4", True): 1 / 3, Gpu("L4", False): 1 / 7})
    made["metadata"]["annotations"][labels.RECORD] = json.dumps(before.to_record().to_json())
    gone = job_state(made, {})
    assert gone.usage.by_gpu == {Gpu("L4", True): pytest.approx(1 / 3), Gpu("L4", False): pytest.approx(1 / 7)}
    assert gone.usage.total == pytest.approx(10 / 21)
    unseen = job_state(made, {}, gpu_hours={Gpu(): 10 / 21})
    assert unseen.usage.by_gpu == gone.usage.by_gpu, "of the same hours, the record knows on what"
    assert unseen.to_record() == gone.to_record()


def test_who_has_seen_more_than_was_kept_tells_more() -> None:
    made = asking()
    kept = job_state(made, {}, gpu_hours={Gpu("L4", True): 1.0})
    made["metadata"]["annotations"][labels.RECORD] = json.dumps(kept.to_record().to_json())
    assert job_state(made, {}, gpu_hours={Gpu("L4", False): 1.0 + 1 / 3600}).usage.by_gpu == {
        Gpu("L4", False): 1.0 + 1 / 3600
    }


def test_of_the_same_hours_who_has_seen_the_nodes_tells() -> None:
    made = asking(**{labels.ACCELERATOR: "L4", labels.SPOT: "never"})
    kept = job_state(made, {}, gpu_hours={Gpu(): 1.0})
    made["metadata"]["annotations"][labels.RECORD] = json.dumps(kept.to_record().to_json())
    assert job_state(made, {}).usage.by_gpu == {Gpu("L4", False): 1.0}
    assert job_state(made, {}, gpu_hours={Gpu("T4", True): 1.0}).usage.by_gpu == {Gpu("T4", True): 1.0}
    assert job_state(made, {}, gpu_hours={Gpu("T4", True): 0.5}).usage.by_gpu == {Gpu("L4", False): 1.0}, (
        "half of its pods went"
    )
