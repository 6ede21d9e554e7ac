"""Task files (the repository's folder sky/): the images, GPUs and commands of the machines, in SkyPilot's format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller.backends.files import read_yaml
from controller.backends.skypilot.placement import machine_gpus
from controller.jobs.state import Stage
from imgsearch.errors import UsageError
from imgsearch.settings import PREFIX, Settings

_PACKAGED = Path(__file__).with_name("task_files")
TASKS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).resolve().parents[3] / "sky"


def read_task(folder: Path, stage: Stage) -> dict[str, Any]:
    """The task of a stage. Raises UsageError where its file is missing or invalid, or has several GPUs of a machine."""
    file = folder / f"{stage}.yaml"
    if not file.exists():
        raise UsageError(
            f"{file} does not exist: give the folder of the task files with --sky-tasks (sky/ in the repository)"
        )
    task = read_yaml(file)
    if not isinstance(task.get("run"), str) or "resources" not in task:
        raise UsageError(f"invalid task in {file}: it must have `resources` and `run`")
    machine_gpus(task["resources"])  # here, before a machine is rented for the plan
    return task


def read_settings(folder: Path, env: Mapping[str, str]) -> Settings:
    """The settings in the environment, or else in the task files. Raises UsageError where storage or store are missing
    or on this machine."""
    variables: dict[str, str] = {}
    for stage in Stage:
        envs = read_task(folder, stage).get("envs") or {}
        variables |= {name: str(value) for name, value in envs.items() if value is not None}
    variables |= {name: value for name, value in env.items() if name.startswith(f"{PREFIX}_")}
    settings = Settings.from_env({name: value for name, value in variables.items() if value})
    for name, url in (("STORAGE_URI", settings.storage.uri), ("STORE_URL", settings.store.url)):
        if not url or "file:" in url:
            raise UsageError(
                f"set {PREFIX}_{name} to a URL that every machine can reach (it is {url or 'not set'}): see "
                "sky/README.md"
            )
    return settings
