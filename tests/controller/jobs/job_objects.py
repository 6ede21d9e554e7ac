"""Jobs as Kubernetes returns them."""

from __future__ import annotations

from typing import Any

from imgsearch import labels


def job(status: dict[str, Any], completions: int = 4) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "local-r1-embed",
            "labels": {labels.COMPONENT: "embed"},
            "annotations": {labels.SPEC_HASH: "abc"},
        },
        "spec": {"completions": completions, "parallelism": 2},
        "status": status,
    }
