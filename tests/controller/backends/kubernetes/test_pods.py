from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from controller.backends.kubernetes.pods import (
    NO_REASON,
    NODE_REMOVED,
    OUT_OF_MEMORY,
    STILL_STARTING,
    PodState,
    kept,
    latest,
    lost_nodes,
    node_hours,
    pod_state,
    trouble,
    waiting,
    waiting_since,
    waits,
    with_reasons,
)
from controller.jobs.state import LostNode
from tests.controller.objects import condition, pod

TAKEN = condition("DisruptionTarget", reason="DeletionByTaintManager", lastTransitionTime="2026-01-01T00:40:10Z")


def test_what_the_controller_knows_of_a_pod() -> None:
    pod_object = pod(3, "Succeeded", name="p", uid="u", message={"images": 7}, node="node-1")
    assert pod_state(pod_object) == PodState(
        name="p",
        job_uid="u",
        index=3,
        created="2026-01-01T00:00:00Z",
        phase="Succeeded",
        result={"images": 7},
        waits_for="",
        node="node-1",
        started="2026-01-01T00:00:10Z",
        ended="2026-01-01T01:00:10Z",
        code=0,
        begun=True,
    )


def test_a_pod_that_nobody_has_taken_is_pending() -> None:
    pod_object = pod(0, "Pending", started=None)
    pod_object["status"] = {}
    state = pod_state(pod_object)
    assert (state.phase, state.result, state.started, state.ended, state.code) == ("Pending", None, "", "", None)


UNMOUNTED = {"exitCode": 2, "message": '{"error": "no such model"}'}


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        ({"phase": "Running"}, None),
        ({"phase": "Running", "message": {"images": 1}}, None),  # its end is not official yet
        ({"phase": "Failed", "message": {"error": "damaged"}, "terminated": {"exitCode": 4}}, {"error": "damaged"}),
        (
            {"phase": "Failed", "terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            {"error": OUT_OF_MEMORY},
        ),
        (
            {"phase": "Failed", "terminated": {"exitCode": 1, "reason": "Error"}},
            {"error": "exited with code 1; see its log"},
        ),
        (
            {
                "phase": "Failed",
                "terminated": {"exitCode": 128, "reason": "StartError"},
                "message": "exec: no such file",
            },
            {"error": "exec: no such file"},
        ),
        ({"phase": "Failed", "terminated": {"exitCode": 1}, "message": '"only words"'}, {"error": '"only words"'}),
        (
            {
                "phase": "Failed",
                "terminated": {"exitCode": 143},
                "message": {"interrupted": True},
                "conditions": [TAKEN],
            },
            {"error": NODE_REMOVED},
        ),
        ({"phase": "Failed", "conditions": [TAKEN]}, {"error": NODE_REMOVED}),
        ({"phase": "Succeeded", "message": {"images": 1}, "conditions": [TAKEN]}, {"images": 1}),
        (
            {"phase": "Failed", "message": {"error": "x"}, "conditions": [{**TAKEN, "status": "False"}]},
            {"error": "x"},
        ),
        ({"phase": "Failed", "init": {"terminated": UNMOUNTED}}, {"error": "no such model"}),
        (
            {"phase": "Succeeded", "init": {"terminated": {"exitCode": 0, "message": "{}"}}, "message": {"images": 1}},
            {"images": 1},
        ),
    ],
)
def test_the_result_is_what_it_left_or_why_it_could_not(fields: dict[str, Any], result: dict[str, Any] | None) -> None:
    assert pod_state(pod(0, **fields)).result == result


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (
            {"message": "The node was low on resource: memory.", "reason": "Evicted"},
            "The node was low on resource: memory.",
        ),
        ({"reason": "NodeLost"}, "NodeLost"),
        ({}, NO_REASON),
    ],
)
def test_a_pod_that_failed_without_a_container_has_its_own_reason(status: dict[str, str], error: str) -> None:
    pod_object = pod(0, "Failed")
    pod_object["status"] = {"phase": "Failed", **status}
    assert pod_state(pod_object).result == {"error": error}


