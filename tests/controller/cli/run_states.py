"""A run whose embedding is active: some shards done, one failed, some pods waiting."""

from __future__ import annotations

from controller.jobs.results import IndexReport
from controller.jobs.state import Phase, Stage
from controller.jobs.usage import Gpu, Usage
from tests.controller.states import job

SCHEDULER = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu [no such tag], dial tcp [fd00::1]:10250."
PLAN = job(Stage.PLAN, indexes={0: IndexReport({"shards": 8, "images": 80})})
EMBED = job(
    Stage.EMBED,
    Phase.ACTIVE,
    completions=8,
    succeeded=frozenset({0, 1}),
    failed=frozenset({5}),
    active=2,
    indexes={
        0: IndexReport({"images": 9, "bad": 1}),
        1: IndexReport({"images": 10}),
        2: IndexReport(None, 5, 10),
        5: IndexReport({"error": "a[b].parquet [/red] is damaged"}),
    },
    waiting={SCHEDULER: 3},
    usage=Usage(observed={Gpu("L4", True): 1.2, Gpu("L4", False): 0.3}),
)
RUN = {Stage.PLAN: PLAN, Stage.EMBED: EMBED}
