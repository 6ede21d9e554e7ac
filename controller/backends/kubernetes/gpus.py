"""Finds the GPUs of a cluster by reading its nodes and pods, without SkyPilot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controller.gpus.accelerators import Kind
from controller.gpus.nodes import NodeMatch, NotAllowed, Offer, match, offers
from imgsearch.errors import PermanentError

if TYPE_CHECKING:
    from controller.backends.kubernetes.api import Api

RIGHTS = "docs/gpu-pools.md has the ClusterRole"


class NodeGpuFinder:
    """Our own look at nodes and pods, where SkyPilot is not installed. Raises NotAllowed where this account may not see
    nodes; without the right to see everybody's pods nothing is said of what is free."""

    def __init__(self, api: Api, *, autoscaler: str | None) -> None:
        self._api = api
        self._autoscaler = autoscaler

    def offers(self) -> list[Offer]:
        return offers(*self._look())

    def match(self, kind: Kind) -> NodeMatch:
        return match(*self._look(), kind, autoscaler=self._autoscaler)

    def _look(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        try:
            nodes = self._api.nodes()
        except PermanentError as error:
            raise NotAllowed(f"this account may not list nodes ({error}): {RIGHTS}") from error
        try:
            return nodes, self._api.all_pods()
        except PermanentError:
            return nodes, None
