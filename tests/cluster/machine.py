"""A bare machine for a pool: a pod with an ssh server. Its installer, in place of k3s', gives out this very cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.load import pod
from tests.cluster.world import World
from tests.skypilot.machines import K3S

NAME = "machine"
ADDRESS = "192.0.2.10"
"""Nobody has it: our `ssh` leads to the pod."""
START = """
mkdir -p /run/sshd
ssh-keygen -A
install -D -m 600 /files/authorized_keys /root/.ssh/authorized_keys
install -m 755 /files/curl /usr/local/bin
exec /usr/sbin/sshd -D -e
"""
CURL = """#!/bin/sh
case "$*" in
*get.k3s.io*) cat /files/install ;;
*) exit 6 ;;  # the machine is not on the internet
esac
"""
INSTALL = """
set -e
install -D -m 600 /files/k3s.yaml /etc/rancher/k3s/k3s.yaml
install -m 755 /files/k3s-uninstall.sh /usr/local/bin
ln -s /bin/true /usr/local/bin/kubectl  # it is asked whether the nodes are ready
ln -s "$(command -v socat)" /usr/local/bin/k3s-server
setsid k3s-server TCP-LISTEN:6443,bind=127.0.0.1,fork TCP:kubernetes.default:443 </dev/null >/dev/null 2>&1 &
"""
UNINSTALL = """#!/bin/sh
pkill -x k3s-server
rm /usr/local/bin/kubectl /usr/local/bin/k3s-server
"""


@dataclass(frozen=True)
class Machine:
    """One is root on it, with a key."""

    place: World
    key: Path
    programs: Path
    """A folder with `ssh` and `scp`."""

    @property
    def path(self) -> str:
        return os.pathsep.join([str(self.programs), os.environ["PATH"]])

    def pool(self, file: Path, name: str) -> Path:
        """A file of SkyPilot's with a pool of that name, which is this machine."""
        file.write_text(yaml.safe_dump({name: {"user": "root", "identity_file": str(self.key), "hosts": [ADDRESS]}}))
        return file

    def says(self, *arguments: str) -> list[str]:
        """The lines that a command prints there."""
        return self.place.kubectl("exec", NAME, "--", *arguments).splitlines()


@contextmanager
def running_machine(place: World, image: str, node: str, folder: Path) -> Iterator[Machine]:
    """A machine on a node that has `image`, in a namespace that Pod Security does not restrict. What this side needs of
    it is in `folder`: `ssh` knows neither the settings nor the known hosts of whoever runs the tests."""
    key = folder / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    files = {
        "authorized_keys": key.with_suffix(".pub").read_text(),
        "curl": CURL,
        "install": INSTALL,
        "k3s-uninstall.sh": UNINSTALL,
        "k3s.yaml": yaml.safe_dump({**yaml.safe_load(K3S), "users": [{"name": "default", "user": admin(place)}]}),
    }
    manifest = pod(NAME, image, ["sh", "-c", START], labels={"app": NAME})
    manifest["spec"] |= {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "tolerations": [{"operator": "Exists"}],
        "volumes": [{"name": "files", "secret": {"secretName": NAME}}],
    }
    manifest["spec"]["containers"][0] |= {
        "securityContext": {},
        "volumeMounts": [{"name": "files", "mountPath": "/files"}],
        "startupProbe": {"tcpSocket": {"port": 22}, "periodSeconds": 1, "failureThreshold": 120},
    }
    place.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "stringData": files}, manifest)
    place.kubectl("wait", "--for=condition=Ready", f"pod/{NAME}", "--timeout=300s", seconds=310)
    with place.forwarded(f"pod/{NAME}", 22) as url:
        options = {
            "HostName": "127.0.0.1",
            "Port": url.rpartition(":")[2],
            "UserKnownHostsFile": folder / "known_hosts",
        }
        ssh_options = " ".join(f"-o {option}={value}" for option, value in options.items())
        programs = folder / "bin"
        programs.mkdir()
        for name in ("ssh", "scp"):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {shutil.which(name)} -F none {ssh_options} "$@"\n')
            program.chmod(0o755)
        yield Machine(place, key, programs)


def admin(place: World) -> dict[str, Any]:
    """The user of the kubeconfig, whom the cluster must know by a certificate, as a k3s its first one."""
    config = yaml.safe_load(place.kubectl("config", "view", "--raw", "--minify", "--flatten"))
    user: dict[str, Any] = config["users"][0]["user"]
    assert "client-certificate-data" in user, "the user of the kubeconfig must be one with a client certificate"
    return user
