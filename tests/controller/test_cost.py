from __future__ import annotations

from typing import Any

from controller.cost import cost
from controller.jobs import IndexReport, JobState, Stage
from controller.skypilot import Price
from tests.controller.states import job

PRICES = [Price("gcp", 0.6, 0.2), Price("aws", 0.8, None)]


def embedding(**fields: Any) -> JobState:
    reports = {0: IndexReport({"images": 1_990, "bad": 10})}
    return job(Stage.EMBED, **{"succeeded": frozenset({0}), "indexes": reports, "pods_gpu_hours": 2.0, **fields})


def test_what_gpus_cost_here_is_known_best_here() -> None:
    told = cost(embedding(), hour_price=0.5, prices=PRICES)
    assert told is not None
    assert (told["gpu_hours"], told["hour_price"], told["total"]) == (2.0, 0.5, 1.0)
    assert told["million_images"] == 500.0
    assert told["elsewhere"] == [
        {"cloud": "gcp", "total": 1.2, "on_spot": 0.4},
        {"cloud": "aws", "total": 1.6, "on_spot": None},
    ]


def test_otherwise_it_is_what_the_cheapest_cloud_asks() -> None:
    told = cost(embedding(), hour_price=None, prices=PRICES)
    assert told is not None
    assert told["hour_price"] == 0.6
    spot = cost(embedding(spot="only"), hour_price=None, prices=PRICES)
    assert spot is not None
    assert spot["hour_price"] == 0.2


def test_a_run_without_gpus_or_without_a_price_has_no_cost() -> None:
    assert cost(embedding(pods_gpu_hours=0.0), hour_price=0.5, prices=PRICES) is None
    assert cost(embedding(), hour_price=None, prices=[]) is None
    unknown = cost(embedding(indexes={}), hour_price=0.5, prices=[])
    assert unknown is not None
    assert unknown["million_images"] is None
