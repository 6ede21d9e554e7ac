"""The folder `sky/` is what SkyPilot accepts, runs what the chart runs, and does the whole job."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import yaml
from sky.client.cli import command
from sky.provision.kubernetes.utils import check_pod_config
from sky.serve.serve_utils import validate_service_task
from sky.server import plugins
from sky.skylet.log_lib import make_task_bash_script
from sky.ssh_node_pools.core import SSHNodePoolManager
from sky.ssh_node_pools.utils import load_ssh_targets, prepare_hosts_info
from sky.task import Task
from sky.utils.common_utils import validate_schema
from sky.utils.config_utils import merge_k8s_configs
from sky.utils.dag_utils import load_chain_dag_from_yaml
from sky.utils.schemas import get_config_schema

from imgsearch.settings import Settings
from tests.programs import await_ready, free_port

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "sky"
CHART = ROOT / "charts" / "imgsearch" / "templates"
TASKS = {
    "plan": CHART / "pipeline" / "podtemplate-plan.yaml",
    "embed": CHART / "pipeline" / "podtemplate-embed.yaml",
    "ingest": CHART / "pipeline" / "podtemplate-ingest.yaml",
    "serve": CHART / "searcher" / "deployment.yaml",
}
"""The tasks that run something, and where the chart says what its pods run for it."""
ALL = [*TASKS, "pool"]
IMAGES = "/opt/venv/bin/python"
"""Python in our images, as their Dockerfiles have it."""
WHOLE = str(ROOT / ".venv" / "bin" / "python")
"""Python with torch and Chroma, as `make install` makes it."""
TYPOS: list[tuple[str, tuple[str, ...], str]] = [
    ("plan", (), "resource"),
    ("embed", ("resources",), "use_spto"),
    ("embed", ("resources", "job_recovery"), "max_restart"),
    ("embed", ("config",), "dokcer"),
    ("embed", ("config", "docker"), "run_option"),
    ("pool", ("pool",), "worker"),
    ("serve", ("service", "readiness_probe"), "delay"),
]


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """As strict as SkyPilot's server: its command line lets keys pass that a plugin of the server might know."""
    plugins.load_plugins(plugins.ExtensionContext())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IS_SKYPILOT_SERVER", "true")
        # SkyPilot sets it as it raises, and leaves it there; so it is taken away in the end.
        patch.setattr(sys, "tracebacklimit", 1000, raising=False)
        yield


def read_task(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return config


def demanded(name: str) -> list[str]:
    """The variables that have no default."""
    return [variable for variable, value in read_task(name).get("envs", {}).items() if value is None]


def load(file: Path, env: Mapping[str, str], secrets: Mapping[str, str] | None = None) -> Task:
    """As SkyPilot's command line does it: `--env` and `--secret` before anything is checked."""
    dag = load_chain_dag_from_yaml(
        str(file), env_overrides=list(env.items()), secret_overrides=list((secrets or {}).items())
    )
    return dag.tasks[0]


def task_of(name: str) -> Task:
    return load(FOLDER / f"{name}.yaml", dict.fromkeys(demanded(name), "given"))


def requested_resources(task: Task) -> list[dict[str, Any]]:
    """The alternatives that a task may run on, but for how it recovers, which is the job's affair."""
    configs = [resources.to_yaml_config() for resources in task.resources]
    return sorted(({k: v for k, v in config.items() if k != "job_recovery"} for config in configs), key=str)


@pytest.mark.parametrize("name", ALL)
def test_skypilot_reads_every_task(name: str) -> None:
    task = task_of(name)
    assert task.name == f"imgsearch-{name}"
    assert (task.run is not None) == (name in TASKS)


@pytest.mark.parametrize(("name", "variable"), [(name, variable) for name in ALL for variable in demanded(name)])
def test_what_only_a_person_knows_is_demanded(name: str, variable: str) -> None:
    other_values = {other: "given" for other in demanded(name) if other != variable}
    with pytest.raises(ValueError, match=variable):
        load(FOLDER / f"{name}.yaml", other_values)


def test_nothing_is_open_to_the_internet_without_a_key() -> None:
    without_key = task_of("serve")
    assert [secret.name for secret in without_key.managed_secret_refs] == ["IMGSEARCH_SEARCH_API_KEYS"]
    env = dict.fromkeys(demanded("serve"), "given")
    with_key = load(FOLDER / "serve.yaml", env, {"IMGSEARCH_SEARCH_API_KEYS": "k"})
    assert with_key.managed_secret_refs == []
    assert [name for name in ALL for resources in task_of(name).resources if resources.ports] == ["serve"]


@pytest.mark.parametrize(("name", "path", "typo"), TYPOS)
def test_a_misspelt_key_is_refused(name: str, path: tuple[str, ...], typo: str, tmp_path: Path) -> None:
    config = read_task(name)
    node = config
    for key in path:
        node = node[key]
    node[typo] = "x"
    file = tmp_path / "task.yaml"
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=typo):
        load(file, dict.fromkeys(demanded(name), "given"))