def test_the_exit_code_is_that_of_the_container_that_ended_it() -> None:
    assert pod_state(pod(0, "Failed", terminated={"exitCode": 4})).code == 4
    assert pod_state(pod(0, "Failed", init={"terminated": UNMOUNTED})).code == 2


UNSCHEDULED = condition(
    "PodScheduled", "False", reason="Unschedulable", message="0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"conditions": [UNSCHEDULED]}, "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        ({"conditions": [{**UNSCHEDULED, "message": ""}]}, "Unschedulable"),
        ({"conditions": [condition("PodScheduled")]}, ""),
        (
            {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "imgsearch"'}},
            'ImagePullBackOff: Back-off pulling image "imgsearch"',
        ),
        (
            {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "storage" not found'}},
            'CreateContainerConfigError: secret "storage" not found',
        ),
        ({"waiting": {"reason": "ErrImagePull"}}, "ErrImagePull"),
        ({"waiting": {"reason": "ContainerCreating"}}, ""),
        (
            {
                "waiting": {"reason": "PodInitializing"},
                "init": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}},
            },
            "ErrImagePull: no such image",
        ),
    ],
)
def test_a_pod_waits_for_what_kubernetes_says(fields: dict[str, Any], reason: str) -> None:
    assert pod_state(pod(0, "Pending", **fields)).waits_for == reason
    assert pod_state(pod(0, "Running", **fields)).waits_for == ""


def test_reasons_are_counted_the_most_frequent_first() -> None:
    states = [
        pod_state(pod(0, "Pending", waiting={"reason": "ErrImagePull"})),
        *(pod_state(pod(index, "Pending", conditions=[UNSCHEDULED])) for index in (1, 2)),
        pod_state(pod(3, "Running")),
    ]
    assert list(waiting(states).items()) == [(UNSCHEDULED["message"], 2), ("ErrImagePull", 1)]


def test_the_last_pod_speaks_for_its_index_unless_one_has_succeeded() -> None:
    def state(name: str, index: int, phase: str, minute: int) -> PodState:
        return pod_state(pod(index, phase, name=name, created=f"2026-01-01T00:{minute:02d}:00Z"))

    last_pods = latest(
        [
            state("0-third", 0, "Running", 9),
            state("0-first", 0, "Failed", 1),
            state("0-second", 0, "Failed", 5),
            state("1-done", 1, "Succeeded", 1),
            state("1-late", 1, "Failed", 2),
        ]
    )
    assert {index: last_pod.name for index, last_pod in last_pods.items()} == {0: "0-third", 1: "1-done"}


def test_since_when_pods_wait_for_a_node_is_known_while_none_has_one() -> None:
    early = pod_state(pod(1, "Pending", started=None, created="2026-01-01T00:01:00Z"))
    second_pod = pod_state(pod(2, "Pending", started=None, created="2026-01-01T00:02:00Z"))
    ended_pod = pod_state(pod(0, "Succeeded", message={}))  # at 01:00:10
    assert waiting_since([second_pod, early]) == "2026-01-01T00:01:00Z"
    assert waiting_since([ended_pod, early]) == "2026-01-01T01:00:10Z", "before, one of them had a node"
    assert waiting_since([early, pod_state(pod(0, "Running"))]) == ""
    assert waiting_since([early, pod_state(pod(0, "Pending"))]) == "", "its node fetches the image"
    assert waiting_since([ended_pod]) == ""
    assert waiting_since([]) == ""


def test_a_pod_that_no_node_has_taken_has_none() -> None:
    assert pod_state(pod(0, "Pending", started=None)).node == ""


