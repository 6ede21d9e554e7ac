"""The wheel has what the programs need, and pyproject.toml declares what they import."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_string
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from imgsearch import distribution
from tests.programs import ROOT, controller

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
FOLDERS = {
    "imgsearch": ROOT / "imgsearch",
    "controller": ROOT / "controller",
    "embedder": ROOT / "images" / "embedder",
    "searcher": ROOT / "images" / "searcher",
}
PROGRAMS = {"controller": ("plot", "sky"), "embedder": ("embedder",), "searcher": ("searcher",)}
"""The extras whose packages each program may import, beside the base dependencies."""
NOT_IN_THIS_ENVIRONMENT = {"sky": "skypilot"}
"""Distributions of modules that the environment of the tests does not have."""
NEVER_CALLED = {"searcher": {"datasets"}}
"""Imported in a function of a shared module that the program does not call: only planning lists a dataset."""
NOT_IMPORTED = {
    "fastapi-offline": "a data package: the files of Swagger UI",
    "httptools": "uvicorn imports it for the class of connections that the searcher extends",
    "python-multipart": "FastAPI imports it for forms",
}

OPENING = {"imgsearch.sources.open_source": "imgsearch.sources", "imgsearch.stores.open_store": "imgsearch.stores"}
"""The functions that load modules of a package by their names: the package of each."""
OPENER = re.compile(r"(imgsearch(?:\.\w+)+):\w+")

Sources = dict[str, Path]
distributions = functools.cache(metadata.packages_distributions)


def declared(*extras: str) -> dict[str, Requirement]:
    """The base dependencies and those of extras, by name."""
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, texts)}


def modules() -> Sources:
    """The file of each of our modules, by the module's name."""
    names = {}
    for package, folder in FOLDERS.items():
        for file in folder.rglob("*.py"):
            name_parts = [package, *file.relative_to(folder).with_suffix("").parts]
            names[".".join(name_parts).removesuffix(".__init__")] = file
    return names


@functools.cache
def syntax(file: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(file.read_text())))


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports, anywhere in it. `from a import b` may mean a module a.b, so it gives both."""
    for node in syntax(file):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{file} has a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def opened_extras(package: str, sources: Sources) -> Iterator[str]:
    """The modules that a package loads by a name such as `imgsearch.sources.hub:open_dataset`."""
    for name, file in sources.items():
        if name.startswith(package):
            constants = (node.value for node in syntax(file) if isinstance(node, ast.Constant))
            names = (OPENER.fullmatch(value) for value in constants if isinstance(value, str))
            yield from (match[1] for match in names if match)


def third_parties(program: str, sources: Sources) -> set[str]:
    """The distributions that a program imports, itself and through the modules of ours that it imports."""
    queue = [name for name in sources if name.split(".")[0] == program]
    seen_modules: set[str] = set()
    other_modules: set[str] = set()
    while queue:
        name = queue.pop()
        if name in seen_modules:
            continue
        seen_modules.add(name)
        for target in imported(sources[name]):
            top = target.split(".")[0]
            if top not in FOLDERS:
                other_modules.add(top)
            else:
                queue += opened_extras(OPENING[target], sources) if target in OPENING else []
                packages = [target.rsplit(".", depth)[0] for depth in range(target.count(".") + 1)]
                queue += [package for package in packages if package in sources]
    owners = distributions()
    names = set()
    for module in other_modules - sys.stdlib_module_names:
        owner = NOT_IN_THIS_ENVIRONMENT.get(module) or owners.get(module, [module])[0]
        names.add(canonicalize_name(owner))
    return names


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_imported_package_is_declared(program: str) -> None:
    missing = third_parties(program, modules()) - declared(*PROGRAMS[program]).keys()
    assert missing == NEVER_CALLED.get(program, set())


def test_every_declared_package_is_imported() -> None:
    sources = modules()
    base = set().union(*(third_parties(program, sources) for program in PROGRAMS))
    assert declared().keys() - base == set()
    for program, extras in PROGRAMS.items():
        extra = declared(*extras).keys() - declared().keys()
        assert extra - third_parties(program, sources) - NOT_IMPORTED.keys() == set(), program


def test_an_undeclared_import_is_found(tmp_path: Path) -> None:
    """In a function of a shared module, which the program imports through another."""
    sources = modules()
    file = tmp_path / "pictures.py"
    file.write_text("def draw() -> None:\n    import skimage.draw\n")
    sources["imgsearch.errors"] = file
    assert "scikit-image" in third_parties("embedder", sources)


def test_modules_that_are_loaded_by_name_count() -> None:
    sources = modules()
    assert {"imgsearch.sources.hub", "imgsearch.sources.folder"} <= set(opened_extras("imgsearch.sources", sources))
    assert "imgsearch.stores.chroma" in set(opened_extras("imgsearch.stores", sources))
    assert OPENING.keys() <= {target for file in sources.values() for target in imported(file)}


def test_every_dependency_has_a_lower_bound() -> None:
    for name, requirement in declared(*PROGRAMS["controller"], "embedder", "searcher", "transformers").items():
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators & {">=", "==", "~="}, f"{name} has no lower bound"


def test_the_extra_all_has_every_program() -> None:
    (requirement,) = map(Requirement, EXTRAS["all"])
    assert requirement.name == PROJECT["name"]
    assert requirement.extras == set(EXTRAS) - {"all", "sky", "transformers"}


def test_the_code_has_the_name_and_the_version_of_pyproject() -> None:
    assert PROJECT["name"] == distribution.NAME
    assert PROJECT["version"] == distribution.version()


def test_installing_an_extra_names_one_that_exists() -> None:
    """In messages and in docs: `imgsearch[…]` is a package of somebody else."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "sky").glob("*.md")]
    code = [*modules().values()]
    for file in [*pages, *code]:
        text = file.read_text()
        for target, extras in re.findall(r"pip install '([^'\[\]]*)\[([a-z,]+)\]", text):
            assert target.endswith((".", ".whl")) or target.startswith("skypilot"), f"{file}: pip install {target}"
            if not target.startswith("skypilot"):
                assert set(extras.split(",")) <= EXTRAS.keys(), f"{file}: {extras}"
        for extras in re.findall(r"target\.install\('([a-z]+)'\)", text):
            assert extras in EXTRAS, f"{file}: {extras}"


