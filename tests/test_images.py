"""The container images are what docs/images.md says: one layer with torch for two of them, pinned, not root."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("controller", "embedder", "searcher")
DOCKERFILES = [*(ROOT / "images" / name / "Dockerfile" for name in PROGRAMS), ROOT / "tests/cluster/chroma/Dockerfile"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))

each_image = pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)


def instructions(file: Path) -> list[str]:
    """The instructions of a Dockerfile, each on one line, without comments."""
    text = re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [" ".join(line.split()) for line in text.splitlines() if line]


def installs(file: Path) -> list[str]:
    runs = [line.removeprefix("RUN ") for line in instructions(file) if line.startswith("RUN ")]
    return [command for run in runs for command in run.split(" && ") if "pip install" in command]


def packages_named(install: str) -> set[str]:
    """The packages that an installing command names."""
    return set(re.sub(r"--[a-z-]+ \S+", "", install.partition("constraints.txt")[2]).split()) - {"/src"}


def copied_files(file: Path) -> set[str]:
    """What a Dockerfile takes from the context."""
    lines = [line.split()[1:-1] for line in instructions(file) if line.startswith("COPY ")]
    return {source for sources in lines if not sources[0].startswith("--from=") for source in sources}


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--silent", "-C", str(ROOT), "--no-print-directory", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_embedder_and_searcher_are_the_same_down_to_the_layer_with_torch() -> None:
    heads = []
    for name in ("embedder", "searcher"):
        lines = instructions(ROOT / "images" / name / "Dockerfile")
        torch = next(number for number, line in enumerate(lines) if line.startswith("RUN ") and " torch " in line)
        heads.append(lines[: torch + 1])
    assert heads[0] == heads[1]


def test_the_image_of_the_skypilot_tests_has_the_same_layer_with_torch() -> None:
    stages = []
    for file in (ROOT / "images" / "embedder" / "Dockerfile", ROOT / "tests" / "cluster" / "sky" / "Dockerfile"):
        lines = instructions(file)
        torch = next(number for number, line in enumerate(lines) if line.startswith("RUN ") and " torch " in line)
        start = max(number for number, line in enumerate(lines[:torch]) if line.startswith("FROM "))
        stages.append(lines[start : torch + 1])
    assert stages[0] == stages[1]


@pytest.mark.parametrize("name", ["embedder", "searcher"])
def test_the_layer_with_torch_has_nothing_that_one_of_the_two_does_not_need(name: str) -> None:
    (shared,) = (line for line in installs(ROOT / "images" / name / "Dockerfile") if "torch" in packages_named(line))
    requirements = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][name]]
    assert packages_named(shared) <= {re.split(r"[^a-z0-9-]", requirement)[0] for requirement in requirements}


@each_image
def test_what_is_installed_is_pinned_and_leaves_no_cache(file: Path) -> None:
    assert installs(file)
    for command in installs(file):
        assert "--constraint /opt/constraints.txt" in command or "--no-deps" in command
        assert "--build-constraint /opt/constraints.txt" in command or "/src" not in command
        assert "--no-cache" in command
        assert packages_named(command) <= PINNED


@each_image
def test_an_image_ends_as_a_user_with_a_number(file: Path) -> None:
    lines = instructions(file)
    last_stage = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert [line for line in last_stage if line.startswith("USER ")] == ["USER 10001:10001"]


@each_image
def test_every_stage_starts_from_the_base_that_was_asked_for(file: Path) -> None:
    lines = instructions(file)
    assert lines[0] == "ARG BASE=docker.io/library/python:3.11-slim-bookworm"
    assert {line.split()[1] for line in lines if line.startswith("FROM ")} == {"${BASE}"}


@each_image
def test_nothing_that_the_chart_or_the_layer_cache_has_to_work_around(file: Path) -> None:
    lines = instructions(file)
    assert not [line for line in lines if line.startswith(("HEALTHCHECK", "ADD", "RUN --mount"))]


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_image_says_what_it_is(name: str) -> None:
    (label,) = (line for line in instructions(ROOT / "images" / name / "Dockerfile") if line.startswith("LABEL "))
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', label))
    assert labels.pop("description")
    assert labels == {
        "title": f"imgsearch-{name}",
        "licenses": PROJECT["license"],
        "version": "${VERSION}",
        "revision": "${REVISION}",
        "source": "${SOURCE}",
    }


def test_a_builder_sees_what_is_copied_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert allowed == set().union(*map(copied_files, DOCKERFILES))
    assert all((ROOT / source).exists() for source in allowed)


def test_make_images_builds_each_of_them() -> None:
    completed = make(
        "images",
        "BUILDER=echo",
        "BUILD_FLAGS=--pull",
        "REGISTRY=reg.example/team",
        "TAG=7",
        "TORCH=cpu",
        "BASE=b",
        "EXTRA=transformers",
    )
    builds = completed.stdout.splitlines()
    assert len(builds) == len(PROGRAMS)
    for name, build in zip(PROGRAMS, builds, strict=True):
        assert build.startswith("build --pull ")
        assert build.endswith(f" --tag reg.example/team/imgsearch-{name}:7 --file images/{name}/Dockerfile .")
        arguments = dict(re.findall(r"--build-arg (\w+)=(\S*)", build))
        assert arguments["BASE"] == "b"
        assert arguments["VERSION"] == PROJECT["version"]
        assert arguments.get("TORCH") == (None if name == "controller" else "cpu")
        assert arguments.get("EXTRA") == (None if name == "controller" else "transformers")


@pytest.mark.parametrize("name", ["embedder", "searcher"])
@pytest.mark.parametrize("extra", ["", "transformers"])
def test_an_image_has_the_extra_that_the_build_names(name: str, extra: str) -> None:
    (command,) = (line for line in installs(ROOT / "images" / name / "Dockerfile") if "pyproject.toml" in line)
    assert "ARG EXTRA=" in instructions(ROOT / "images" / name / "Dockerfile")
    program = f"echo {command.partition('/opt/venv')[2]}"
    completed = subprocess.run(["sh", "-c", program], env={"EXTRA": extra}, capture_output=True, text=True, check=True)
    named = {name, extra} - {""}
    assert set(re.findall(r"--extra[ =](\S+)", completed.stdout)) == named <= PROJECT["optional-dependencies"].keys()


def test_the_tag_is_the_version_unless_one_is_given() -> None:
    assert f" --tag imgsearch-controller:{PROJECT['version']} " in make("image-controller", "BUILDER=echo").stdout


def test_without_a_builder_make_says_which_there_are() -> None:
    completed = make("images", "BUILDER=")
    assert completed.returncode == 2
    assert all(name in completed.stderr for name in ("docker", "podman", "buildah", "BUILDER="))
