"""Pools: Kubernetes clusters that SkyPilot installs on bare machines (`sky ssh up`), each a context in the user's
kubeconfig."""

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

from controller.backends.files import read_yaml, write_yaml
from controller.backends.kubeconfig import Kubeconfig, MissingEntry
from controller.backends.skypilot import load, whole_tracebacks
from controller.backends.skypilot.messages import Line, failure_reason, readable
from imgsearch.errors import TemporaryError, UsageError

log = logging.getLogger(__name__)

TOOLS = ("jq", "kubectl", "nc", "scp", "ssh")
"""Programs that `sky ssh up` and its tunnel run."""
SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "StrictHostKeyChecking=no")
UNREACHABLE = 255
"""The exit status of ssh itself; any other is that of the command."""
PROBE = (
    "sh -c 'cat /proc/[0-9]*/comm 2>/dev/null | sort -u; "
    "ls -d /etc/kubernetes/*.conf /etc/kubernetes/manifests/* /var/lib/rancher/rke2 2>/dev/null; true'"
)
"""Prints the names of all processes, and the files that a stopped Kubernetes leaves."""
KUBERNETES = {"kubelet", "kubelite", "k0s", "rke2"}
K3S = {"k3s-server", "k3s-agent"}
"""Processes of other Kubernetes distributions, and of the one that SkyPilot installs."""
PORTS = range(6443, 6500)
"""Ports of this machine for the tunnels of pools (sky/ssh_node_pools/deploy/tunnel_utils.py)."""
CHILD = """
import sys
from sky.ssh_node_pools import core
try:
    core.ssh_up(infra=sys.argv[1], cleanup=sys.argv[2] == "down")
except Exception as error:
    sys.exit(str(error.__cause__ or error))
"""
"""Runs `sky ssh up` and `sky ssh down` like the API server does, without one."""


class ProvisioningFailed(TemporaryError):
    """SkyPilot failed to install or remove a cluster."""


def ensure_pool(
    name: str, file: Path | None = None, *, kubeconfig: str | None = None, report: Callable[[str], None] = log.info
) -> str:
    """The context of a pool: one of that name in the kubeconfig, or `ssh-NAME`. Where neither exists, `sky ssh up`
    installs Kubernetes (k3s) on the machines that `file` lists under this name
    (https://docs.skypilot.co/en/latest/reservations/existing-machines.html), which takes minutes, and adds its context
    to the kubeconfig; the current context does not change. `report` receives the progress.

    No API server of SkyPilot is started. The context works on this machine only: it is an SSH tunnel.

    Raises UsageError where the file or the machines are not suitable, ProvisioningFailed with the reason from
    SkyPilot's log."""
    config = Kubeconfig.of(kubeconfig)
    context = f"ssh-{name}"
    for existing in (name, context):
        if existing in config.contexts():
            return existing
    if file is None:
        raise UsageError(
            f"the kubeconfig has no context {name} or {context}: use one of its contexts "
            f"({', '.join(config.contexts()) or 'none'}), or create a pool with `controller pools up {name} --file …`"
        )
    home = load()
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise UsageError(f"`sky ssh up` needs programs that are not installed: install {', '.join(missing)}")
    pools = _Pools(home)
    pool, hosts = pools.read(name, file.expanduser())
    installed = K3S if name in pools.names() else set()  # left by an earlier attempt
    for host in hosts:
        if trace := _kubernetes(host, ignored=installed):
            raise UsageError(
                f"{host['ip']} already runs Kubernetes ({trace}): use the context of its own kubeconfig, or remove "
                "the machine from the pool"
            )
    pools.put(name, pool)
    scratch = Kubeconfig.of(str(home / ".kube" / "config"))
    scratch.begin({**config.servers(), **_busy()})
    report(f"SkyPilot installs Kubernetes on {', '.join(host['ip'] for host in hosts)}; this takes minutes")
    for line in _ssh(home, name, "up", report):
        if line.startswith("Failed to") and "Prometheus" not in line:  # which is not needed
            log.warning("pool %s: %s", name, line)
    try:
        config.adopt(context, scratch, {"HOME": str(home)})
    except MissingEntry as error:
        raise ProvisioningFailed(f"SkyPilot succeeded, but its kubeconfig has {error}: try again") from error
    return context


def remove_pool(name: str, *, kubeconfig: str | None = None, report: Callable[[str], None] = log.info) -> None:
    """Removes the Kubernetes that `ensure_pool` installed from its machines, and its context from the kubeconfig. On
    each machine `sky ssh down` removes /etc/rancher, /var/lib/rancher, /var/lib/kubelet, /etc/kubernetes and ~/.kube.

    No API server of SkyPilot is started.

    Raises UsageError where a machine has another Kubernetes, or `ensure_pool` did not make the pool; TemporaryError
    where a machine does not answer. Nothing has changed then. Raises ProvisioningFailed where the removal failed."""
    home = load()
    pools = _Pools(home)
    if name not in pools.names():
        raise UsageError(
            f"pool {name} was not created by `controller pools up` (its pools: {', '.join(pools.names()) or 'none'}): "
            "remove it with the program that created it"
        )
    _, hosts = pools.read(name, pools.file)
    for host in hosts:
        if trace := _kubernetes(host, ignored=K3S, must_answer=True):
            raise UsageError(
                f"{host['ip']} runs a Kubernetes that SkyPilot did not install ({trace}) and would destroy: "
                f"remove the machine from {pools.file}, and uninstall SkyPilot's k3s by hand"
            )
    lines = _ssh(home, name, "down", report)
    config = Kubeconfig.of(kubeconfig)
    config.drop(f"ssh-{name}")
    pools.remove(name)
    if left := [line for line in lines if line.startswith("Failed to clean up")]:
        raise ProvisioningFailed(
            f"{left[0].rstrip('.')}: run k3s-uninstall.sh on it by hand; the pool is removed from the kubeconfig"
        )


