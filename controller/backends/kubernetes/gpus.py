"""GPUs of a cluster, read from its nodes and pods without SkyPilot."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

from controller.gpus.accelerators import Kind
from controller.gpus.nodes import NodeMatch, NotAllowed, Offer, labelled, match, offers
from controller.jobs.usage import Gpu, added
from imgsearch.errors import PermanentError

if TYPE_CHECKING:
    from controller.backends.kubernetes.api import Api

log = logging.getLogger(__name__)


class NodeGpuFinder:
    """Lists nodes and pods for each question. Raises NotAllowed where this account is not allowed to list nodes. Where
    it is not allowed to list the pods of all namespaces, the number of free GPUs is unknown."""

    def __init__(self, api: Api, *, autoscaler: str | None) -> None:
        self._api = api
        self._autoscaler = autoscaler

    def offers(self) -> list[Offer]:
        return offers(*self._list())

    def match(self, kind: Kind) -> NodeMatch:
        return match(*self._list(), kind, autoscaler=self._autoscaler)

    def _list(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        try:
            nodes = self._api.nodes()
        except PermanentError as error:
            raise NotAllowed(
                f"this account is not allowed to list nodes ({error}): bind the ClusterRole of docs/gpu-pools.md to it"
            ) from error
        try:
            return nodes, self._api.all_pods()
        except PermanentError:
            return nodes, None


class NodeGpus:
    """The GPUs of nodes by name. Each node is looked up once: it may be gone when the costs are computed."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: dict[str, Mapping[str, str] | None] = {}
        """The labels of each node; None for a node that is gone."""
        self._allowed = True

    def by_gpu(self, hours: Mapping[str, float], resource: str) -> dict[Gpu, float]:
        """Converts hours of a GPU resource by node into GPU hours by GPU, which is unknown for a node that is gone or
        hidden."""
        if self._allowed and (unknown := hours.keys() - self._known.keys()):
            self._look_up(unknown)
        return added(*({self._gpu(name, resource): spent} for name, spent in hours.items()))

    def _gpu(self, node: str, resource: str) -> Gpu:
        labels = self._known.get(node)
        return Gpu() if labels is None else Gpu(*labelled(labels, resource))

    def _look_up(self, names: Set[str]) -> None:
        """One list for all of them: docs/gpu-pools.md grants the right to list nodes, not to get one."""
        try:
            listed = {node["metadata"]["name"]: node["metadata"].get("labels", {}) for node in self._api.nodes()}
        except PermanentError as error:
            self._allowed = False
            log.info("cannot list nodes, so all GPU hours count for the GPU that the pods request: %s", error)
            return
        self._known |= {name: listed.get(name) for name in names}
