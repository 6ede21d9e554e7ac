"""The Finder that asks SkyPilot: which GPUs it sees on the nodes of a cluster."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from controller.backends.skypilot import load, whole_tracebacks
from controller.gpus.accelerators import Kind
from controller.gpus.nodes import AUTOSCALER_ADVICE, SPOT_LABELS, UNKNOWN, NodeMatch, NoSuchShape, NotAllowed, Offer
from imgsearch.errors import ImgsearchError, PermanentError, TemporaryError, UsageError

log = logging.getLogger(__name__)

SMALLEST_POD = "0.1CPU--0.1GB"
"""Only the GPUs are in question: what else a pod needs is for the scheduler to see."""


class SkyFinder:
    """Each question is a look at the cluster as it is now.

    Where it differs from our own look (controller.gpus.nodes): one label names the GPUs of all nodes, the first kind of
    label that it finds on any; a match has one value of it; slices of a GPU count as GPUs; with an AMD GPU
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

    def match(self, kind: Kind) -> NodeMatch:
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
        return NodeMatch(
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