@pytest.mark.parametrize("name", ALL)
def test_every_variable_is_a_setting(name: str) -> None:
    task = task_of(name)
    secrets = [secret.name for secret in task.managed_secret_refs]
    env = {**task.envs, **dict.fromkeys(secrets, "k")}
    assert all(variable.startswith("IMGSEARCH_") for variable in env)
    Settings.from_env(env)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_runs_what_the_chart_runs(name: str) -> None:
    """The same programs in the same order. A server has ingested before: it serves an index of its own machine."""
    commands = re.findall(r"command: \[python, -m, (\w+), (\w+)\]", TASKS[name].read_text())
    run = task_of(name).run
    before = [("searcher", "ingest")] if name == "serve" else []
    assert re.findall(rf"{IMAGES} -m (\w+) (\w+)", run) == before + commands
    assert re.findall(r"\S*python\S*", run) == [IMAGES] * run.count("python")


def test_the_images_are_those_that_make_builds() -> None:
    completed = subprocess.run(
        ["make", "-n", "images", "REGISTRY=registry.example.com/team", "BUILDER=docker"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    built = {f"docker:{tag}" for tag in re.findall(r"--tag (\S+)", completed)}
    images = {
        name: image for name in ALL for resources in task_of(name).resources for image in resources.image_id.values()
    }
    assert set(images.values()) <= built
    for name, image in images.items():
        assert ("searcher" if name in ("ingest", "serve") else "embedder") in image


@pytest.mark.parametrize("image", ["embedder", "searcher"])
def test_python_is_where_the_images_have_it(image: str) -> None:
    assert f"ENV PATH={Path(IMAGES).parent}:$PATH" in (ROOT / "images" / image / "Dockerfile").read_text()


@pytest.mark.parametrize("name", ALL)
def test_skypilot_is_root_in_the_container(name: str) -> None:
    config = read_task(name)["config"]
    for resources in task_of(name).resources:
        assert resources.cluster_config_overrides == config
    assert config["docker"]["run_options"] == ["--user=0"]
    assert config["kubernetes"]["pod_config"]["spec"]["securityContext"]["runAsUser"] == 0


@pytest.mark.parametrize("name", [*ALL, "config"])
def test_a_pod_of_it_is_a_pod(name: str) -> None:
    config = read_task(name)
    assert mistake(config.get("config", config)["kubernetes"]["pod_config"]) is None


def test_a_misspelt_key_of_a_pod_is_refused() -> None:
    assert mistake({"spec": {"enableServiceLink": False}}) is not None


def mistake(pod_config: dict[str, Any]) -> str | None:
    """What is wrong with a pod of SkyPilot's into which that was merged."""
    pod: dict[str, Any] = {"spec": {"containers": [{"name": "ray-node", "image": "i", "imagePullPolicy": "Always"}]}}
    merge_k8s_configs(pod, pod_config)
    assert len(pod["spec"]["containers"]) == 1
    _, error = check_pod_config(pod)
    return error


def test_a_lost_spot_machine_is_no_failed_shard() -> None:
    resources = task_of("embed").resources
    assert {kind for alternative in resources for kind in alternative.accelerators} >= {"L4", "A10G", "T4"}
    for alternative in resources:
        assert alternative.use_spot
        assert alternative.job_recovery["max_restarts_on_errors"] == Settings().jobs.retries


def test_workers_of_the_pool_are_what_an_embed_job_asks_for() -> None:
    pool = task_of("pool")
    validate_service_task(pool, pool=True)
    assert requested_resources(pool) == requested_resources(task_of("embed"))


def test_the_service_is_ready_when_the_searcher_is() -> None:
    serve = task_of("serve")
    validate_service_task(serve, pool=False)
    assert serve.service.readiness_path == "/readyz"
    assert [resources.ports for resources in serve.resources] == [[str(Settings().search.port)]]


@pytest.mark.parametrize(
    ("env", "shard"),
    [
        ({}, 0),
        ({"SKYPILOT_JOB_RANK": "3"}, 3),
        ({"SKYPILOT_JOB_RANK": "0", "JOB_COMPLETION_INDEX": "7"}, 7),
    ],
)
def test_the_rank_of_a_job_is_its_shard_unless_one_is_given(env: dict[str, str], shard: int, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$JOB_COMPLETION_INDEX $*"\n')
    python.chmod(0o755)
    assert output_of(task_of("embed"), env, python=str(python), home=tmp_path) == f"{shard} -m embedder embed"


def test_what_cannot_be_ingested_is_not_served(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$*"\n[ "$3" != ingest ]\n')
    python.chmod(0o755)
    completed = run(task_of("serve"), {}, python=str(python), home=tmp_path)
    assert (completed.returncode, completed.stdout) == (1, "-m searcher ingest\n")


def test_the_configuration_is_one_of_skypilot() -> None:
    check(read_task("config"))


@pytest.mark.parametrize(("key", "value"), [("autoscaler", "gek"), ("allowed_context", ["a"])])
def test_a_wrong_configuration_is_refused(key: str, value: object) -> None:
    config = read_task("config")
    config["kubernetes"][key] = value
    with pytest.raises(ValueError, match="config"):
        check(config)


def check(config: Mapping[str, Any]) -> None:
    validate_schema(config, get_config_schema(), "Invalid config YAML: ")


def test_the_pool_of_machines_is_one_of_skypilot(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch()
    for name, pool in load_ssh_targets(str(FOLDER / "ssh_node_pools.example.yaml")).items():
        SSHNodePoolManager()._validate_pool_config(pool)
        hosts = prepare_hosts_info(name, {**pool, "identity_file": str(key)})
        assert [(host["ip"], host["user"]) for host in hosts] == [
            ("192.0.2.10", "ubuntu"),
            ("192.0.2.11", "ubuntu"),
            ("192.0.2.12", "admin"),
        ]


@pytest.mark.parametrize("key", ["user", "hosts", "identity_file"])
def test_a_pool_of_machines_without_what_it_needs_is_refused(key: str) -> None:
    (pool,) = read_task("ssh_node_pools.example").values()
    del pool[key]
    with pytest.raises(ValueError, match=key):
        SSHNodePoolManager()._validate_pool_config(pool)


def commands() -> list[str]:
    """Every command of SkyPilot's that the folder tells somebody to give."""
    lines = []
    for file in sorted(FOLDER.iterdir()):
        text = file.read_text().replace("\\\n#     ", "")
        lines += re.findall(r"^(?:#   )?(sky .+)$", text, re.MULTILINE)
        lines += [" ".join(inline.split()) for inline in re.findall(r"(?<!`)`(sky [^`]+)`", text)]
    return lines


@pytest.mark.parametrize("line", commands())
def test_every_command_is_one_of_skypilot_with_options_that_it_has(line: str) -> None:
    _, *arguments = shlex.split(line, comments=True)
    sky_command: click.Command = command.cli
    while arguments and (subcommand := getattr(sky_command, "commands", {}).get(arguments[0])):
        sky_command, arguments = subcommand, arguments[1:]
    assert not isinstance(sky_command, click.Group), f"SkyPilot has no such command: {line}"
    assert all((ROOT / argument).is_file() for argument in arguments if argument.startswith("sky/"))
    sky_command.make_parser(click.Context(sky_command)).parse_args(arguments)


def test_the_commands_are_found() -> None:
    assert len(commands()) > 20


def test_there_is_no_python_in_the_folder() -> None:
    """It would take the package's place."""
    assert {file.suffix for file in FOLDER.rglob("*")} == {".yaml", ".md"}


def test_import_sky_is_skypilot_beside_the_folder(tmp_path: Path) -> None:
    assert python(sys.executable, "import sky; print(sky.Task.__module__)", home=tmp_path) == "sky.task"


def test_without_skypilot_its_name_is_importable_all_the_same(tmp_path: Path) -> None:
    """controller.backends.skypilot therefore uses importlib.metadata."""
    code = "import sky; print(list(sky.__path__)); import importlib.metadata as m; m.version('skypilot')"
    with pytest.raises(subprocess.CalledProcessError) as error:
        python(WHOLE, code, home=tmp_path)
    assert str(FOLDER) in error.value.stdout
    assert "PackageNotFoundError" in error.value.stderr


def python(program: str, code: str, *, home: Path) -> str:
    """What `code` prints in the repository's root."""
    env = {"HOME": str(home), "PATH": os.defpath}
    completed = subprocess.run([program, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return completed.stdout.strip()


def test_the_tasks_index_and_serve(photos: Callable[[int], Path], demo_model: str, tmp_path: Path) -> None:
    """The whole job on one machine: what SkyPilot's script of each task does, with the real programs. Each is told
    what it demands and nothing else of the run."""
    env_values = {
        "IMGSEARCH_RUN_ID": "r1",
        "IMGSEARCH_RUN_INDEX": "photos",
        "IMGSEARCH_RUN_SOURCE": str(photos(12)),
        "IMGSEARCH_RUN_MODEL": demo_model,
        "IMGSEARCH_STORAGE_URI": (tmp_path / "storage").as_uri(),
        "IMGSEARCH_STORE_URL": f"chroma+file://{tmp_path / 'shared'}",
    }
    plan = result("plan", env_values, {"IMGSEARCH_RUN_SHARD_IMAGES": "6"}, home=tmp_path)
    assert (plan["shards"], plan["images"]) == (2, 12)
    for rank in range(plan["shards"]):
        embed = result("embed", env_values, {"SKYPILOT_JOB_RANK": str(rank)}, home=tmp_path)
        assert (embed["shard"], embed["bad"]) == (rank, 0)
    assert result("ingest", env_values, {}, home=tmp_path)["images"] == 12
    with serving(env_values, {"IMGSEARCH_STORE_URL": f"chroma+file://{tmp_path / 'own'}"}, home=tmp_path) as client:
        query = {"text": "red", "k": 12}
        assert client.post("/v1/search", json=query).status_code == 401
        response = client.post("/v1/search", json=query, headers={"Authorization": "Bearer opensesame"})
        assert len(response.json()["results"]) == 12


def task_with_env(name: str, env_values: Mapping[str, str]) -> Task:
    """A task whose demands `given` meets."""
    return load(FOLDER / f"{name}.yaml", {variable: env_values[variable] for variable in demanded(name)})


def script(task: Task, env: Mapping[str, str], *, python: str, home: Path) -> list[str]:
    """The command by which SkyPilot runs a task on its machine, with another Python in place of our images'."""
    (home / "sky_workdir").mkdir(exist_ok=True)
    file = home / f"{task.name}.sh"
    file.write_text(make_task_bash_script(task.run.replace(IMAGES, python), {**task.envs, **env}))
    return ["/bin/bash", "-i", str(file)]


def run(task: Task, env: Mapping[str, str], *, python: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Runs a task to its end."""
    return subprocess.run(
        script(task, env, python=python, home=home),
        env={"HOME": str(home), "PATH": os.defpath},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )


def output_of(task: Task, env: Mapping[str, str], *, python: str, home: Path) -> str:
    """The last line of a task's output."""
    completed = run(task, env, python=python, home=home)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout.strip().splitlines()[-1]


def result(name: str, env_values: Mapping[str, str], env: Mapping[str, str], *, home: Path) -> dict[str, Any]:
    """What the stage of a task says at its end."""
    document: dict[str, Any] = json.loads(output_of(task_with_env(name, env_values), env, python=WHOLE, home=home))
    return document


@contextmanager
def serving(env_values: Mapping[str, str], env: Mapping[str, str], *, home: Path) -> Iterator[httpx.Client]:
    """A client of `serve.yaml` that is ready; its API key is `opensesame`."""
    port = free_port()
    address = {"IMGSEARCH_SEARCH_HOST": "127.0.0.1", "IMGSEARCH_SEARCH_PORT": str(port)}
    with (home / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            script(
                task_with_env("serve", env_values),
                {**env, **address, "IMGSEARCH_SEARCH_API_KEYS": f"team:{hashlib.sha256(b'opensesame').hexdigest()}"},
                python=WHOLE,
                home=home,
            ),
            env={"HOME": str(home), "PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                await_ready(client, server, home / "serve.log")
                yield client
        finally:
            server.terminate()
            assert server.wait(60) == 0
