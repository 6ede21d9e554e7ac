from __future__ import annotations

from controller.gpus.pods import requested_gpus


def test_gpus_are_counted_by_resource_over_all_containers() -> None:
    spec = {
        "containers": [
            {"resources": {"limits": {"nvidia.com/gpu": "2", "cpu": "4"}}},
            {"resources": {"limits": {"nvidia.com/gpu": "1", "amd.com/gpu": 1}}},
            {},
        ]
    }
    assert requested_gpus(spec) == {"nvidia.com/gpu": 3, "amd.com/gpu": 1}
