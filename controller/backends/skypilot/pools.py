"""Clusters that SkyPilot makes of bare machines (`sky ssh up`), each a context in the person's kubeconfig."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from controller.backends import files
from controller.backends.kubernetes.kubeconfig import Kubeconfig, NotThere
from controller.backends.skypilot import load, whole_tracebacks
from controller.backends.skypilot.messages import Line, failure, spoken
from imgsearch.errors import TemporaryError, UsageError

log = logging.getLogger(__name__)

TOOLS = ("jq", "kubectl", "nc", "scp", "ssh")
"""What `sky ssh up` and the tunnel that it leaves run."""
SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "StrictHostKeyChecking=no")
UNREACHABLE = 255
"""The exit status of ssh where it is not that of the command."""
LOOK = (
    "sh -c 'cat /proc/[0-9]*/comm 2>/dev/null | sort -u; "
    "ls -d /etc/kubernetes/*.conf /etc/kubernetes/manifests/* /var/lib/rancher/rke2 2>/dev/null; true'"
)
"""Prints the names of all processes and the files that a Kubernetes leaves where it has been stopped."""
KUBERNETES = {"kubelet", "kubelite", "k0s", "rke2"}
K3S = {"k3s-server", "k3s-agent"}
"""Processes of other Kubernetes, and of that which SkyPilot installs."""
PORTS = range(6443, 6500)
"""One of these on this machine is the end of a pool's tunnel (sky/ssh_node_pools/deploy/tunnel_utils.py)."""
CHILD = """
import sys
from sky.ssh_node_pools import core
try:
    core.ssh_up(infra=sys.argv[1], cleanup=sys.argv[2] == "down")
except Exception as error:
    sys.exit(str(error.__cause__ or error))
"""
"""`sky ssh up` and `sky ssh down` as the API server does them: so none is needed."""


class ProvisioningFailed(TemporaryError):
    """Machines did not become a cluster."""


def ensure_pool(
    name: str, file: Path | None = None, *, kubeconfig: str | None = None, tell: Callable[[str], None] = log.info
) -> str:
    """The context of a pool: one of that name in the kubeconfig, or `ssh-NAME`. Where there is neither, `sky ssh up`
    makes a Kubernetes (k3s) of the machines that `file` lists under this name
    (https://docs.skypilot.co/en/latest/reservations/existing-machines.html), which takes minutes, and the kubeconfig
    gets its context; the current one stays what it is. `tell` hears how far it is.

    No API server of SkyPilot is started for it. The context works on this machine only: it is an SSH tunnel.

    Raises UsageError where the file or the machines are not as they must be, ProvisioningFailed with the reason from
    SkyPilot's log."""
    config = Kubeconfig.of(kubeconfig)
    context = f"ssh-{name}"
    for known in (name, context):
        if known in config.contexts():
            return known
    if file is None:
        raise UsageError(
            f"the kubeconfig has no context {name}, and none of a pool {name}: name one that it has "
            f"({', '.join(config.contexts()) or 'none'}), or make one of machines: "
            f"`controller pools up {name} --file …`"
        )
    home = load()
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise UsageError(f"`sky ssh up` needs programs that are not here: install {', '.join(missing)}")
    pools = _Pools(home)
    pool, hosts = pools.read(name, file.expanduser())
    ours = K3S if name in pools.names() else set()  # it was begun before
    for host in hosts:
        if trace := _kubernetes(host, but=ours):
            raise UsageError(
                f"{host['ip']} runs a Kubernetes already ({trace}): name the context of its own kubeconfig, or take "
                "the machine out of the pool"
            )
    pools.put(name, pool)
    scratch = Kubeconfig.of(str(home / ".kube" / "config"))
    scratch.begin({**config.servers(), **_busy()})
    tell(f"SkyPilot makes a Kubernetes of {len(hosts)} machines")
    for line in _ssh(home, name, "up", tell):
        if line.startswith("Failed to") and "Prometheus" not in line:  # which nothing here needs
            log.warning("pool %s: %s", name, line)
    try:
        config.adopt(context, scratch, {"HOME": str(home)})
    except NotThere as error:
        raise ProvisioningFailed(f"SkyPilot has ended well and left {error}: try again") from error
    return context


def remove_pool(name: str, *, kubeconfig: str | None = None, tell: Callable[[str], None] = log.info) -> None:
    """Takes the Kubernetes that `ensure_pool` has made off its machines, and its context out of the kubeconfig. On each
    machine `sky ssh down` removes /etc/rancher, /var/lib/rancher, /var/lib/kubelet, /etc/kubernetes and ~/.kube.

    No API server of SkyPilot is started for it.

    Raises UsageError where a machine has another Kubernetes, or where the pool is not of our making, TemporaryError
    where a machine does not answer: nothing has been changed then. Raises ProvisioningFailed where it went wrong."""
    home = load()
    pools = _Pools(home)
    if name not in pools.names():
        raise UsageError(
            f"`controller pools up` has made no pool {name} (it has made {', '.join(pools.names()) or 'none'}): what "
            "another has made, that one removes"
        )
    _, hosts = pools.read(name, pools.file)
    for host in hosts:
        if trace := _kubernetes(host, but=K3S, must_answer=True):
            raise UsageError(
                f"{host['ip']} has another Kubernetes than that of SkyPilot ({trace}), which `sky ssh down` would "
                f"destroy: take the machine out of {pools.file}, and remove SkyPilot's by hand"
            )
    said = _ssh(home, name, "down", tell)
    config = Kubeconfig.of(kubeconfig)
    config.drop(f"ssh-{name}")
    pools.remove(name)
    if left := [line for line in said if line.startswith("Failed to clean up")]:
        raise ProvisioningFailed(
            f"{left[0].rstrip('.')}: run k3s-uninstall.sh on it by hand; the pool is forgotten here"
        )


