"""SkyPilot: the GPUs that it sees in a cluster (finder.py), what clouds ask for them (prices.py), clusters that it
makes of bare machines (pools.py), machines that it rents for one task each (tasks.py), and what it says (speech.py).

What is called of it is documented nowhere (sky/provision/kubernetes/utils.py, sky/catalog and sky/ssh_node_pools of
0.14.1), so all of it is here and has contract tests. SkyPilot does not create node pools in a cloud account.

It has an environment of its own (`make install-sky`), and what it reads and writes is in `~/.imgsearch/sky`: the
person's own `~/.sky` is left alone, and no API server of SkyPilot is started; tasks.py says why it does otherwise. It
phones home only where SKYPILOT_DISABLE_USAGE_COLLECTION is set to 0.

Nothing of it is imported with this package: that takes two seconds, and it may not be installed.
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
    "SkyPilot is not installed here: it needs an environment of its own. Run `make install-sky` in a checkout and then "
    f"`.venv-sky/bin/controller …`, or, in a new environment, {distribution.install('sky')}"
)
HOME = Path("~/.imgsearch/sky")


def installed() -> bool:
    """Whether SkyPilot is there. A folder called sky, as this repository has one, can be imported, too."""
    try:
        metadata.version("skypilot")
    except metadata.PackageNotFoundError:
        return False
    return True


@functools.cache
def load() -> Path:
    """Imports SkyPilot, which writes to its home as it is imported and keeps the paths of that time, and returns the
    home that it has here. One that is imported already (controller.backends.skypilot.tasks) keeps that of the person.

    Raises UsageError where it is not installed."""
    if not installed():
        raise UsageError(INSTALL)
    home = HOME.expanduser()
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
    # Only while it is imported: credential plugins of the kubeconfig look for their files in HOME.
    own = os.environ.get("HOME")
    os.environ["HOME"] = str(home)
    try:
        import sky.catalog
        import sky.provision.kubernetes.utils
        import sky.ssh_node_pools.utils
        import sky.utils.annotations
    finally:
        if own is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = own
    # Or it prints `<sky-payload>` lines to stdout, for a client of its own to read.
    sky.utils.annotations.is_on_api_server = False
    # It logs to stdout, and raises what matters of it.
    logging.getLogger("sky").setLevel(logging.CRITICAL)
    return home


@contextmanager
def whole_tracebacks() -> Iterator[None]:
    """SkyPilot sets sys.tracebacklimit to 0 as it raises, and leaves it there."""
    before = getattr(sys, "tracebacklimit", None)
    try:
        yield
    finally:
        if before is None:
            vars(sys).pop("tracebacklimit", None)
        else:
            sys.tracebacklimit = before
