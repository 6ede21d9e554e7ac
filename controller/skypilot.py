"""SkyPilot: what it sees of a cluster's GPUs, what clouds ask for them, and clusters that it makes of bare machines.

What is called of it is documented nowhere (sky/provision/kubernetes/utils.py, sky/catalog and sky/ssh_node_pools of
0.14.1), so all of it is here and has contract tests. SkyPilot does not create node pools in a cloud account.

It has an environment of its own (`make install-sky`), and what it reads and writes is in `~/.imgsearch/sky`: the
person's own `~/.sky` is left alone. No API server of SkyPilot is started here. It phones home only where
SKYPILOT_DISABLE_USAGE_COLLECTION is set to 0.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from controller.placement import (
    AUTOSCALER_ADVICE,
    SPOT_LABELS,
    UNKNOWN,
    Kind,
    NoSuchShape,
    NotAllowed,
    Offer,
    Placement,
    ProvisioningFailed,
)
from imgsearch.errors import ImgsearchError, PermanentError, TemporaryError, UsageError

log = logging.getLogger(__name__)

INSTALL = (
    "SkyPilot is not installed here: it has an environment of its own, so run `make install-sky` and then "
    "`.venv-sky/bin/controller …`, or `pip install 'imgsearch[sky]'` in a new one"
)
HOME = Path("~/.imgsearch/sky")
SMALLEST_POD = "0.1CPU--0.1GB"
"""Only the GPUs are in question: what else a pod needs is for the scheduler to see."""
KUBECONFIG = "~/.kube/config"
CATALOGUE_SECONDS = 30.0
"""Twenty downloads at once, the first time; SkyPilot itself would wait for a firewall that swallows packets."""
UNPRICED = ("kubernetes", "slurm", "ssh", "vsphere")
"""Clusters of one's own: SkyPilot would look for them instead of reading a price list."""
SAME = {"H100-80GB": "H100"}
"""What SkyPilot reads from a label and what its price lists say, where they differ."""
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
NOISE = re.compile(r"<sky-payload.*?</sky-payload>|\x1b\[[0-9;]*m|[➜✔✗]")
FAILED = re.compile(r"Error executing command(?!:).*?(?: on \S+: ?(?P<words>.*))?")
WORDS = re.compile(r"on \S+: ?(?P<words>.*)")
"""A command of several lines, on another machine: what it says stands after its last one."""


def installed() -> bool:
    """Whether SkyPilot is there. A folder called sky, as this repository has one, can be imported, too."""
    try:
        metadata.version("skypilot")
    except metadata.PackageNotFoundError:
        return False
    return True


