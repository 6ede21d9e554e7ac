"""The pod template of a task, and the GPUs and machines that a run chooses for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.backends.skypilot.backend import (
    SKY_RELEASE,
    SkyBackend,
)
from controller.backends.skypilot.placement import MachinePlacement, machine_gpus
from controller.backends.skypilot.taskfiles import TASKS, read_task
from controller.gpus.accelerators import Kind
from controller.gpus.nodes import Spot
from controller.jobs import manifests
from controller.jobs.state import Stage
from controller.jobs.usage import Gpu
from imgsearch import labels
from imgsearch.errors import UsageError
from tests.controller.backends.skypilot.embed_jobs import SETTINGS, job, wait_for_end
from tests.controller.machines import Machines


def test_a_task_is_what_its_file_says(backend: SkyBackend, machines: Machines) -> None:
    backend.create(job(backend, ""))
    wait_for_end(backend)
    file_task = yaml.safe_load((TASKS / "embed.yaml").read_text())
    _, task = machines.submitted[0]
    assert {name: task[name] for name in ("name", "resources", "config")} == {
        name: file_task[name] for name in ("name", "resources", "config")
    }


def test_gpus_and_spot_machines_may_be_chosen_for_embedding_alone(backend: SkyBackend) -> None:
    placement = MachinePlacement((Kind("L4"), Kind("A10G")), Spot.PREFER)
    pods = {
        stage: manifests.job(
            stage,
            SETTINGS,
            backend.template(stage),
            release=SKY_RELEASE,
            completions=1,
            parallelism=1,
            placement=placement,
        )["spec"]["template"]
        for stage in Stage
    }
    resources = json.loads(pods[Stage.EMBED]["metadata"]["annotations"]["imgsearch.dev/sky-task"])["resources"]
    assert resources["any_of"] == [
        {"accelerators": "L4:1", "use_spot": True},
        {"accelerators": "A10G:1", "use_spot": True},
        {"accelerators": "L4:1", "use_spot": False},
        {"accelerators": "A10G:1", "use_spot": False},
    ]
    limits = pods[Stage.EMBED]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"nvidia.com/gpu": "1"}
    assert pods[Stage.PLAN]["spec"]["containers"][0]["resources"] == {}
    assert yaml.safe_load(yaml.safe_dump(pods[Stage.EMBED])) == pods[Stage.EMBED], "--dry-run prints it"


@pytest.mark.parametrize(("spot", "label"), [(Spot.ONLY, "only"), (Spot.NEVER, "never"), (Spot.PREFER, "prefer")])
def test_one_kind_of_gpu_is_known_for_the_cost_of_the_run(
    backend: SkyBackend, tmp_path: Path, spot: Spot, label: str
) -> None:
    backend.create(job(backend, "", placement=MachinePlacement((Kind("L4"),), spot)))
    (job_file,) = (tmp_path / "sky").glob("*/job.json")
    annotations = json.loads(job_file.read_text())["spec"]["template"]["metadata"]["annotations"]
    assert annotations[labels.SPOT] == label
    requested = backend.jobs("r1")[Stage.EMBED].usage.requested
    assert requested == Gpu("L4", {"only": True, "never": False}.get(label))


def test_of_several_kinds_none_is_told(backend: SkyBackend) -> None:
    backend.create(job(backend, ""))  # of embed.yaml
    assert backend.jobs("r1")[Stage.EMBED].usage.requested.accelerator == ""


def test_a_choice_of_spot_leaves_the_gpus_of_the_file(backend: SkyBackend) -> None:
    file_resources = yaml.safe_load((TASKS / "embed.yaml").read_text())["resources"]
    template = MachinePlacement(spot=Spot.NEVER).applied(backend.template(Stage.EMBED))
    resources = json.loads(template["metadata"]["annotations"]["imgsearch.dev/sky-task"])["resources"]
    assert resources["any_of"] == [{**alternative, "use_spot": False} for alternative in file_resources["any_of"]]
    assert resources["job_recovery"] == file_resources["job_recovery"]


@pytest.mark.parametrize(
    ("accelerators", "names"),
    [
        (None, set()),
        ("L4", {"L4"}),
        ("L4:1", {"L4"}),
        ({"L4": 1}, {"L4"}),
        (["L4:1", "T4"], {"L4", "T4"}),
    ],
)
def test_the_gpus_of_a_task_are_read_as_skypilot_reads_them(accelerators: Any, names: set[str]) -> None:
    assert machine_gpus({"accelerators": accelerators, "use_spot": True}) == (names, Spot.ONLY)


@pytest.mark.parametrize(
    "accelerators", ["H100:8", {"H100": 8}, ["L4:1", "H100:8"], "H100:0.5"], ids=["text", "mapping", "list", "fraction"]
)
@pytest.mark.parametrize("key", ["any_of", "ordered", ""])
def test_a_machine_with_several_gpus_is_refused_where_its_file_is_read(
    tmp_path: Path, accelerators: Any, key: str
) -> None:
    resources = {"accelerators": accelerators}
    task = {"run": "true", "resources": {key: [{"accelerators": "L4"}, resources]} if key else resources}
    (tmp_path / "embed.yaml").write_text(yaml.safe_dump(task))
    with pytest.raises(
        UsageError,
        match=r"^invalid accelerators H100:(8|0\.5) of a SkyPilot task: a pod uses one GPU; use H100:1, and run more ",
    ):
        read_task(tmp_path, Stage.EMBED)