def test_a_checkout_says_its_version() -> None:
    completed = controller("--version")
    assert (completed.returncode, completed.stdout.strip()) == (0, f"controller {PROJECT['version']}")


def test_a_checkout_that_is_not_installed_says_its_version(tmp_path: Path) -> None:
    program = "from imgsearch import distribution; print(distribution.version())"
    # -I -S: without the environment of the tests, in which the checkout is installed.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {program}"
    completed = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert completed.stdout.strip() == PROJECT["version"]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    constraints = ("--build-constraint", str(ROOT / "constraints.txt"))
    subprocess.run([uv, "build", "--quiet", *constraints, "--out-dir", folder, ROOT], check=True, timeout=240)
    return folder


@pytest.fixture(scope="module")
def wheel(archives: Path) -> Path:
    (wheel,) = archives.glob("*.whl")
    return wheel


def files_of(folder: Path) -> Iterator[str]:
    """The files of a folder that git does not ignore, by their paths below it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()
    return (name for name in names if (folder / name).exists())


def test_the_wheel_has_the_packages_with_their_data_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    code = {f"{package}/{name}" for package, folder in FOLDERS.items() for name in files_of(folder)}
    tasks = {f"controller/backends/skypilot/task_files/{name}" for name in files_of(ROOT / "sky")}
    assert names == code - {"embedder/Dockerfile", "searcher/Dockerfile"} | tasks
    assert {"searcher/web/index.html", "searcher/web/main.js", "searcher/web/page.css"} <= names
    assert {f"{package}/py.typed" for package in FOLDERS} | {"embedder/everyday_captions.txt"} <= names
    assert "controller/backends/skypilot/task_files/embed.yaml" in names


def test_the_source_archive_has_no_model_and_builds_the_same_wheel(archives: Path) -> None:
    """`uv build` makes the wheel from the source archive, so what the wheel has, the archive has."""
    (archive,) = archives.glob("*.tar.gz")
    with tarfile.open(archive) as archive_file:
        members = archive_file.getmembers()
    assert not [member.name for member in members if "demo/" in member.name or member.size > 1_000_000]


def test_the_metadata_of_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as wheel_file:
        (name,) = (name for name in wheel_file.namelist() if name.endswith("/METADATA"))
        metadata = message_from_string(wheel_file.read(name).decode())
    assert (metadata["Name"], metadata["Version"]) == (PROJECT["name"], PROJECT["version"])
    assert set(metadata.get_all("Provides-Extra", [])) == set(EXTRAS)
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    urls = [url.split(", ")[1] for url in metadata.get_all("Project-URL", [])]
    assert urls
    assert all(url.startswith("https://") for url in urls)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel. Its dependencies are those of this environment: seconds, not
    gigabytes."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True, timeout=60)
    python = folder / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel], check=True, timeout=60)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A line of a .pth file adds a folder without the .pth files in it: the checkout stays out of sight.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def run(program: Path, *arguments: str, folder: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    completed = subprocess.run([program, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout.strip()


def test_the_installed_command_runs_outside_a_checkout(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "controller", "--version", folder=tmp_path) == f"controller {PROJECT['version']}"
    assert run(installed / "controller", "--help", folder=tmp_path).startswith("usage: controller")


def test_the_installed_programs_find_their_data(installed: Path, tmp_path: Path) -> None:
    code = (
        "from controller.backends.skypilot.backend import TASKS\n"
        "from embedder.texts import EVERYDAY\n"
        "from searcher.app import WEB\n"
        "for file in (TASKS / 'embed.yaml', EVERYDAY, WEB / 'index.html'): print(file.resolve(strict=True))"
    )
    for path in run(installed / "python", "-c", code, folder=tmp_path).splitlines():
        assert Path(path).is_relative_to(installed.parent)