class SkyFinder:
    """The Finder that asks SkyPilot. Each question is a look at the cluster as it is now.

    Where it differs from our own look (controller.placement): one label names the GPUs of all nodes, the first kind of
    label that it finds on any; a placement has one value of it; slices of a GPU count as GPUs; with an AMD GPU
    anywhere, none of NVIDIA is seen; and an autoscaler's label is the only one, also where nodes bear others."""

    def __init__(self, context: str | None = None, *, autoscaler: str | None = None) -> None:
        """`context` of the kubeconfig; None: its current one, or the cluster that this pod is in. Imports SkyPilot, two
        seconds, with another HOME meanwhile: before there are threads.

        Raises UsageError where SkyPilot is not installed, or does not know the context or the autoscaler."""
        load()
        from sky.provision.kubernetes import utils
        from sky.utils import annotations
        from sky.utils.kubernetes_enums import KubernetesAutoscalerType

        annotations.clear_request_level_cache()
        known = [each.value for each in KubernetesAutoscalerType]
        if autoscaler is not None and autoscaler not in known:
            raise UsageError(f"there is no autoscaler {autoscaler!r}: it is one of {', '.join(known)}")
        chosen = context or utils.get_current_kube_config_context_name()
        if chosen is None:
            raise UsageError("there is no cluster to look at: set KUBECONFIG, or name a --context")
        contexts = utils.get_all_kube_context_names()
        if chosen not in contexts:
            raise UsageError(f"the kubeconfig has no context {chosen!r}: it has {', '.join(contexts) or 'none'}")
        self._context: str = chosen
        self._autoscaler = autoscaler
        self._told = False

    def offers(self) -> list[Offer]:
        """What the cluster has, by SkyPilot's name for it; what no label names comes last.

        Raises NotAllowed where nodes may not be listed, TemporaryError where the cluster does not answer."""
        from sky.provision.kubernetes import utils

        with self._looking():
            nodes = self._nodes()
            resource = utils.get_gpu_resource_key(self._context)
            formatter, _ = utils.detect_gpu_label_formatter(self._context)
            groups: dict[str, list[_Node]] = {}
            for node in nodes:
                groups.setdefault(_accelerator(formatter, node.labels), []).append(node)
        return [
            Offer(
                accelerator=accelerator,
                nodes=len(group),
                total=sum(node.gpus for node in group),
                free=_free(group),
                spot=sum(node.gpus for node in group if node.spot),
                resource=resource,
            )
            for accelerator, group in sorted(groups.items(), key=lambda item: (item[0] == UNKNOWN, item[0]))
        ]

    def placement(self, kind: Kind) -> Placement:
        """Where pods of this kind can go. That all GPUs are busy is no error: a pod that waits wakes an autoscaler.

        Raises NoSuchShape, and as `offers` does."""
        from sky.provision.kubernetes import utils

        with self._looking(kind):
            nodes = self._nodes()
            key, values, _, _ = utils.get_accelerator_label_key_values(self._context, kind.name, kind.count)
            # The label is found for any count.
            pod = f"{SMALLEST_POD}--{kind.name}:{kind.count}"
            _, reason = utils.check_instance_fits(self._context, pod)
            resource = utils.get_gpu_resource_key(self._context)
        fitting = [node for node in nodes if node.labels.get(key) in values and node.gpus >= kind.count]
        if self._autoscaler is None and not fitting:
            raise self._no_such_shape(kind, reason or "All nodes that have it are cordoned")
        return Placement(
            kind=kind,
            resource=resource,
            labels={key: tuple(values)},
            total=sum(node.gpus for node in fitting),
            free=_free(fitting),
        )

    @contextmanager
    def _looking(self, kind: Kind | None = None) -> Iterator[None]:
        """A look of its own, with our autoscaler on top of SkyPilot's own settings, and with our errors."""
        import urllib3
        from sky import exceptions, skypilot_config
        from sky.provision.kubernetes.utils import ijson
        from sky.utils import annotations

        annotations.clear_request_level_cache()  # SkyPilot does that for each request of its API server
        ours = {"kubernetes": {"autoscaler": self._autoscaler}} if self._autoscaler else {}
        try:
            with whole_tracebacks(), skypilot_config.override_skypilot_config(ours):
                yield
        except exceptions.KubeAPIUnreachableError as error:  # first: it is a ResourcesUnavailableError, too
            raise self._unreachable(error, "nodes") from error
        except exceptions.ResourcesUnavailableError as error:
            if kind is None:
                raise PermanentError(f"SkyPilot cannot read the nodes of {self._context}: {error}") from error
            raise self._no_such_shape(kind, str(error)) from error
        except (urllib3.exceptions.HTTPError, ijson.JSONError) as error:  # in the middle of an answer
            raise TemporaryError(
                f"the cluster {self._context} has broken off its answer ({error}): try again"
            ) from error
        except ValueError as error:
            raise PermanentError(f"SkyPilot cannot read the nodes of {self._context}: {error}") from error

    def _nodes(self) -> list[_Node]:
        """Those that take pods and have GPUs. SkyPilot lists the others as well."""
        from sky.provision.kubernetes import utils

        listed = utils.get_kubernetes_nodes(context=self._context)
        used = self._used()
        found = []
        for node in listed:
            gpus = utils.get_node_accelerator_count(self._context, node.status.allocatable)
            if gpus and node.is_ready() and not node.is_cordoned():
                name, labels = node.metadata.name, node.metadata.labels
                # A device that has broken is not allocatable any more, but its pod may still hold it.
                free = None if used is None else max(0, gpus - used.get(name, 0))
                found.append(_Node(labels, gpus, free))
        return found

    def _used(self) -> Mapping[str, int] | None:
        """By node, the GPUs that pods ask for; None where pods may not be listed.

        Not from SkyPilot's node info, which calls all GPUs of a tainted node busy: our pods may tolerate the taint."""
        from sky import exceptions
        from sky.provision.kubernetes import utils

        try:
            used, _ = utils.get_allocated_resources_by_node(context=self._context)
        except exceptions.KubeAPIUnreachableError as error:
            trouble = self._unreachable(error, "pods")
            if not isinstance(trouble, NotAllowed):
                raise
            if not self._told:
                self._told = True
                log.warning("how many GPUs are free is not known: %s", trouble)
            return None
        return used  # type: ignore[no-any-return]

    def _unreachable(self, error: Exception, what: str) -> ImgsearchError:
        """What SkyPilot calls unreachable, also where the cluster answers and says no."""
        cause = error.__cause__
        match getattr(cause, "status", None):
            case 401:
                return UsageError(f"the cluster {self._context} does not know who asks: log in again")
            case 403:
                everywhere = "" if what == "nodes" else " of all namespaces"
                return NotAllowed(
                    f"this account may not list the {what}{everywhere} of {self._context}: bind a ClusterRole to it "
                    f"that has the verb list on {what}"
                )
        told = getattr(cause, "reason", None) or cause or error
        return TemporaryError(f"the cluster {self._context} does not answer ({told}): try again when it is back")

    def _no_such_shape(self, kind: Kind, reason: str) -> NoSuchShape:
        told = reason.split(". ")[0].rstrip(".")
        return NoSuchShape(
            f"{self._context} has no node for {kind.count} {kind.name} ({told}): `controller pools` says what it has; "
            f"choose one of these, or {AUTOSCALER_ADVICE}"
        )


