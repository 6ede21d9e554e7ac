"""The controller's own settings."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from imgsearch.settings.fields import Bytes, NonNegativeFloat, NonNegativeInt, PositiveInt, setting

Autoscaler = Literal["gke", "karpenter", "coreweave", "nebius", "generic"]


@dataclass(frozen=True)
class JobSettings:
    """Jobs in a cluster. The controller reads these; pods of the Jobs do not."""

    parallelism: PositiveInt | None = setting(
        None, "Shards that run at a time. None: as many as the cluster has GPUs for, at least 1."
    )
    retries: NonNegativeInt = setting(3, "Retries of a shard after a temporary failure. A lost node does not count.")
    deadline_seconds: PositiveInt | None = setting(
        None, "The longest time of a stage, in seconds. A longer stage fails. None: no limit."
    )
    ttl_seconds: NonNegativeInt | None = setting(
        604_800, "Finished Jobs are deleted after this time, in seconds. None: `cleanup` deletes them."
    )
    autoscaler: Autoscaler | None = setting(
        None,
        "The autoscaler that adds GPU nodes for waiting pods. None: no node is added.",
    )
    capacity_seconds: PositiveInt | None = setting(
        None,
        "The longest time that an embed Job waits for a node, in seconds. Then the run fails. None: no limit.",
    )
    queue: str | None = setting(None, "The Kueue LocalQueue that admits the embed Job. None: it starts at once.")
    gpu_hour_price: NonNegativeFloat | None = setting(
        None, "Price of one GPU for one hour. `status` then shows the cost of a run."
    )
    store_memory: Bytes | None = setting(
        None,
        "Memory that the vector store has, such as `16Gi`. A run whose vectors take more is told so before it embeds "
        "(docs/scale.md). None: unknown.",
    )
