"""GPU pools: what finds GPUs in a cluster (SkyPilot, or our own look at nodes), and how many pods have room there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from controller import skypilot
from controller.accelerators import Kind
from controller.placement import Finder, NoSuchShape, NotAllowed, Offer, Placement, offers, placement
from controller.skypilot.finder import SkyFinder
from imgsearch.errors import PermanentError

if TYPE_CHECKING:
    from controller.cluster import Api

RIGHTS = "docs/gpu-pools.md has the ClusterRole"


class NodeLook:
    """Our own look at nodes and pods, where SkyPilot is not installed. Raises NotAllowed where this account may not see
    nodes; without the right to see everybody's pods nothing is said of what is free."""

    def __init__(self, api: Api, *, autoscaler: str | None) -> None:
        self._api = api
        self._autoscaler = autoscaler

    def offers(self) -> list[Offer]:
        return offers(*self._look())

    def placement(self, kind: Kind) -> Placement:
        return placement(*self._look(), kind, autoscaler=self._autoscaler)

    def _look(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        try:
            nodes = self._api.nodes()
        except PermanentError as error:
            raise NotAllowed(f"this account may not list nodes ({error}): {RIGHTS}") from error
        try:
            return nodes, self._api.all_pods()
        except PermanentError:
            return nodes, None


def finder(api: Api, context: str | None, autoscaler: str | None) -> Finder:
    """SkyPilot's, where it is installed."""
    if skypilot.installed():
        return SkyFinder(context, autoscaler=autoscaler)
    return NodeLook(api, autoscaler=autoscaler)


def find(where: Finder, kinds: Sequence[Kind]) -> list[Placement]:
    """The kinds that are there, or that an autoscaler can add; raises NoSuchShape where none is."""
    found, missing = [], []
    for kind in kinds:
        try:
            found.append(where.placement(kind))
        except NoSuchShape as error:
            missing.append(error)
    if not found:
        raise missing[0]
    return found


def room(placements: Sequence[Placement]) -> int:
    """How many pods have room now; where nobody may see what is free: how many there would be room for at all."""
    return sum((each.total if each.free is None else each.free) // each.kind.count for each in placements)