@dataclass(frozen=True)
class _Node:
    """A node that takes pods and has GPUs."""

    labels: Mapping[str, str]
    gpus: int
    free: int | None

    @property
    def spot(self) -> bool:
        return any(self.labels.get(key) == value for key, value in SPOT_LABELS.items())


def _free(nodes: Sequence[_Node]) -> int | None:
    known = [node.free for node in nodes if node.free is not None]
    return sum(known) if len(known) == len(nodes) else None


def _accelerator(formatter: Any, labels: Mapping[str, str]) -> str:
    keys = formatter.get_label_keys() if formatter else []
    value = next((labels[key] for key in keys if labels.get(key)), None)
    return formatter.get_accelerator_from_label_value(value) if value else UNKNOWN


@dataclass(frozen=True)
class Price:
    """What one cloud asks for one GPU, in its cheapest region, with its share of the machine that it is in."""

    cloud: str
    hour: float
    """US dollars."""
    spot_hour: float | None
    """On a spot machine; None where the cloud has none."""


def prices(accelerator: str) -> list[Price]:
    """What clouds ask for this GPU, the cheapest first, from the price lists that SkyPilot keeps and renews every few
    hours (https://github.com/skypilot-org/skypilot-catalog). Empty where they cannot be had, with a warning.

    Raises UsageError where SkyPilot is not installed."""
    wanted = SAME.get(accelerator.upper(), accelerator).upper()
    found = []
    for cloud, listed in price_lists().items():
        rows = [row for name, rows in listed.items() if name.upper() == wanted for row in rows if row.accelerator_count]
        hours = [row.price / row.accelerator_count for row in rows if not math.isnan(row.price)]
        spots = [row.spot_price / row.accelerator_count for row in rows if not math.isnan(row.spot_price)]
        if hours:
            found.append(Price(cloud, min(hours), min(spots, default=None)))
    return sorted(found, key=lambda price: (price.hour, price.cloud))


@functools.cache
def price_lists() -> Mapping[str, Mapping[str, Sequence[Any]]]:
    """By cloud and accelerator, the machines that have it. Read once, without the clouds whose list cannot be had."""
    load()
    from sky import catalog
    from sky.skylet import constants

    answers: queue.Queue[tuple[str, Mapping[str, Sequence[Any]] | Exception]] = queue.Queue()

    def ask(cloud: str) -> None:
        try:
            answers.put((cloud, catalog.list_accelerators(clouds=cloud)))
        except Exception as error:  # of requests, pandas, and whatever a cloud's module raises
            answers.put((cloud, error))

    clouds = [cloud for cloud in constants.ALL_CLOUDS if cloud not in UNPRICED]
    found: dict[str, Mapping[str, Sequence[Any]]] = {}
    failed: dict[str, object] = dict.fromkeys(clouds, "no answer in time")
    deadline = time.monotonic() + CATALOGUE_SECONDS
    with whole_tracebacks():
        for cloud in clouds:
            threading.Thread(target=ask, args=(cloud,), name=f"prices-{cloud}", daemon=True).start()
        for _ in clouds:
            try:
                cloud, answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if isinstance(answer, Exception):
                failed[cloud] = answer
            else:
                del failed[cloud]
                found[cloud] = answer
    if failed:
        cloud, why = next(iter(failed.items()))
        log.warning("no prices of %s: SkyPilot's price lists cannot be had (%s: %s)", ", ".join(failed), cloud, why)
    return found


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
    scratch.begin(config.servers())
    tell(f"SkyPilot makes a Kubernetes of {len(hosts)} machines")
    for line in _ssh(home, name, "up", tell):
        if line.startswith("Failed to") and "Prometheus" not in line:  # which nothing here needs
            log.warning("pool %s: %s", name, line)
    config.adopt(context, scratch, {"HOME": str(home)})
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


