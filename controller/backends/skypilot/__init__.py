"""SkyPilot: GPUs of a cluster (gpus.py), prices of clouds (prices.py), clusters made of bare machines (pools.py), and
tasks on rented machines (tasks.py), on which a backend runs Jobs (backend.py).

Most of the functions that we call are undocumented (sky/provision/kubernetes/utils.py, sky/catalog and
sky/ssh_node_pools of 0.14.1), so only this package calls them, and contract tests cover them. SkyPilot does not create
node pools in a cloud account.

SkyPilot has an environment of its own (`make install-sky`). Its files are in `~/.imgsearch/sky`, not in the user's
`~/.sky`, and no API server of SkyPilot is started; tasks.py explains its exception. SkyPilot sends usage data only
where SKYPILOT_DISABLE_USAGE_COLLECTION is 0.

This package imports SkyPilot late: the import takes two seconds, and it may not be installed.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from imgsearch import distribution
from imgsearch.errors import UsageError

INSTALL = (
    "SkyPilot is not installed: run `make install-sky` in a checkout and then `.venv-sky/bin/controller …`, or, in a "
    f"new environment, {distribution.install('sky')}"
)
SKY_HOME = Path("~/.imgsearch/sky")


def installed() -> bool:
    """Whether SkyPilot is installed. An import would also find a folder called sky, as in this repository."""
    try:
        metadata.version("skypilot")
    except metadata.PackageNotFoundError:
        return False
    return True


@functools.cache
def load() -> Path:
    """Imports SkyPilot and returns its home. The import writes to that home and fixes all paths, so a SkyPilot that is
    imported already (controller.backends.skypilot.tasks) keeps the user's home.

    Raises UsageError where it is not installed."""
    if not installed():
        raise UsageError(INSTALL)
    home = SKY_HOME.expanduser()
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
    # Only during the import: credential plugins of the kubeconfig look for their files in HOME.
    user_home = os.environ.get("HOME")
    os.environ["HOME"] = str(home)
    try:
        import sky.catalog
        import sky.provision.kubernetes.utils
        import sky.ssh_node_pools.utils
        import sky.utils.annotations
    finally:
        if user_home is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = user_home
    # Otherwise it prints `<sky-payload>` lines for its own client to stdout.
    sky.utils.annotations.is_on_api_server = False
    # It logs to stdout, and also raises the important errors.
    logging.getLogger("sky").setLevel(logging.CRITICAL)
    return home


@contextmanager
def whole_tracebacks() -> Iterator[None]:
    """Restores sys.tracebacklimit, which SkyPilot sets to 0 when it raises."""
    before = getattr(sys, "tracebacklimit", None)
    try:
        yield
    finally:
        if before is None:
            vars(sys).pop("tracebacklimit", None)
        else:
            sys.tracebacklimit = before
