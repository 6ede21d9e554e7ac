"""GPUs that pods request, whatever their resource is called."""

from __future__ import annotations

import pytest

from controller.gpus.pods import requested, requested_gpus
from tests.controller.nodes import AMD, NVIDIA, PARTS, Object


def test_gpus_are_counted_by_resource_over_all_containers() -> None:
    spec = {
        "containers": [
            {"resources": {"limits": {NVIDIA: "2", "cpu": "4"}}},
            {"resources": {"limits": {NVIDIA: "1", AMD: 1}}},
            {},
        ]
    }
    assert requested_gpus(spec) == {NVIDIA: 3, AMD: 1}


@pytest.mark.parametrize("resource", [NVIDIA, AMD, *PARTS, "gpu.intel.com/i915", "gpu.intel.com/xe"])
def test_a_gpu_is_the_extended_resource_of_a_pod(resource: str) -> None:
    own = {"cpu": "2", "memory": "6Gi", "hugepages-2Mi": "4Mi", "ephemeral-storage": "1Gi", "pod.kubernetes.io/x": "1"}
    assert requested_gpus({"containers": [{"resources": {"requests": own, "limits": {resource: "1"}}}]}) == {
        resource: 1
    }
    assert requested_gpus({"containers": [{"resources": {"requests": own}}]}) == {}


def test_only_the_resource_of_the_question_is_read() -> None:
    """Pods of other users have devices with any number: 1000 is written 1k."""
    pod: Object = {"containers": [{"resources": {"limits": {NVIDIA: "1", "example.com/fuse": "1k"}}}]}
    assert requested(pod, NVIDIA) == 1
    assert requested(pod, AMD) == 0
