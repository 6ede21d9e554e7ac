"""What clouds ask for a GPU: SkyPilot's price lists, here written by hand, or not to be had."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.backends.skypilot.prices import price_lists, prices
from controller.jobs.cost import Price

OFFLINE = "http://127.0.0.1:9"
"""A proxy that nothing answers at."""
COLUMNS = (
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region,AvailabilityZone,GpuInfo"
)
AWS = """\
g6.xlarge,L4,1,4,16,0.80,0.30,us-east-1,us-east-1a,"{'Gpus': [{'MemoryInfo': {'SizeInMiB': 23034}}]}"
g6.xlarge,L4,1,4,16,0.90,0.20,eu-west-1,eu-west-1a,"{'Gpus': [{'MemoryInfo': {'SizeInMiB': 23034}}]}"
g6.48xlarge,L4,8,192,768,13.20,,us-east-1,us-east-1a,"{'Gpus': [{'MemoryInfo': {'SizeInMiB': 23034}}]}"
p5.48xlarge,H100,8,192,2048,98.00,,us-east-1,us-east-1a,"{'Gpus': [{'MemoryInfo': {'SizeInMiB': 81559}}]}"
m5.large,,,2,8,0.10,0.04,us-east-1,us-east-1a,
"""
GCP = """\
,L4,1,,,0.56,0.20,us-central1,us-central1-a,nvidia-l4
g2-standard-4,,,4,16,0.14,0.06,us-central1,us-central1-a,
"""

pytestmark = pytest.mark.filterwarnings("ignore")  # pandas', in SkyPilot


@pytest.fixture(autouse=True)
def catalogs(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """SkyPilot's price lists: none, and no way to any."""
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, OFFLINE)
    folder = home / ".imgsearch" / "sky" / ".sky" / "catalogs" / "v8"
    price_lists.cache_clear()
    yield folder
    price_lists.cache_clear()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def two_clouds(catalogs: Path) -> None:
    """Of two clouds there are price lists."""
    for cloud, rows in (("aws", AWS), ("gcp", GCP)):
        (catalogs / cloud).mkdir(parents=True)
        (catalogs / cloud / "vms.csv").write_text(f"{COLUMNS}\n{rows}")


def test_without_price_lists_there_is_no_price_and_one_warning(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    assert prices("L4") == prices("H100") == []
    messages = [record.message for record in caplog.records]
    assert len(messages) == 1
    assert "SkyPilot's price lists" in messages[0]
    assert "aws" in messages[0]
    assert capfd.readouterr().out == ""
    assert not hasattr(sys, "tracebacklimit")


@pytest.mark.usefixtures("two_clouds")
def test_each_cloud_has_its_lowest_price_the_cheapest_first() -> None:
    """GCP sells the GPU and the machine apart."""
    rows = [(price.cloud, round(price.hour, 6), round(price.spot_hour or 0, 6)) for price in prices("l4")]
    assert rows == [("gcp", 0.70, 0.26), ("aws", 0.80, 0.30)]


@pytest.mark.usefixtures("two_clouds")
def test_a_price_is_of_one_gpu_where_a_machine_has_eight() -> None:
    assert prices("H100") == [Price("aws", 12.25, None)]


@pytest.mark.usefixtures("two_clouds")
def test_the_name_that_a_label_has_is_found() -> None:
    assert prices("H100-80GB") == prices("H100") != []


@pytest.mark.usefixtures("two_clouds")
def test_a_gpu_that_nobody_sells_has_no_price(caplog: pytest.LogCaptureFixture) -> None:
    assert prices("A6000") == []
    (message,) = [record.message for record in caplog.records]
    assert "aws" not in message
    assert "gcp" not in message


@pytest.mark.usefixtures("two_clouds")
def test_home_is_left_clean(home: Path) -> None:
    prices("L4")
    assert [path.name for path in home.iterdir()] == [".imgsearch"]
