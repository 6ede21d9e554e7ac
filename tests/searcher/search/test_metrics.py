from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.searcher.library import FailingStore, Library, picture, search_colours, wait_until

pytestmark = pytest.mark.anyio


async def samples(client: httpx.AsyncClient) -> dict[str, float]:
    """Every sample of /metrics, written as name{label values}."""
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    return {
        f"{sample.name}{{{','.join(sample.labels.values())}}}": sample.value
        for family in families
        for sample in family.samples
    }


async def test_requests_are_counted_by_route_method_and_status(gallery: Library) -> None:
    async with gallery.serving() as client:
        for colour in ("red", "blue", "red"):
            await search_colours(client, text=colour)
        await client.post("/v1/search", json={})
        await client.get("/v1/images/some-id")
        await client.get("/no/such/path")
        await client.request("BREW", "/v1/search")
        gallery.encoder.failure = ZeroDivisionError()
        await client.post("/v1/search", json={"text": "green"})
        values = await samples(client)
    assert values["imgsearch_requests_total{POST,/v1/search,200}"] == 3
    assert values["imgsearch_requests_total{POST,/v1/search,422}"] == 1
    assert values["imgsearch_requests_total{POST,/v1/search,500}"] == 1
    assert values["imgsearch_requests_total{OTHER,/v1/search,405}"] == 1
    assert values["imgsearch_requests_total{GET,/v1/images/{id},404}"] == 1
    assert values["imgsearch_requests_total{GET,unknown,404}"] == 1
    assert values["imgsearch_request_seconds_count{/v1/search}"] == 6
    assert not any("some-id" in name or "no/such" in name for name in values)


async def test_encoding_and_the_store_are_timed_and_the_cache_is_counted(gallery: Library) -> None:
    async with gallery.serving() as client:
        for colour in ("red", "blue", "red"):
            await search_colours(client, text=colour)
        await client.post("/v1/search/image", files={"file": picture()})
        values = await samples(client)
    assert values["imgsearch_encode_seconds_count{text}"] == 2
    assert values["imgsearch_encode_seconds_count{image}"] == 1
    assert values["imgsearch_batch_texts_sum{}"] == 2
    # Two searches, since the neighbours of red are cached, and the records of four pages.
    assert values["imgsearch_store_seconds_count{}"] == 6
    assert values["imgsearch_cache_hits_total{}"] == 1
    assert values["imgsearch_cache_misses_total{}"] == 2
    assert values["imgsearch_encode_queue{}"] == 0


async def test_the_served_runs_are_those_of_now(gallery: Library) -> None:
    async with gallery.serving() as client:
        assert (await samples(client))["imgsearch_index_info{photos,fake/colours,r1}"] == 1
        gallery.publish({"one.png": "red"}, run="r2")
        serves_r2 = lambda values: "imgsearch_index_info{photos,fake/colours,r2}" in values  # noqa: E731
        values = await wait_until(lambda: samples(client), serves_r2)
    assert "imgsearch_index_info{photos,fake/colours,r1}" not in values
    assert values["imgsearch_index_images{photos}"] == 1


async def test_readiness_is_what_was_last_said_of_it(library: Library) -> None:
    store = FailingStore()
    library.store = store
    library.publish()
    async with library.serving() as client:
        assert (await samples(client))["imgsearch_ready{}"] == 1
        store.down = True
        await client.get("/readyz")
        assert (await samples(client))["imgsearch_ready{}"] == 0


async def test_the_stores_availability_is_a_metric(library: Library) -> None:
    store = FailingStore()
    library.store = store
    async with library.serving() as client:
        assert (await samples(client))["imgsearch_store_up{}"] == 1
        store.down = True
        await wait_until(lambda: samples(client), lambda values: values["imgsearch_store_up{}"] == 0)
        store.down = False
        await wait_until(lambda: samples(client), lambda values: values["imgsearch_store_up{}"] == 1)


async def test_an_index_whose_newest_run_is_not_served_is_a_metric(gallery: Library) -> None:
    async with gallery.serving() as client:
        assert "imgsearch_index_problem{photos}" not in await samples(client)
        gallery.publish({"one.png": "red"}, run="r2", fingerprint="other weights")
        await wait_until(lambda: samples(client), lambda values: values.get("imgsearch_index_problem{photos}") == 1)
        gallery.publish({"one.png": "red"}, run="r3")
        await wait_until(lambda: samples(client), lambda values: "imgsearch_index_problem{photos}" not in values)


async def test_two_apps_in_one_process_count_for_themselves(gallery: Library) -> None:
    async with gallery.serving() as first, gallery.serving() as second:
        await search_colours(first, text="red")
        assert "imgsearch_requests_total{POST,/v1/search,200}" not in await samples(second)
