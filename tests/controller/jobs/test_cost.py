from __future__ import annotations

from typing import Any

import pytest

from controller.jobs.cost import Price, cost
from controller.jobs.results import IndexReport
from controller.jobs.state import JobState, Stage
from controller.jobs.usage import Gpu, Usage
from tests.controller.states import job

PRICES = {
    "L4": [Price("gcp", 0.6, 0.2), Price("aws", 0.8, None)],
    "A10G": [Price("aws", 1.0, 0.5), Price("runpod", 1.1, 0.4)],
}
ON_DEMAND, SPOT, OTHER = Gpu("L4", False), Gpu("L4", True), Gpu("A10G", True)


def embedding(**fields: Any) -> JobState:
    reports = {0: IndexReport({"images": 1_990, "bad": 10})}
    usage = {"usage": Usage(observed={ON_DEMAND: 2.0})}
    return job(Stage.EMBED, **{"succeeded": frozenset({0}), "indexes": reports, **usage, **fields})


def cost_of(hours: dict[Gpu, float], hour_price: float | None = None, **fields: Any) -> dict[str, Any]:
    estimate = cost(embedding(usage=Usage(observed=hours), **fields), hour_price=hour_price, prices=PRICES)
    assert estimate is not None
    return estimate


def test_what_gpus_cost_here_is_known_best_here() -> None:
    estimate = cost_of({ON_DEMAND: 2.0}, 0.5)
    assert (estimate["gpu_hours"], estimate["total"], estimate["million_images"]) == (2.0, 1.0, 500.0)
    assert [entry["hour_price"] for entry in estimate["ran"]] == [0.5]
    assert estimate["elsewhere"] == [
        {"cloud": "gcp", "total": 1.2, "on_spot": 0.4},
        {"cloud": "aws", "total": 1.6, "on_spot": None},
    ]


def test_each_part_of_what_ran_has_the_price_that_the_cheapest_cloud_asks_for_it() -> None:
    estimate = cost_of({ON_DEMAND: 1.0, SPOT: 3.0, OTHER: 2.0})
    assert estimate["ran"] == [
        {"accelerator": "L4", "spot": True, "gpu_hours": 3.0, "hour_price": 0.2, "total": 0.6},
        {"accelerator": "A10G", "spot": True, "gpu_hours": 2.0, "hour_price": 0.4, "total": 0.8},
        {"accelerator": "L4", "spot": False, "gpu_hours": 1.0, "hour_price": 0.6, "total": 0.6},
    ]
    assert (estimate["gpu_hours"], estimate["total"], estimate["million_images"]) == (6.0, 2.0, 1000.0)


def test_elsewhere_is_where_all_that_ran_is_to_be_had() -> None:
    assert cost_of({SPOT: 1.0, OTHER: 2.0})["elsewhere"] == [{"cloud": "aws", "total": 2.8, "on_spot": None}]
    assert cost_of({ON_DEMAND: 1.0, SPOT: 1.0})["elsewhere"] == [
        {"cloud": "gcp", "total": 1.2, "on_spot": 0.4},
        {"cloud": "aws", "total": 1.6, "on_spot": None},
    ]


def test_the_cheapest_place_for_all_that_ran_comes_first() -> None:
    prices = {
        "L4": [Price("gcp", 0.1, None), Price("aws", 0.2, None)],
        "T4": [Price("aws", 0.1, None), Price("gcp", 0.9, None)],
    }
    estimate = cost(embedding(usage=Usage(observed={SPOT: 1.0, Gpu("T4", True): 1.0})), hour_price=1.0, prices=prices)
    assert estimate is not None
    assert [offer["cloud"] for offer in estimate["elsewhere"]] == ["aws", "gcp"]


def test_what_may_have_been_on_spot_nodes_has_the_full_price() -> None:
    assert cost_of({Gpu("L4"): 1.0})["ran"][0] == {
        "accelerator": "L4",
        "spot": None,
        "gpu_hours": 1.0,
        "hour_price": 0.6,
        "total": 0.6,
    }


@pytest.mark.parametrize("unpriced", [Gpu(), Gpu("K80", True)])
def test_hours_of_which_nobody_knows_the_price_have_no_total(unpriced: Gpu) -> None:
    estimate = cost_of({ON_DEMAND: 1.0, unpriced: 1.0})
    assert (estimate["gpu_hours"], estimate["total"], estimate["million_images"], estimate["elsewhere"]) == (
        2.0,
        None,
        None,
        [],
    )
    assert [(entry["accelerator"], entry["total"]) for entry in estimate["ran"]] == [
        ("L4", 0.6),
        (unpriced.accelerator or None, None),
    ]
    assert cost_of({unpriced: 1.0}, 0.5)["total"] == 0.5


def test_a_run_without_gpus_has_no_cost() -> None:
    assert cost(embedding(usage=Usage(observed={})), hour_price=0.5, prices=PRICES) is None
    assert cost(embedding(usage=Usage(observed={SPOT: 0.0})), hour_price=0.5, prices=PRICES) is None


def test_a_run_without_images_has_no_price_for_a_million() -> None:
    assert cost_of({SPOT: 1.0}, indexes={})["million_images"] is None
