"""What an embedding has cost, and what it would have cost elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.jobs.state import Gpu, JobState


@dataclass(frozen=True)
class Price:
    """What one cloud asks for one GPU, in its cheapest region, with its share of the machine that it is in."""

    cloud: str
    hour: float
    """US dollars."""
    spot_hour: float | None
    """On a spot machine; None where the cloud has none."""


Prices = Mapping[str, Sequence[Price]]
"""By accelerator, what each cloud asks for it."""


def cost(embed: JobState, *, hour_price: float | None, prices: Prices) -> dict[str, Any] | None:
    """In US dollars, or in whatever `hour_price` is in: what a GPU costs an hour where the run was. Where that is not
    known, it is what the cheapest cloud asks for what ran, on spot or not; not, where nobody knows. None for a run that
    held no GPU.

    `ran` are its parts, the longest first; those of an accelerator that nobody knows have no price, and a run with such
    a part no `total`. `elsewhere` are the same GPU hours at the prices of each cloud that has all that ran, the
    cheapest first."""
    parts = []
    for gpu, hours in sorted(embed.ran.items(), key=lambda part: -part[1]):
        price = _cheapest(gpu, prices) if hour_price is None else hour_price
        parts.append((gpu, hours, price, None if price is None else hours * price))
    gpu_hours = sum(hours for _, hours, _, _ in parts)
    if not gpu_hours:
        return None
    totals = [total for *_, total in parts if total is not None]
    total = sum(totals) if len(totals) == len(parts) else None
    return {
        "gpu_hours": round(gpu_hours, 4),
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
        "elsewhere": _elsewhere(embed.ran, prices),
    }


def _cheapest(gpu: Gpu, prices: Prices) -> float | None:
    listed = prices.get(gpu.accelerator, [])
    asked = [price.spot_hour if gpu.spot else price.hour for price in listed]
    return min((each for each in asked if each is not None), default=None)


def _elsewhere(ran: Mapping[Gpu, float], prices: Prices) -> list[dict[str, Any]]:
    clouds: dict[str, list[tuple[float, Price]]] = {}
    for gpu, hours in ran.items():
        for price in prices.get(gpu.accelerator, []):
            clouds.setdefault(price.cloud, []).append((hours, price))
    found = []
    for cloud, parts in clouds.items():
        if len(parts) < len(ran):
            continue
        spots = [hours * price.spot_hour for hours, price in parts if price.spot_hour is not None]
        found.append(
            {
                "cloud": cloud,
                "total": round(sum(hours * price.hour for hours, price in parts), 4),
                "on_spot": _rounded(sum(spots) if len(spots) == len(parts) else None),
            }
        )
    return sorted(found, key=lambda each: (each["total"], each["cloud"]))


def _rounded(amount: float | None) -> float | None:
    return None if amount is None else round(amount, 4)
