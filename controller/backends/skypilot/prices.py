"""What clouds ask for a GPU, from the price lists that SkyPilot keeps."""

from __future__ import annotations

import functools
import logging
import math
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from controller.backends.skypilot import load, whole_tracebacks
from controller.jobs.cost import Price

log = logging.getLogger(__name__)

CATALOGUE_SECONDS = 30.0
"""Twenty downloads at once, the first time; SkyPilot itself would wait for a firewall that swallows packets."""
UNPRICED = ("kubernetes", "slurm", "ssh", "vsphere")
"""Clusters of one's own: SkyPilot would look for them instead of reading a price list."""
SAME = {"H100-80GB": "H100"}
"""What SkyPilot reads from a label and what its price lists say, where they differ."""


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
