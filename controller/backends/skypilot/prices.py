"""Prices of GPUs in clouds, from SkyPilot's price lists."""

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
"""Time for the first twenty downloads; SkyPilot has no timeout for a firewall that drops packets."""
UNPRICED = ("kubernetes", "slurm", "ssh", "vsphere")
"""The user's own clusters: they have no price list, and SkyPilot would connect to them."""
PRICE_LIST_NAMES = {"H100-80GB": "H100"}
"""Names in price lists by names in node labels, where they differ."""


def prices(accelerator: str) -> list[Price]:
    """Prices of this GPU, the cheapest first, from the price lists that SkyPilot updates every few hours
    (https://github.com/skypilot-org/skypilot-catalog). Empty with a warning where no list is available.

    Raises UsageError where SkyPilot is not installed."""
    wanted = PRICE_LIST_NAMES.get(accelerator.upper(), accelerator).upper()
    cheapest = []
    for cloud, price_list in price_lists().items():
        rows = [row for name, rows in price_list.items() if name.upper() == wanted for row in rows]
        rows = [row for row in rows if row.accelerator_count]
        hours = [row.price / row.accelerator_count for row in rows if not math.isnan(row.price)]
        spots = [row.spot_price / row.accelerator_count for row in rows if not math.isnan(row.spot_price)]
        if hours:
            cheapest.append(Price(cloud, min(hours), min(spots, default=None)))
    return sorted(cheapest, key=lambda price: (price.hour, price.cloud))


@functools.cache
def price_lists() -> Mapping[str, Mapping[str, Sequence[Any]]]:
    """Machines by cloud and accelerator. Read once, without the clouds whose list is not available."""
    load()
    from sky import catalog
    from sky.skylet import constants

    responses: queue.Queue[tuple[str, Mapping[str, Sequence[Any]] | Exception]] = queue.Queue()

    def download(cloud: str) -> None:
        try:
            responses.put((cloud, catalog.list_accelerators(clouds=cloud)))
        except Exception as error:  # errors of requests, pandas and the module of any cloud
            responses.put((cloud, error))

    clouds = [cloud for cloud in constants.ALL_CLOUDS if cloud not in UNPRICED]
    lists: dict[str, Mapping[str, Sequence[Any]]] = {}
    failed: dict[str, object] = dict.fromkeys(clouds, f"no response within {CATALOGUE_SECONDS:.0f} s")
    deadline = time.monotonic() + CATALOGUE_SECONDS
    with whole_tracebacks():
        for cloud in clouds:
            threading.Thread(target=download, args=(cloud,), name=f"prices-{cloud}", daemon=True).start()
        for _ in clouds:
            try:
                cloud, response = responses.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if isinstance(response, Exception):
                failed[cloud] = response
            else:
                del failed[cloud]
                lists[cloud] = response
    if failed:
        cloud, error = next(iter(failed.items()))
        log.warning(
            "no prices for %s: SkyPilot cannot download their price lists (%s: %s)", ", ".join(failed), cloud, error
        )
    return lists
