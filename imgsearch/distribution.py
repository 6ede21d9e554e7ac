"""The distribution that these packages are installed from: its name, its version, and how to install its extras."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

NAME = "imgsearch-kubernetes"
"""Its name in pyproject.toml. Another project owns the name imgsearch on PyPI."""


def version() -> str:
    """The version in pyproject.toml, which the installed distribution has, too. A checkout needs no installation."""
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        pyproject = Path(__file__).resolve().parent.parent / "pyproject.toml"
        return str(tomllib.loads(pyproject.read_text())["project"]["version"])


def install(*extras: str) -> str:
    """The commands that install extras. No package index has the distribution yet: pip takes a checkout or a wheel."""
    names = ",".join(extras)
    wheel = f"{NAME.replace('-', '_')}-{version()}-py3-none-any.whl"
    return f"`pip install '.[{names}]'` in a checkout, or `pip install '{wheel}[{names}]'` beside the wheel"