def test_an_index_waits_since_its_pod_was_made_or_the_one_before_it_ended_or_its_job_began() -> None:
    pods = [
        pod(0, "Running"),
        pod(1, "Pending", started=None, node="gpu-1"),
        pod(2, "Pending", started=None, created="2026-01-01T00:05:00Z"),
        pod(3, "Failed", terminated={"exitCode": 3, "finishedAt": "2026-01-01T00:06:00Z"}),
        pod(4, "Failed", terminated={"exitCode": 3, "finishedAt": "2026-01-01T00:06:00Z"}),
        pod(4, "Pending", name="again", started=None, created="2026-01-01T00:07:00Z"),
        pod(5, "Failed", terminated={"exitCode": 3, "finishedAt": "2026-01-01T00:06:00Z"}),
        pod(5, "Running", name="again", created="2026-01-01T00:07:00Z"),
    ]
    assert waits(map(pod_state, pods), 7, "2026-01-01T00:01:00Z") == {
        2: "2026-01-01T00:05:00Z",
        3: "2026-01-01T00:06:00Z",
        4: "2026-01-01T00:07:00Z",
        6: "2026-01-01T00:01:00Z",
    }


def test_hours_are_those_that_nodes_were_held() -> None:
    now = datetime(2026, 1, 1, 2, 0, 10, tzinfo=UTC)
    ended_pod = pod_state(pod(0, "Succeeded", message={}, node="a"))
    running_pod = pod_state(pod(1, "Running", node="b"))
    second_on_node = pod_state(pod(3, "Running", node="a"))
    pending = pod_state(pod(2, "Pending", started=None))
    assert node_hours([ended_pod, running_pod, second_on_node, pending], now) == {"a": 3, "b": 2}


LOST = {"name": "embed", "state": {"terminated": {"exitCode": 137, "finishedAt": None}}}


@pytest.mark.parametrize("status", [{}, {"containerStatuses": [LOST]}])
def test_a_pod_whose_node_went_costs_nothing_from_then_on(status: dict[str, Any]) -> None:
    ready = condition("Ready", "False", lastTransitionTime="2026-01-01T00:30:10Z")
    lost_pod = pod_state(pod(0, "Failed", node="a", conditions=[ready, TAKEN], **status))
    assert node_hours([lost_pod], datetime(2026, 1, 9, tzinfo=UTC)) == {"a": pytest.approx(2 / 3)}


def deleted(ends_by: str, *args: Any, **fields: Any) -> PodState:
    """A pod that was deleted, with the end of its grace period."""
    pod_object = pod(*args, **fields)
    pod_object["metadata"]["deletionTimestamp"] = ends_by
    return pod_state(pod_object)


def test_a_node_that_does_not_end_its_pods_is_lost() -> None:
    unready = condition("Ready", "False", lastTransitionTime="2026-01-01T01:00:00Z")
    pods = [
        deleted("2026-01-01T01:06:00Z", 0, node="gone", conditions=[unready]),
        deleted("2026-01-01T01:07:00Z", 1, node="gone"),
        deleted("2026-01-01T01:06:00Z", 2, "Failed", node="gone", terminated={"exitCode": 143}),
        deleted("2026-01-01T01:30:00Z", 3, node="drained"),
        pod_state(pod(4, node="well")),
        deleted("2026-01-01T01:06:00Z", 5, "Pending", started=None),
    ]
    assert lost_nodes(pods, datetime(2026, 1, 1, 1, 7, 0, tzinfo=UTC)) == []
    assert lost_nodes(pods, datetime(2026, 1, 1, 1, 7, 1, tzinfo=UTC)) == [LostNode("gone", "2026-01-01T01:00:00Z", 1)]
    assert lost_nodes(pods, datetime(2026, 1, 1, 1, 30, tzinfo=UTC)) == [LostNode("gone", "2026-01-01T01:00:00Z", 2)]


def test_a_pod_that_does_not_end_costs_nothing_after_its_grace_period() -> None:
    stuck = deleted("2026-01-01T01:00:10Z", node="gone")
    assert node_hours([stuck], datetime(2026, 1, 1, 0, 30, 10, tzinfo=UTC)) == {"gone": 0.5}
    assert node_hours([stuck], datetime(2026, 1, 9, tzinfo=UTC)) == {"gone": 1.0}