class Kubeconfig:
    """Kubeconfig files, several of them being one: what is in them by name, each entry put in or taken out alone
    (https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/)."""

    PARTS = ("clusters", "users", "contexts")

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    @classmethod
    def of(cls, paths: str | None) -> Kubeconfig:
        """Of what KUBECONFIG says; None or empty: the usual one."""
        return cls([Path(path).expanduser() for path in (paths or KUBECONFIG).split(os.pathsep) if path])

    def contexts(self) -> list[str]:
        return [each["name"] for file in self._files for each in _read(file).get("contexts") or []]

    def servers(self) -> dict[str, str]:
        """By cluster, its URL."""
        named = [each for file in self._files for each in _read(file).get("clusters") or []]
        return {each["name"]: each["cluster"].get("server", "") for each in named}

    def begin(self, servers: Mapping[str, str]) -> None:
        """Leaves nothing in it but ports of this machine that are taken: SkyPilot looks here for one that is free, and
        would overlook some that others listen on."""
        busy = {f"port-{port}": f"https://127.0.0.1:{port}" for port in PORTS if _listening(port)}
        clusters = [{"name": name, "cluster": {"server": url}} for name, url in {**servers, **busy}.items()]
        _write(
            self._files[0], {"apiVersion": "v1", "kind": "Config", "clusters": clusters, "users": [], "contexts": []}
        )

    def adopt(self, name: str, other: Kubeconfig, env: Mapping[str, str]) -> None:
        """Puts in what another has of this name, its credential plugin being run with `env`."""
        theirs, mine = _read(other._files[0]), _read(self._files[0])
        for part in self.PARTS:
            found = [each for each in theirs.get(part) or [] if each["name"] == name]
            if not found:
                raise ProvisioningFailed(f"SkyPilot has ended well and left no {name} among the {part}: try again")
            mine[part] = [each for each in mine.get(part) or [] if each["name"] != name] + found
        for user in mine["users"]:
            if user["name"] == name and (plugin := user["user"].get("exec")):
                plugin["env"] = [{"name": key, "value": value} for key, value in env.items()]
        _write(self._files[0], {"apiVersion": "v1", "kind": "Config", **mine})

    def drop(self, name: str) -> None:
        """Takes out all that has this name. Where it was the current context, there is none then: no other cluster must
        be meant by chance."""
        for file in self._files:
            old = _read(file)
            kept = {part: [each for each in old.get(part) or [] if each["name"] != name] for part in self.PARTS}
            new = {**old, **{part: each for part, each in kept.items() if part in old}}
            if new.get("current-context") == name:
                del new["current-context"]
            if new != old:
                _write(file, new)


class _Pools:
    """The machines of each pool that was begun here, as SkyPilot reads them."""

    def __init__(self, home: Path) -> None:
        self.file = home / ".sky" / "ssh_node_pools.yaml"

    def names(self) -> list[str]:
        return list(_read(self.file))

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
        _write(self.file, {**_read(self.file), name: dict(pool)})

    def remove(self, name: str) -> None:
        _write(self.file, {each: pool for each, pool in _read(self.file).items() if each != name})


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


@dataclass(frozen=True)
class Line:
    """What SkyPilot has said, for a person to read."""

    text: str
    failed: bool = False
    """They are the words of a program that has failed."""


def spoken(log: Iterable[str]) -> Iterator[Line]:
    """What there is to read in a log of SkyPilot: no colours, no payloads, and no commands for other machines: they may
    have a password in them."""
    hidden = failed = False
    for line in log:
        text = NOISE.sub("", line).strip()
        if found := FAILED.fullmatch(text):
            failed, hidden = True, found["words"] is None
            text = found["words"] or ""
        elif hidden:
            found = WORDS.fullmatch(text)
            hidden = found is None
            text = found["words"] if found else ""
        elif text.startswith("STDERR:"):  # of a command on this machine
            failed, text = True, text.removeprefix("STDERR:").strip()
        elif not text:
            failed = False
        if text:
            yield Line(text, failed)


def failure(name: str, said: Iterable[Line], told: Sequence[str]) -> str:
    """Why a pool has failed, from SkyPilot's log and from the lines of its last error: that names the step, and the log
    has the words of the program that failed in it."""
    step = (told[-1] if told else "it gave no reason").removeprefix(f"{name}: ").split(". ")[0].rstrip(".")
    words = [line.text for line in said if line.failed and not line.text.startswith("Successfully")]
    return f"{step} ({words[-1]})" if words else step


@functools.cache
def load() -> Path:
    """Imports SkyPilot, which writes to its home as it is imported and keeps the paths of that time, and returns the
    home that it has here. One that is imported already (controller.skyjobs) keeps that of the person.

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


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _read(file: Path) -> dict[str, Any]:
    """A mapping of a YAML file; empty where there is none. Raises UsageError where it is something else."""
    try:
        found = yaml.safe_load(file.read_text()) if file.exists() else None
    except yaml.YAMLError as error:
        raise UsageError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found or {}, dict):
        raise UsageError(f"{file} cannot be read: it is no mapping")
    return found or {}


def _write(file: Path, content: Mapping[str, Any]) -> None:
    """All of it or nothing, for its owner alone: it may have keys in it."""
    real = file.resolve()  # a link stays one
    real.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=real.parent, prefix=f".{real.name}.", delete=False) as new:
        yaml.safe_dump(dict(content), new, sort_keys=False)
    os.replace(new.name, real)