class _Pools:
    """The machines of each pool that was begun here, as SkyPilot reads them."""

    def __init__(self, home: Path) -> None:
        self.file = home / ".sky" / "ssh_node_pools.yaml"

    def names(self) -> list[str]:
        return list(files.read(self.file))

    def read(self, name: str, file: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
        """One pool of a file, its paths made absolute, and its machines. Raises UsageError."""
        from sky.ssh_node_pools import utils

        with whole_tracebacks():
            try:
                pool = utils.get_cluster_config(utils.load_ssh_targets(str(file)), name, file_path=str(file))[name]
                hosts: list[dict[str, str]] = utils.prepare_hosts_info(name, pool)
            except ValueError as error:
                raise UsageError(f"{str(error).rstrip('.')}: see docs/gpu-pools.md") from error
            except (AttributeError, TypeError) as error:  # not the lists and mappings that it expects
                raise UsageError(
                    f"{file} is no list of pools and their hosts ({error}): see docs/gpu-pools.md"
                ) from error
        if not hosts:
            raise UsageError(f"pool {name} in {file} has no host with an ip")
        made = [_absolute(host) if isinstance(host, dict) else host for host in pool["hosts"]]
        return {**_absolute(pool), "hosts": made}, hosts

    def put(self, name: str, pool: Mapping[str, Any]) -> None:
        files.write(self.file, {**files.read(self.file), name: dict(pool)})

    def remove(self, name: str) -> None:
        left = {each: pool for each, pool in files.read(self.file).items() if each != name}
        files.write(self.file, left)


def _absolute(named: Mapping[str, Any]) -> dict[str, Any]:
    """With the path of its key as it is here: SkyPilot has another HOME."""
    key = named.get("identity_file")
    return {**named, "identity_file": os.path.abspath(os.path.expanduser(key))} if key else dict(named)


def _kubernetes(host: Mapping[str, Any], *, but: set[str], must_answer: bool = False) -> str | None:
    """What tells that a machine has a Kubernetes other than `but`; None where nothing does, or where the machine does
    not answer: SkyPilot says more of that. Raises TemporaryError where it must answer."""
    key = ("-o", "IdentitiesOnly=yes", "-i", host["identity_file"]) if host["identity_file"] else ()
    where = f"{host['user']}@{host['ip']}" if host["user"] else host["ip"]
    looked = subprocess.run([*SSH, *key, where, LOOK], capture_output=True, text=True, errors="replace", check=False)
    if looked.returncode == UNREACHABLE:
        if not must_answer:
            return None
        told = (looked.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise TemporaryError(f"{host['ip']} does not answer ({told}): nothing has been changed, try again when it does")
    found = [line for line in looked.stdout.splitlines() if line.startswith("/") or line in (KUBERNETES | K3S) - but]
    return found[0] if found else None


def _ssh(home: Path, name: str, action: str, tell: Callable[[str], None]) -> list[str]:
    """Runs `sky ssh` and returns what it has said. Raises ProvisioningFailed."""
    # Its last step is a `sky check`, for an API server that is not there, or is another's. Its answer is not used.
    nothing = home / "bin" / "sky"
    nothing.parent.mkdir(exist_ok=True)
    nothing.write_text("#!/bin/sh\n")
    nothing.chmod(0o755)
    env = {
        **os.environ,
        "HOME": str(home),
        "KUBECONFIG": str(home / ".kube" / "config"),
        "PATH": os.pathsep.join([str(nothing.parent), os.environ.get("PATH", os.defpath)]),
    }
    said: list[Line] = []
    with tempfile.TemporaryFile("w+") as ended:
        # -P: a folder called sky may be in the working directory.
        command = [sys.executable, "-P", "-c", CHILD, name, action]
        with subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=ended,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for line in spoken(process.stdout):
                said.append(line)
                tell(line.text)
        ended.seek(0)
        told = [line.text for line in spoken(ended)]
    if process.returncode:
        raise ProvisioningFailed(f"`sky ssh {action}` of {name} has failed: {failure(name, said, told)}")
    return [line.text for line in said]


def _busy() -> dict[str, str]:
    """Ports of this machine that are taken, as clusters: SkyPilot looks for a free one in its kubeconfig, and would
    overlook some that others listen on."""
    return {f"port-{port}": f"https://127.0.0.1:{port}" for port in PORTS if _listening(port)}


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
