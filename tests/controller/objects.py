"""Objects as Kubernetes writes them: a release of the chart, and the pods of its Jobs in each state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from imgsearch import labels

Object = dict[str, Any]

RELEASE = "team"


def pod(
    index: int = 0,
    phase: str = "Running",
    *,
    name: str = "",
    job: str = "team-r1-embed",
    uid: str = "job-1",
    run: str = "r1",
    terminated: Mapping[str, Any] | None = None,
    message: Any = None,
    init: Mapping[str, Any] | None = None,
    waiting: Mapping[str, str] | None = None,
    conditions: Sequence[Mapping[str, str]] = (),
    created: str = "2026-01-01T00:00:00Z",
    started: str | None = "2026-01-01T00:00:10Z",
    gpus: int = 0,
    node: str = "",
    **status: Any,
) -> Object:
    """A pod of an Indexed Job. `terminated` is that state of its container, `message` its termination message;
    `init` the state of its init container."""
    state: Object = {"running": {"startedAt": started}}
    if waiting:
        state = {"waiting": dict(waiting)}
    elif terminated is not None or message is not None:
        text = message if message is None or isinstance(message, str) else json.dumps(message)
        termination = {} if text is None else {"message": text}
        state = {
            "terminated": {"exitCode": 0, "finishedAt": "2026-01-01T01:00:10Z", **termination, **(terminated or {})}
        }
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    return {
        "metadata": {
            "name": name or f"{job}-{index}-x",
            "creationTimestamp": created,
            "labels": {
                labels.INSTANCE: RELEASE,
                labels.RUN: run,
                "batch.kubernetes.io/job-name": job,
                "batch.kubernetes.io/controller-uid": uid,
            },
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
        },
        "spec": {
            "containers": [{"name": "embed", "resources": {"limits": limits}}],
            **({"nodeName": node} if node else {}),
        },
        "status": {
            "phase": phase,
            **({"startTime": started} if started else {}),
            "conditions": [dict(entry) for entry in conditions],
            **({"initContainerStatuses": [{"name": "model", "state": dict(init)}]} if init else {}),
            "containerStatuses": [{"name": "embed", "state": state}],
            **status,
        },
    }


def condition(type: str, status: str = "True", **fields: str) -> dict[str, str]:
    return {"type": type, "status": status, **fields}


def release(
    *, gpus: int = 0, resource: str = "nvidia.com/gpu", settings: Mapping[str, str] | None = None
) -> dict[str, list[Object]]:
    """What the chart leaves for the controller, by kind."""
    data = {"IMGSEARCH_STORAGE_URI": "file:///storage", "IMGSEARCH_STORE_URL": "chroma+http://team-chroma:8000"}
    programs = {
        "plan": ["python", "-m", "embedder", "plan"],
        "embed": ["python", "-m", "embedder", "embed"],
        "ingest": ["python", "-m", "searcher", "ingest"],
        "evaluate": ["python", "-m", "searcher", "evaluate"],
        "controller": ["controller"],
    }
    limits = {resource: str(gpus)} if gpus else {}
    return {
        "configmaps": [{"metadata": {"name": "team-pipeline"}, "data": {**data, **(settings or {})}}],
        "podtemplates": [
            {
                "metadata": {"name": f"team-{component}"},
                "template": {
                    "metadata": {"labels": {labels.COMPONENT: component}},
                    "spec": {
                        # Filled in by the API server: no default of a Job's pod.
                        "restartPolicy": "Always",
                        "containers": [
                            {
                                "name": component,
                                "image": "imgsearch",
                                "command": command,
                                "resources": {"limits": limits if component == "embed" else {}},
                            }
                        ],
                    },
                },
            }
            for component, command in programs.items()
        ],
    }
