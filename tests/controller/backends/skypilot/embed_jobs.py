"""Embed Jobs of one run whose indexes run Python programs on fake machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from controller.backends.skypilot.backend import (
    PYTHON,
    SKY_RELEASE,
    SkyBackend,
)
from controller.backends.skypilot.placement import MachinePlacement
from controller.jobs import manifests
from controller.jobs.state import JobState, Phase, Stage
from imgsearch.settings import JobSettings, RunSettings, Settings
from tests.controller.machines import PREAMBLE

SETTINGS = Settings(run=RunSettings(id="r1", index="photos", source="s3://photos", model="a/b"))
KEY = "AWS_SECRET_ACCESS_KEY"
Connect = Callable[..., SkyBackend]


def job(
    backend: SkyBackend,
    program: str,
    *,
    completions: int = 1,
    parallelism: int = 1,
    placement: MachinePlacement = MachinePlacement(),  # noqa: B008 (it is frozen)
    **job_settings: Any,
) -> dict[str, Any]:
    """The embed Job, its indexes running a Python program."""
    template = json.loads(json.dumps(placement.applied(backend.template(Stage.EMBED))))
    script = f"{PYTHON} - <<'END'\n{PREAMBLE}{program}\nEND"
    template["spec"]["containers"][0]["command"] = ["bash", "-c", script]
    settings = replace(SETTINGS, jobs=JobSettings(**job_settings))
    return manifests.job(
        Stage.EMBED, settings, template, release=SKY_RELEASE, completions=completions, parallelism=parallelism
    )


def wait_until(backend: SkyBackend, predicate: Callable[[JobState], bool]) -> JobState:
    while not predicate(state := backend.jobs("r1")[Stage.EMBED]):
        backend.wait(1)
    return state


def wait_for_end(backend: SkyBackend) -> JobState:
    return wait_until(backend, lambda state: state.phase is not Phase.ACTIVE)
