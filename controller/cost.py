"""What an embedding has cost, and what it would have cost elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controller.jobs import JobState
from controller.placement import Spot
from controller.skypilot import Price


def cost(embed: JobState, *, hour_price: float | None, prices: Sequence[Price]) -> dict[str, Any] | None:
    """In US dollars, or in whatever `hour_price` is in: what a GPU costs an hour where the run was. Where that is not
    known, it is what the cheapest cloud asks for such a GPU, spot where the pods asked for nothing else. None for a run
    that held no GPU, or whose price nobody knows.

    `elsewhere` are the same GPU hours at each cloud's price."""
    if not embed.gpu_hours:
        return None
    listed = [price.spot_hour if embed.spot == Spot.ONLY else price.hour for price in prices]
    known = [each for each in (hour_price, *listed) if each is not None]
    if not known:
        return None
    total = embed.gpu_hours * known[0]
    return {
        "gpu_hours": round(embed.gpu_hours, 4),
        "hour_price": known[0],
        "total": round(total, 4),
        "million_images": round(total / embed.images_done * 1e6, 2) if embed.images_done else None,
        "elsewhere": [
            {
                "cloud": price.cloud,
                "total": round(embed.gpu_hours * price.hour, 4),
                "on_spot": None if price.spot_hour is None else round(embed.gpu_hours * price.spot_hour, 4),
            }
            for price in prices
        ],
    }