def test_a_deleted_pod_is_kept_for_its_result_and_its_hours() -> None:
    now = datetime(2026, 1, 1, 2, 0, 10, tzinfo=UTC)
    ended = pod_state(pod(0, "Succeeded", message={"images": 7}))
    assert kept(ended, now) is ended
    assert kept(pod_state(pod(0, "Pending", started=None)), now) is None
    forced = kept(deleted("2026-01-01T01:00:10Z", node="a"), now)
    assert forced is not None
    assert (forced.phase, forced.result, forced.ends_by) == ("Failed", None, "")
    assert node_hours([forced], datetime(2026, 1, 9, tzinfo=UTC)) == {"a": 1.0}
    unseen = kept(pod_state(pod(0, "Running", node="a")), now)
    assert unseen is not None
    assert node_hours([unseen], datetime(2026, 1, 9, tzinfo=UTC)) == {"a": 2.0}


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        ({}, "is not ready", STILL_STARTING),
        ({"phase": "Pending", "conditions": [UNSCHEDULED]}, "is not ready", UNSCHEDULED["message"]),
        ({"phase": "Failed", "reason": "Evicted"}, "failed", "code 1; see its log"),
        ({"phase": "Failed", "message": {"interrupted": True}}, "failed", "interrupted"),
    ],
)
def test_a_pod_that_should_serve_and_does_not_has_a_reason(status: dict[str, Any], state: str, reason: str) -> None:
    if status.get("phase") == "Failed":
        status = {"terminated": {"exitCode": 1}, **status}
    sentence = trouble(pod(name="p", **status), {})
    assert sentence is not None
    assert sentence.startswith(f"pod p {state}")
    assert sentence.endswith(reason)


@pytest.mark.parametrize("status", [{"conditions": [condition("Ready")]}, {"phase": "Succeeded", "terminated": {}}])
def test_a_pod_that_serves_or_has_ended_is_no_trouble(status: dict[str, Any]) -> None:
    assert trouble(pod(name="p", **status), {}) is None


CREATING = {"waiting": {"reason": "ContainerCreating"}, "phase": "Pending"}
MOUNT = 'MountVolume.SetUp failed for volume "models": Multi-Attach error'


def test_a_pod_whose_containers_are_created_has_its_last_event() -> None:
    assert trouble(pod(name="p", node="a", **CREATING), {"p": MOUNT}) == f"pod p is not ready: {MOUNT}"
    assert trouble(pod(name="p", node="a", **CREATING), {}) == f"pod p is not ready: {STILL_STARTING}"
    pulled = {**CREATING, "waiting": {"reason": "ErrImagePull"}}
    assert trouble(pod(name="p", node="a", **pulled), {"p": MOUNT}) == "pod p is not ready: ErrImagePull"
    begun = pod(name="q", node="a", init={"running": {}}, **CREATING)
    pods = [pod(name="p", node="a", **CREATING), pod(name="r", node="a", **CREATING), pod(name="s", **CREATING), begun]
    states = with_reasons(map(pod_state, pods), dict.fromkeys("pqs", MOUNT))
    assert [state.waits_for for state in states] == [MOUNT, "", "", ""]


def test_a_pod_that_ends_again_and_again_says_what_it_ended_with() -> None:
    pod_object = pod(name="p", waiting={"reason": "CrashLoopBackOff", "message": "back-off 5m0s"})
    pod_object["status"]["containerStatuses"][0]["lastState"] = {
        "terminated": {"exitCode": 2, "message": "no store answers"}
    }
    sentence = str(trouble(pod_object, {}))
    assert sentence.startswith("pod p is not ready")
    assert "CrashLoopBackOff: back-off 5m0s" in sentence
    assert sentence.endswith("no store answers")


def test_a_pod_has_begun_with_its_first_container() -> None:
    waiting, running = {"waiting": {"reason": "ImagePullBackOff"}}, {"running": {"startedAt": "2026-01-01T00:00:10Z"}}
    assert not pod_state(pod(0, "Pending", started=None, waiting=waiting["waiting"])).begun
    assert not pod_state(pod(0, "Pending", init=waiting)).begun
    assert pod_state(pod(0, "Pending", init=running)).begun
    assert pod_state(pod(0, "Running")).begun
