"""Machines for `sky ssh up`: programs `ssh` and `scp` that answer for them. All else of SkyPilot runs as it is, and so
does kubectl."""

from __future__ import annotations

import os
import sys
from pathlib import Path

SSH = """
import pathlib, sys

machines = pathlib.Path({folder!r})
if "-vvG" in sys.argv:  # does the person's own configuration name this host?
    sys.exit()
if sys.argv[0].endswith("scp"):
    (host, _), target = sys.argv[-2].split(":"), sys.argv[-1]
else:
    host, command = sys.argv[-2:]
machine = machines / host.rpartition("@")[2]
if not machine.is_dir():
    print(f"ssh: connect to host {{machine.name}} port 22: Connection refused", file=sys.stderr)
    sys.exit(255)
if sys.argv[0].endswith("scp"):
    if not (machine / "kubeconfig").exists():
        sys.exit("scp: .kube/config: No such file or directory")
    pathlib.Path(target).write_text((machine / "kubeconfig").read_text())
    sys.exit()
with open(machine / "asked", "a") as asked:
    asked.write(command + chr(10))
for word, answer in {answers!r}.items():
    if word in command:
        if (machine / f"fails-{{answer}}").exists():
            print((machine / f"fails-{{answer}}").read_text(), file=sys.stderr)
            sys.exit(1)
        print((machine / answer).read_text() if (machine / answer).exists() else answer)
        sys.exit()
sys.exit(1)  # there is no helm
"""
ANSWERS = {
    "/proc/": "processes",
    "k3s-uninstall.sh": "uninstalled",
    "SSH connection successful": "SSH connection successful",
    "get.k3s.io": "installed",
    "allowtcpforwarding": "forwarding",
    "ip -4 route": "10.0.0.5",
    "gpu_name": "gpu",
}
"""By what is in a command, what it prints; or a file of the machine that has it."""
K3S = """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: Y2E=
    server: https://127.0.0.1:6443
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
kind: Config
users:
- name: default
  user:
    client-certificate-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCmEKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=
    client-key-data: LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS0tLS0tCmEKLS0tLS1FTkQgRUMgUFJJVkFURSBLRVktLS0tLQo=
"""
"""As k3s leaves it; the certificate and the key are none."""


class Machines:
    """By address. What a machine has not been given is not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "machines"
        self._folder.mkdir()
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.key = folder / "id"
        self.key.write_text("key\n")
        answering = f"#!{sys.executable}\n{SSH.format(folder=str(self._folder), answers=ANSWERS)}"
        # nc is asked whether the tunnel is there: it never is.
        for name, text in {"ssh": answering, "scp": answering, "nc": "#!/bin/sh\nexit 1\n"}.items():
            program = self.programs / name
            program.write_text(text)
            program.chmod(0o755)

    @property
    def path(self) -> str:
        return os.pathsep.join([str(self.programs), os.environ["PATH"]])

    def add(self, address: str, *, processes: str = "systemd\nsshd", gpu: str = "") -> None:
        machine = self._folder / address
        machine.mkdir(exist_ok=True)
        (machine / "processes").write_text(processes)
        (machine / "kubeconfig").write_text(K3S)
        (machine / "fails-gpu").unlink(missing_ok=True)
        (machine / ("gpu" if gpu else "fails-gpu")).write_text(gpu)

    def fail(self, address: str, output: str, message: str) -> None:
        """The command with this output fails instead, with this message."""
        (self._folder / address / f"fails-{output}").write_text(message)

    def forget(self, address: str) -> None:
        """It has no kubeconfig."""
        (self._folder / address / "kubeconfig").unlink()

    def remove(self, address: str) -> None:
        (self._folder / address).rename(self._folder / f"gone-{address}")

    def commands(self, address: str) -> str:
        """All commands that the machine was given."""
        file = self._folder / address / "asked"
        return file.read_text() if file.exists() else ""

    def pools(self, file: Path, **pools: list[str]) -> Path:
        """A file of SkyPilot's that lists them."""
        lines = [
            f"{name}:\n  user: me\n  identity_file: {self.key}\n  hosts: [{', '.join(hosts)}]\n"
            for name, hosts in pools.items()
        ]
        file.write_text("".join(lines))
        return file
