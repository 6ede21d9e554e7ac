"""Cost of an embedding, and its cost at the prices of other clouds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.jobs.state import JobState
from controller.jobs.usage import Gpu, GpuHours


@dataclass(frozen=True)
class Price:
    """The price of one GPU in one cloud: in its cheapest region, with the GPU's share of its machine."""

    cloud: str
    hour: float
    """US dollars an hour."""
    spot_hour: float | None
    """US dollars an hour on a spot machine; None where the cloud has none."""


Prices = Mapping[str, Sequence[Price]]
"""By accelerator, its price in each cloud."""


def cost(embed: JobState, *, hour_price: float | None, prices: Prices) -> dict[str, Any] | None:
    """Cost in US dollars, or in the currency of `hour_price`: the price of a GPU hour where the run was. Where that is
    None, each GPU has the price of the cheapest cloud. None for a run that held no GPU.

    `ran` are the parts of the run, the longest first. A part has no price where no cloud lists its accelerator, and
    then the run has no `total`. `elsewhere` are the costs in each cloud that has all accelerators of the run, the
    cheapest first."""
    gpu_hours = embed.usage.by_gpu
    parts = []
    for gpu, hours in sorted(gpu_hours.items(), key=lambda part: -part[1]):
        price = _cheapest(gpu, prices) if hour_price is None else hour_price
        parts.append((gpu, hours, price, None if price is None else hours * price))
    if not embed.usage.total:
        return None
    totals = [total for *_, total in parts if total is not None]
    total = sum(totals) if len(totals) == len(parts) else None
    return {
        "gpu_hours": round(embed.usage.total, 4),
        "ran": [
            {
                "accelerator": gpu.accelerator or None,
                "spot": gpu.spot,
                "gpu_hours": round(hours, 4),
                "hour_price": price,
                "total": _rounded(part),
            }
            for gpu, hours, price, part in parts
        ],
        "total": _rounded(total),
        "million_images": None if total is None or not embed.images_done else round(total / embed.images_done * 1e6, 2),
        "elsewhere": _by_cloud(gpu_hours, prices),
    }


def _cheapest(gpu: Gpu, prices: Prices) -> float | None:
    listed = [price.spot_hour if gpu.spot else price.hour for price in prices.get(gpu.accelerator, [])]
    return min((hour for hour in listed if hour is not None), default=None)


def _by_cloud(gpu_hours: GpuHours, prices: Prices) -> list[dict[str, Any]]:
    clouds: dict[str, list[tuple[float, Price]]] = {}
    for gpu, hours in gpu_hours.items():
        for price in prices.get(gpu.accelerator, []):
            clouds.setdefault(price.cloud, []).append((hours, price))
    costs = []
    for cloud, parts in clouds.items():
        if len(parts) < len(gpu_hours):
            continue
        spots = [hours * price.spot_hour for hours, price in parts if price.spot_hour is not None]
        costs.append(
            {
                "cloud": cloud,
                "total": round(sum(hours * price.hour for hours, price in parts), 4),
                "on_spot": _rounded(sum(spots) if len(spots) == len(parts) else None),
            }
        )
    return sorted(costs, key=lambda entry: (entry["total"], entry["cloud"]))


def _rounded(amount: float | None) -> float | None:
    return None if amount is None else round(amount, 4)
