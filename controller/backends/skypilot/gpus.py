"""Finds the GPUs of a cluster with SkyPilot."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from controller.backends.skypilot import load, whole_tracebacks
from controller.gpus.accelerators import Kind
from controller.gpus.nodes import AUTOSCALER_ADVICE, UNKNOWN, NodeMatch, NoMatchingNode, NotAllowed, Offer, is_spot
from imgsearch.errors import ImgsearchError, PermanentError, TemporaryError, UsageError

log = logging.getLogger(__name__)

SMALLEST_POD = "0.1CPU--0.1GB"
"""Only the GPUs matter here: the scheduler checks the other resources of a pod."""


class SkyGpuFinder:
    """Reads the cluster for each question.

    Differences from controller.gpus.nodes: one label names the GPUs of all nodes, the first kind of label that it finds
    on any; a match has one value of it; slices of a GPU count as GPUs; with an AMD GPU anywhere, no NVIDIA GPU is
    found; and an autoscaler's label is the only one, also where nodes have others."""

    def __init__(self, context: str | None = None, *, autoscaler: str | None = None) -> None:
        """`context` is one of the kubeconfig; None: its current one, or the cluster of this pod. Importing SkyPilot
        takes 2 s and changes HOME meanwhile, so create this object before you start threads.

        Raises UsageError where SkyPilot is not installed, and for an unknown context or autoscaler."""
        load()
        from sky.provision.kubernetes import utils
        from sky.utils import annotations
        from sky.utils.kubernetes_enums import KubernetesAutoscalerType

        annotations.clear_request_level_cache()
        autoscalers = [type.value for type in KubernetesAutoscalerType]
        if autoscaler is not None and autoscaler not in autoscalers:
            raise UsageError(f"invalid autoscaler {autoscaler!r}: choose one of {', '.join(autoscalers)}")
        chosen = context or utils.get_current_kube_config_context_name()
        if chosen is None:
            raise UsageError("no cluster is configured: set KUBECONFIG, or give a --context")
        contexts = utils.get_all_kube_context_names()
        if chosen not in contexts:
            raise UsageError(f"the kubeconfig has no context {chosen!r}: it has {', '.join(contexts) or 'none'}")
        self._context: str = chosen
        self._autoscaler = autoscaler
        self._has_warned = False

    def offers(self) -> list[Offer]:
        """The GPUs of the cluster, sorted by SkyPilot's names; unknown ones come last.

        Raises NotAllowed where this account is not allowed to list nodes, TemporaryError where the cluster does not
        answer."""
        from sky.provision.kubernetes import utils

        with self._errors_translated():
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
        """The nodes for pods of this kind, whether their GPUs are free or not.

        Raises NoMatchingNode, and the errors of `offers`."""
        from sky.provision.kubernetes import utils

        with self._errors_translated(kind):
            nodes = self._nodes()
            key, values, _, _ = utils.get_accelerator_label_key_values(self._context, kind.name, 1)
            pod = f"{SMALLEST_POD}--{kind.name}:1"
            _, reason = utils.check_instance_fits(self._context, pod)
            resource = utils.get_gpu_resource_key(self._context)
        fitting = [node for node in nodes if node.labels.get(key) in values]
        if self._autoscaler is None and not fitting:
            raise self._no_matching_node(kind, reason or "All nodes that have it are cordoned")
        return NodeMatch(
            kind=kind,
            resource=resource,
            labels={key: tuple(values)},
            total=sum(node.gpus for node in fitting),
            free=_free(fitting),
        )

    @contextmanager
    def _errors_translated(self, kind: Kind | None = None) -> Iterator[None]:
        """Clears SkyPilot's cache, adds our autoscaler to its settings, and raises our errors instead of its own."""
        import urllib3
        from sky import exceptions, skypilot_config
        from sky.provision.kubernetes.utils import ijson
        from sky.utils import annotations

        annotations.clear_request_level_cache()  # as for each request of its API server
        settings = {"kubernetes": {"autoscaler": self._autoscaler}} if self._autoscaler else {}
        try:
            with whole_tracebacks(), skypilot_config.override_skypilot_config(settings):
                yield
        except exceptions.KubeAPIUnreachableError as error:  # first: it is also a ResourcesUnavailableError
            raise self._unreachable(error, "nodes") from error
        except exceptions.ResourcesUnavailableError as error:
            if kind is None:
                raise PermanentError(f"SkyPilot cannot read the nodes of {self._context}: {error}") from error
            raise self._no_matching_node(kind, str(error)) from error
        except (urllib3.exceptions.HTTPError, ijson.JSONError) as error:  # an incomplete response
            raise TemporaryError(
                f"the cluster {self._context} sent an incomplete response ({error}): try again"
            ) from error
        except ValueError as error:
            raise PermanentError(f"SkyPilot cannot read the nodes of {self._context}: {error}") from error

    def _nodes(self) -> list[_Node]:
        """Schedulable nodes with GPUs. SkyPilot lists the others as well."""
        from sky.provision.kubernetes import utils

        listed = utils.get_kubernetes_nodes(context=self._context)
        used = self._used()
        schedulable = []
        for node in listed:
            gpus = utils.get_node_accelerator_count(self._context, node.status.allocatable)
            if gpus and node.is_ready() and not node.is_cordoned():
                name, labels = node.metadata.name, node.metadata.labels
                # A broken device is not allocatable, but a pod may still hold it.
                free = None if used is None else max(0, gpus - used.get(name, 0))
                schedulable.append(_Node(labels, gpus, free))
        return schedulable

    def _used(self) -> Mapping[str, int] | None:
        """Requested GPUs by node; None where this account is not allowed to list pods.

        SkyPilot's node info is not used: it counts all GPUs of a tainted node as busy, but our pods may tolerate the
        taint."""
        from sky import exceptions
        from sky.provision.kubernetes import utils

        try:
            used, _ = utils.get_allocated_resources_by_node(context=self._context)
        except exceptions.KubeAPIUnreachableError as error:
            reason = self._unreachable(error, "pods")
            if not isinstance(reason, NotAllowed):
                raise
            if not self._has_warned:
                self._has_warned = True
                log.warning("cannot count free GPUs: %s", reason)
            return None
        return used  # type: ignore[no-any-return]

    def _unreachable(self, error: Exception, kind: str) -> ImgsearchError:
        """The error to raise for SkyPilot's KubeAPIUnreachableError, which includes refusals."""
        cause = error.__cause__
        match getattr(cause, "status", None):
            case 401:
                return UsageError(f"authentication failed (401) at the cluster {self._context}: log in again")
            case 403:
                everywhere = "" if kind == "nodes" else " of all namespaces"
                return NotAllowed(
                    f"this account is not allowed to list the {kind}{everywhere} of {self._context}: bind a "
                    f"ClusterRole with the verb list on {kind} to it (docs/gpu-pools.md)"
                )
        reason = getattr(cause, "reason", None) or cause or error
        return TemporaryError(f"the cluster {self._context} does not answer ({reason}): try again when it is back")

    def _no_matching_node(self, kind: Kind, reason: str) -> NoMatchingNode:
        cause = reason.split(". ")[0].rstrip(".")
        return NoMatchingNode(
            f"{self._context} has no node for {kind.name} ({cause}): choose one of the GPUs that "
            f"`controller pools` lists, or {AUTOSCALER_ADVICE}"
        )


@dataclass(frozen=True)
class _Node:
    """A schedulable node with GPUs."""

    labels: Mapping[str, str]
    gpus: int
    free: int | None

    @property
    def spot(self) -> bool:
        return is_spot(self.labels)


def _free(nodes: Sequence[_Node]) -> int | None:
    counts = [node.free for node in nodes if node.free is not None]
    return sum(counts) if len(counts) == len(nodes) else None


def _accelerator(formatter: Any, labels: Mapping[str, str]) -> str:
    keys = formatter.get_label_keys() if formatter else []
    value = next((labels[key] for key in keys if labels.get(key)), None)
    return formatter.get_accelerator_from_label_value(value) if value else UNKNOWN
