"""Whole numbers above 2^53: the page shows, filters, links and saves every digit."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import SERIALS
from tests.browser.page import TILES, address, names, open_page

LEAST, LARGEST = min(SERIALS), max(SERIALS)
FIRST = 2**53 + 1


def menu(page: Page, name: str) -> None:
    page.locator("#filters summary").filter(has=page.get_by_text(name, exact=True)).click()


def serials(page: Page) -> set[int]:
    """The numbers of the photos that are shown; they are their file names."""
    return {int(name.removesuffix(".jpg")) for name in names(page)}


def test_facets_have_every_digit(searcher: httpx.Client) -> None:
    fields = {
        facet["field"]: facet for facet in searcher.get("/v1/facets", params={"index": "serials"}).json()["fields"]
    }
    assert (fields["serial"]["min"], fields["serial"]["max"]) == (LEAST, LARGEST)
    assert f'"max":{LARGEST}' in searcher.get("/v1/facets", params={"index": "serials"}).text
    assert {entry["value"] for entry in fields["serial"]["values"]} == set(SERIALS)


@pytest.mark.parametrize("serial", SERIALS)
def test_the_detail_view_shows_every_digit(page: Page, serial: int) -> None:
    open_page(page, "/?index=serials&alike=all")
    page.get_by_role("button", name=re.compile(rf"^{serial}\.jpg,")).click()
    shown = page.locator("#detail dt", has_text="serial").locator("xpath=following-sibling::dd[1]").all_text_contents()
    assert shown == [str(serial), f"{serial}, 7"]


def test_a_typed_bound_keeps_every_digit(page: Page) -> None:
    open_page(page, "/?index=serials&alike=all")
    menu(page, "serial")
    bounds = page.get_by_role("spinbutton")
    assert [bounds.nth(i).get_attribute("placeholder") for i in (0, 1)] == [str(LEAST), str(LARGEST)]
    with page.expect_request("**/v1/search") as request:
        bounds.first.fill(str(FIRST + 1))
    assert f'"$gte":{FIRST + 1}}}' in (request.value.post_data or "")
    expect(page.locator(TILES)).to_have_count(2)
    assert serials(page) == {FIRST + 2, LARGEST}
    assert address(page)["where"] == [f'{{"serial":{{"min":{FIRST + 1}}}}}']
    expect(page.locator("#filters .chosen").filter(has_text=f"≥ {FIRST + 1}")).to_be_visible()
    page.reload()
    expect(page.locator(TILES)).to_have_count(2)
    menu(page, "serial")
    assert page.get_by_role("spinbutton").first.input_value() == str(FIRST + 1)


def test_the_bound_of_a_slider_is_the_one_that_it_shows(page: Page) -> None:
    open_page(page, "/?index=serials&alike=all")
    menu(page, "serial")
    slider = page.get_by_label("serial from, slider")
    with page.expect_request("**/v1/search") as request:
        slider.evaluate("slider => { slider.value = 2 ** 62; slider.dispatchEvent(new Event('input')); }")
    shown = page.get_by_role("spinbutton").first.input_value()
    assert shown == str(LEAST + 2**62)
    assert f'"$gte":{shown}}}' in (request.value.post_data or "")
    assert slider.get_attribute("aria-valuetext") == shown
    expect(page.locator(TILES)).to_have_count(1)
    assert serials(page) == {LARGEST}
    slider.evaluate("slider => { slider.value = slider.min; slider.dispatchEvent(new Event('input')); }")
    expect(page.locator(TILES)).to_have_count(len(SERIALS))
    assert "where" not in address(page)


def test_a_slider_of_fractions_between_whole_numbers_has_positions_between_them(page: Page) -> None:
    """A field of more than 10,000 values has no list of them."""
    field = {"field": "serial", "type": "number", "images": 9, "distinct": None, "values": [], "min": 0.0, "max": 1.0}
    facets = {"index": "serials", "run": "r", "images": 9, "fields": [{**field, "whole": False}]}
    page.route("**/v1/facets?*", lambda route: route.fulfill(json=facets))
    open_page(page, "/?index=serials&alike=all")
    menu(page, "serial")
    slider = page.get_by_label("serial from, slider")
    assert (slider.get_attribute("step"), slider.get_attribute("max")) == ("0.01", "1")


def test_a_chosen_value_keeps_every_digit(page: Page) -> None:
    open_page(page, "/?index=serials&alike=all")
    menu(page, "serials")
    with page.expect_request("**/v1/search") as request:
        page.get_by_role("checkbox", name=f"{FIRST} 1", exact=True).check()
    assert f'"$contains":{FIRST}}}' in (request.value.post_data or "")
    expect(page.locator(TILES)).to_have_count(1)
    assert serials(page) == {FIRST}
    page.reload()
    expect(page.locator(TILES)).to_have_count(1)


@pytest.mark.parametrize(("format", "label"), [("json", "JSON"), ("csv", "CSV")])
def test_a_saved_file_has_every_digit(page: Page, format: str, label: str) -> None:
    where = f'{{"serial":{{"max":{LARGEST - 1}}}}}'
    open_page(page, f"/?index=serials&alike=all&where={where}")
    menu(page, "save")
    with page.expect_download() as download:
        page.get_by_role("button", name=label).click()
    text = Path(download.value.path()).read_bytes().decode()
    if format == "json":
        document = json.loads(text)
        assert document["search"]["filter"] == {"serial": {"$lte": LARGEST - 1}}
        saved = [(row["metadata"]["serial"], row["metadata"]["serials"]) for row in document["results"]]
    else:
        rows = list(csv.DictReader(text.splitlines()))
        saved = [(int(row["serial"]), [int(item) for item in row["serials"].lstrip("'").split("; ")]) for row in rows]
        assert all(row["serial"] == str(int(row["serial"])) for row in rows)  # a negative number is no formula
    assert sorted(saved) == sorted((serial, [serial, 7]) for serial in SERIALS if serial < LARGEST)
