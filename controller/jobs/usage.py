"""GPU hours of a Job: the GPUs that its pods and its rented machines held, and for how long. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.gpus.accelerators import canonical
from controller.gpus.nodes import Spot

HALF_A_SECOND = 0.5 / 3600
"""In hours. Kubernetes counts whole seconds, so a smaller difference is none."""


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU, as far as it is known: its price depends on it."""

    accelerator: str = ""
    """Its name in price lists; empty where it is unknown."""
    spot: bool | None = None
    """Whether its node is a spot node; None where that is unknown."""


GpuHours = Mapping[Gpu, float]


@dataclass(frozen=True)
class Usage:
    """GPU hours of one Job, from every source that has some of them."""

    requested: Gpu = Gpu()
    """The GPU that its pods request. It stands for what is unknown about the GPU of a node."""
    observed: GpuHours = field(default_factory=dict)
    """Of the pods that exist, and of deleted ones as far as a controller has seen them, by the GPUs of their nodes."""
    recorded: GpuHours = field(default_factory=dict)
    """Of all its pods, as recorded on the Job when it ended."""
    rented: GpuHours = field(default_factory=dict)
    """Of rented machines."""

    @property
    def total(self) -> float:
        return sum(self.by_gpu.values())

    @property
    def by_gpu(self) -> GpuHours:
        """Of its pods and of rented machines."""
        requested = self.requested
        pods = (
            {Gpu(gpu.accelerator or requested.accelerator, requested.spot if gpu.spot is None else gpu.spot): hours}
            for gpu, hours in self.of_pods.items()
        )
        return added(*pods, self.rented)

    @property
    def of_pods(self) -> GpuHours:
        """The recorded hours, or the observed ones where these are more."""
        more = sum(self.observed.values()) - sum(self.recorded.values())
        if abs(more) > HALF_A_SECOND:
            return self.observed if more > 0 else self.recorded
        # Nodes may have gone since the record, or the account that wrote the record was not allowed to list them.
        return max(
            self.recorded,
            self.observed,
            key=lambda gpu_hours: sum(hours for gpu, hours in gpu_hours.items() if gpu.spot is not None),
        )


def requested_gpu(accelerator: str, spot: str) -> Gpu:
    """The GPU that pods request, from the annotations of their template."""
    return Gpu(canonical(accelerator), {Spot.ONLY.value: True, Spot.NEVER.value: False}.get(spot))


def added(*parts: GpuHours) -> dict[Gpu, float]:
    total: dict[Gpu, float] = {}
    for part in parts:
        for gpu, hours in part.items():
            total[gpu] = total.get(gpu, 0.0) + hours
    return total


def hours_to_json(hours: GpuHours) -> list[dict[str, Any]]:
    return [{"accelerator": gpu.accelerator, "spot": gpu.spot, "hours": round(held, 6)} for gpu, held in hours.items()]


def hours_from_json(entries: Iterable[Mapping[str, Any]]) -> dict[Gpu, float]:
    return {Gpu(entry["accelerator"], entry["spot"]): entry["hours"] for entry in entries}