class _Pools:
    """The file with the machines of each pool that was made here, for SkyPilot."""

    def __init__(self, home: Path) -> None:
        self.file = home / ".sky" / "ssh_node_pools.yaml"

    def names(self) -> list[str]:
        return list(read_yaml(self.file))

    def read(self, name: str, file: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
        """One pool of a file, with absolute paths, and its machines. Raises UsageError."""
        from sky.ssh_node_pools import utils

        with whole_tracebacks():
            try:
                pool = utils.get_cluster_config(utils.load_ssh_targets(str(file)), name, file_path=str(file))[name]
                hosts: list[dict[str, str]] = utils.prepare_hosts_info(name, pool)
            except ValueError as error:
                raise UsageError(f"{str(error).rstrip('.')}: see docs/gpu-pools.md") from error
            except (AttributeError, TypeError) as error:  # it expects lists and mappings
                raise UsageError(
                    f"invalid content of {file} ({error}): it must list pools and their hosts, see docs/gpu-pools.md"
                ) from error
        if not hosts:
            raise UsageError(f"pool {name} in {file} has no host with an ip")
        absolute = [_absolute(host) if isinstance(host, dict) else host for host in pool["hosts"]]
        return {**_absolute(pool), "hosts": absolute}, hosts

    def put(self, name: str, pool: Mapping[str, Any]) -> None:
        write_yaml(self.file, {**read_yaml(self.file), name: dict(pool)})

    def remove(self, name: str) -> None:
        pools = {other: pool for other, pool in read_yaml(self.file).items() if other != name}
        write_yaml(self.file, pools)


def _absolute(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A pool or host with the absolute path of its key: SkyPilot runs with another HOME."""
    key = entry.get("identity_file")
    return {**entry, "identity_file": os.path.abspath(os.path.expanduser(key))} if key else dict(entry)


def _kubernetes(host: Mapping[str, Any], *, ignored: set[str], must_answer: bool = False) -> str | None:
    """A process or file of Kubernetes on a machine, except `ignored` processes. None where there is none, and where
    the machine does not answer, since SkyPilot's own error is more detailed. Raises TemporaryError where it must
    answer."""
    key = ("-o", "IdentitiesOnly=yes", "-i", host["identity_file"]) if host["identity_file"] else ()
    address = f"{host['user']}@{host['ip']}" if host["user"] else host["ip"]
    probe = subprocess.run([*SSH, *key, address, PROBE], capture_output=True, text=True, errors="replace", check=False)
    if probe.returncode == UNREACHABLE:
        if not must_answer:
            return None
        reason = (probe.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise TemporaryError(f"{host['ip']} does not answer ({reason}): nothing has changed, try again when it does")
    processes = (KUBERNETES | K3S) - ignored
    return next((line for line in probe.stdout.splitlines() if line.startswith("/") or line in processes), None)


def _ssh(home: Path, name: str, action: str, report: Callable[[str], None]) -> list[str]:
    """Runs `sky ssh` and returns the lines of its output. Raises ProvisioningFailed."""
    # Its last step runs `sky check`, which would use an API server. Its result is not used, so this `sky` does nothing.
    sky = home / "bin" / "sky"
    sky.parent.mkdir(exist_ok=True)
    sky.write_text("#!/bin/sh\n")
    sky.chmod(0o755)
    env = {
        **os.environ,
        "HOME": str(home),
        "KUBECONFIG": str(home / ".kube" / "config"),
        "PATH": os.pathsep.join([str(sky.parent), os.environ.get("PATH", os.defpath)]),
    }
    lines: list[Line] = []
    with tempfile.TemporaryFile("w+") as stderr:
        # -P: a folder called sky may be in the working directory.
        command = [sys.executable, "-P", "-c", CHILD, name, action]
        with subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for line in readable(process.stdout):
                lines.append(line)
                report(line.text)
        stderr.seek(0)
        errors = [line.text for line in readable(stderr)]
    if process.returncode:
        raise ProvisioningFailed(f"`sky ssh {action}` of {name} failed: {failure_reason(name, lines, errors)}")
    return [line.text for line in lines]


def _busy() -> dict[str, str]:
    """Used ports of this machine as clusters: SkyPilot takes a port for its tunnel that its kubeconfig does not have,
    whether another program listens on it or not."""
    return {f"port-{port}": f"https://127.0.0.1:{port}" for port in PORTS if _listening(port)}


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
