"""Tests of the page by mouse and keyboard, on a real index."""

from __future__ import annotations

import base64
import csv
import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.browser.conftest import FIELDS, Console
from tests.browser.page import TILES, address, names, open_page, search, wait_for_results

GIRAFFE = "000000000025.jpg"
DROP = """async ([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (byte) => byte.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
  const dispatch = (type) =>
    document.body.dispatchEvent(
      type === "paste"
        ? new ClipboardEvent(type, { clipboardData: transfer, bubbles: true, cancelable: true })
        : new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }),
    );
  return dispatch;
}"""


def test_a_search_starts_after_a_pause_and_only_for_the_last_text(page: Page) -> None:
    open_page(page)
    bodies: list[str] = []
    page.on(
        "request", lambda request: bodies.append(request.post_data or "") if request.url.endswith("/search") else None
    )
    search(page, "a giraffe")
    assert GIRAFFE in names(page)[:5]
    assert len(bodies) < len("a giraffe")
    assert json.loads(bodies[-1])["parts"] == [{"text": "a giraffe", "weight": 1}]
    assert address(page)["q"] == ["a giraffe"]
    expect(page.locator("#status")).to_contain_text("best first")


def test_a_new_search_cancels_the_one_before(page: Page) -> None:
    open_page(page)
    page.route("**/v1/search", lambda route: None if "slow" in (route.request.post_data or "") else route.continue_())
    with page.expect_event("requestfailed") as canceled:
        with page.expect_request(lambda request: "slow" in (request.post_data or "")):
            page.locator("#text").fill("slow")
        page.locator("#text").fill("a giraffe")
    assert "slow" in (canceled.value.post_data or "")
    expect(page.locator("#status")).to_contain_text("best first")
    assert GIRAFFE in names(page)[:5]


@pytest.mark.parametrize("method", ["choose", "drop", "paste"])
def test_an_image_finds_itself_and_the_link_finds_it_again(
    page: Page, context: BrowserContext, coco128: Path, method: str
) -> None:
    open_page(page)
    file = coco128 / GIRAFFE
    if method == "choose":
        page.locator("#file").set_input_files(file)
    else:
        dispatch = page.evaluate_handle(DROP, [GIRAFFE, base64.b64encode(file.read_bytes()).decode()])
        if method == "drop":
            dispatch.evaluate("dispatch => dispatch('dragover')")
            expect(page.locator("#drop-zone")).to_be_visible()
        dispatch.evaluate("(dispatch, method) => dispatch(method)", method)
        expect(page.locator("#drop-zone")).to_be_hidden()
    expect(page.locator("#chips .chip")).to_contain_text("More like your image")
    expect(page.locator("#chips img")).to_have_attribute("src", re.compile("^data:image/jpeg"))
    expect(page.locator(f"{TILES} .open").first).to_have_attribute("aria-label", re.compile(GIRAFFE))
    expected = names(page)
    other = context.new_page()
    open_page(other, page.url)
    assert names(other)[:10] == expected[:10]


def test_a_url_that_is_not_available_shows_the_searcher_s_error(page: Page, console: Console) -> None:
    console.allows_http_errors = True
    open_page(page)
    page.locator("#text").fill("https://127.0.0.1/secret.jpg")
    page.locator("#text").press("Enter")
    expect(page.locator("#notice h2")).to_have_text("Image not available")
    assert address(page)["part"] == ["url:1:https://127.0.0.1/secret.jpg"]
    page.get_by_role("button", name="Remove it").click()
    wait_for_results(page)
    assert "part" not in address(page)


def test_the_url_of_an_image_of_the_index_is_that_image(page: Page, searcher: httpx.Client) -> None:
    giraffe = searcher.post("/v1/search", json={"text": "a giraffe", "k": 1, "index": "photos"}).json()["results"][0]
    open_page(page, "/?index=photos")
    page.locator("#text").fill(str(searcher.base_url.join(giraffe["image"])))
    page.locator("#text").press("Enter")
    expect(page.locator("#chips .chip")).to_contain_text("More like this")
    assert address(page)["part"] == [f"id:1:{giraffe['id']}"]


def test_more_and_less_like_a_result_are_chips_with_weights_that_can_be_removed(page: Page) -> None:
    open_page(page, "/?index=photos")
    search(page, "an animal")
    tile = page.locator(TILES).nth(1)
    tile.hover()
    with page.expect_request(lambda request: '"id"' in (request.post_data or "")) as more:
        tile.get_by_label("More like this").click()
    assert [part["weight"] for part in json.loads(more.value.post_data or "")["parts"]] == [1, 0.5]
    wait_for_results(page)
    tile = page.locator(TILES).nth(3)
    tile.hover()
    tile.get_by_label("Less like this").click()
    chips = page.locator("#chips .chip")
    expect(chips).to_have_count(3)
    expect(chips.nth(2)).to_contain_text("Less like this")
    with page.expect_request(lambda request: '"weight":-2' in (request.post_data or "")):
        chips.nth(2).get_by_role("slider").fill("-2")
    assert [part.split(":")[1] for part in address(page)["part"]] == ["0.5", "-2"]
    chips.nth(2).get_by_role("button").click()
    expect(chips).to_have_count(2)
    chips.nth(1).get_by_role("button").click()
    expect(chips).to_have_count(0)
    assert address(page)["q"] == ["an animal"]


def menu(page: Page, name: str) -> None:
    page.locator("#filters summary", has_text=re.compile(f"^{name}")).first.click()


def test_values_of_a_field_are_chosen_from_a_list_with_counts(page: Page, coco128: Path) -> None:
    open_page(page, "/?index=photos&alike=all")
    menu(page, "labels")
    page.get_by_label("Search in the values of labels").fill("giraf")
    value = page.locator(".menu[open] .value:visible")
    expect(value).to_have_count(1)
    count = int(value.locator(".count").inner_text())
    with page.expect_response("**/v1/search"):
        value.click()
    expect(page.locator(TILES)).to_have_count(count)
    assert json.loads(address(page)["where"][0]) == {"labels": {"has": ["giraffe"]}}
    expect(page.locator(".menu.on summary")).to_contain_text("giraffe")
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(TILES)).not_to_have_count(count)
    assert "where" not in address(page)


def test_a_field_of_any_name_is_a_filter(page: Page) -> None:
    open_page(page, "/?index=named")
    expect(page.locator(TILES)).to_have_count(4)
    labels = ["#likes", "#score", "__proto__", "constructor", "(no name)"]
    assert set(labels) <= set(page.locator("#filters summary > span:first-child").all_inner_texts())
    expect(page.locator(".menu.on")).to_have_count(0)
    for field, label in zip(FIELDS, labels, strict=True):
        page.locator("#filters summary").filter(has=page.get_by_text(label, exact=True)).click()
        with page.expect_request("**/v1/search") as request:
            page.locator(".menu[open] .value").first.click()
        assert request.value.post_data_json["filter"] == {field: {"$in": ["a"]}}
        expect(page.locator(TILES)).to_have_count(2)
        expect(page.locator(".menu.on summary > span:first-child")).to_have_text([label])
        page.get_by_role("button", name="Clear filters").click()
        expect(page.locator(TILES)).to_have_count(4)


def test_numbers_have_a_range_and_booleans_a_choice(page: Page, searcher: httpx.Client) -> None:
    open_page(page, "/?index=photos&alike=all")
    menu(page, "year")
    with page.expect_request(lambda request: "$gte" in (request.post_data or "")):
        page.get_by_label("year from", exact=True).fill("2019")
    menu(page, "indoor")
    with page.expect_response(lambda response: "$and" in (response.request.post_data or "")):
        page.get_by_label("true").check()
    wait_for_results(page)
    assert json.loads(address(page)["where"][0]) == {"year": {"min": 2019}, "indoor": {"is": True}}
    where = {"$and": [{"year": {"$gte": 2019}}, {"indoor": {"$eq": True}}]}
    body = {"text": "a photo", "k": 200, "index": "photos", "filter": where}
    expect(page.locator(TILES)).to_have_count(len(searcher.post("/v1/search", json=body).json()["results"]))


def test_the_score_slider_hides_results_with_a_lower_score(page: Page) -> None:
    open_page(page, "/?index=photos&q=a+giraffe")
    menu(page, "score")
    with page.expect_response(lambda response: "min_score" in (response.request.post_data or "")):
        page.get_by_label("Minimum score").fill("0.24")
    wait_for_results(page)
    scores = page.locator(f"{TILES} .score").all_inner_texts()
    assert scores
    assert min(map(float, scores)) >= 0.24


def test_near_duplicates_are_grouped_with_a_count_and_can_be_opened_or_shown(page: Page) -> None:
    open_page(page, "/?index=photos&q=a+giraffe")
    badge = page.locator(".duplicates").first
    badge.scroll_into_view_if_needed()
    expect(badge).to_have_text("+1")
    tile = page.locator(f"{TILES}:has(.duplicates) .open").first
    expect(tile).to_have_attribute("aria-label", re.compile(r"\d, near-duplicates: 1$"))
    badge.click()
    expect(page.locator(".duplicate-images h3")).to_contain_text("Near-duplicates")
    page.locator(".duplicate-images button").click()
    expect(page.locator("#detail-name")).to_have_text(re.compile(r"again-|\d{12}"))
    page.keyboard.press("Escape")
    page.locator("#group-duplicates").uncheck()
    expect(page.locator(".duplicates")).to_have_count(0)
    assert address(page)["alike"] == ["all"]


def test_scrolling_loads_every_image_once_with_its_aspect_ratio(page: Page, searcher: httpx.Client) -> None:
    open_page(page, "/?index=photos&alike=all&q=people")
    (photos,) = [info for info in searcher.get("/v1/indexes").json()["indexes"] if info["index"] == "photos"]
    for count in (80, 120, photos["images"]):
        page.mouse.wheel(0, 9000)
        expect(page.locator(TILES).nth(count - 1)).to_be_attached()
    assert len(set(names(page))) == photos["images"]
    ratios = page.locator(f"{TILES} img.loaded").evaluate_all(
        "all => all.map((img) => [img.clientWidth / img.clientHeight, img.naturalWidth / img.naturalHeight])"
    )
    assert len(ratios) > 40
    for shown, natural in ratios:
        assert shown == pytest.approx(min(2, max(0.6, natural)), rel=0.06)


def test_the_detail_view_has_the_image_its_metadata_similar_images_and_the_next_image(
    page: Page, coco128: Path
) -> None:
    open_page(page, "/?index=photos&q=a+giraffe")
    first, second = names(page)[:2]
    page.locator(f"{TILES} .open").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("h2")).to_have_text(first)
    expect(dialog.locator(".frame.loaded .original")).to_be_visible()
    expect(dialog.locator("dl")).to_contain_text("giraffe")
    expect(dialog.locator(".neighbours .strip button")).to_have_count(12)
    with page.expect_download() as download:
        dialog.get_by_label("Download").click()
    assert download.value.suggested_filename == first
    assert download.value.path().read_bytes() == (coco128 / first).read_bytes()
    page.keyboard.press("ArrowRight")
    expect(dialog.locator("h2")).to_have_text(second)
    dialog.get_by_label("Previous image").click()
    expect(dialog.locator("h2")).to_have_text(first)
    dialog.locator(".neighbours .strip button").first.click()
    expect(dialog.locator("h2")).not_to_have_text(first)
    page.go_back()
    expect(dialog).to_be_hidden()
    assert "open" not in address(page)


def test_a_value_in_the_detail_view_is_a_filter(page: Page) -> None:
    open_page(page, "/?index=photos&q=a+giraffe")
    page.locator(f"{TILES} .open").first.click()
    page.get_by_role("dialog").get_by_role("button", name="giraffe", exact=True).click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert json.loads(address(page)["where"][0]) == {"labels": {"has": ["giraffe"]}}


def test_a_link_shows_the_same_page(page: Page, context: BrowserContext) -> None:
    where = json.dumps({"year": {"min": 2006, "max": 2018}})
    open_page(page, f"/?index=photos&q=an+animal&weight=0.8&score=0.1&alike=all&where={where}")
    page.locator(f"{TILES} .open").nth(2).click()
    expect(page.locator(".frame.loaded")).to_be_visible()
    other = context.new_page()
    other.goto(page.url)
    expect(other.locator("#detail-name")).to_have_text(page.locator("#detail-name").inner_text())
    other.keyboard.press("Escape")
    wait_for_results(other)
    page.keyboard.press("Escape")
    assert names(other)[:20] == names(page)[:20]


def test_the_index_is_picked_and_kept_in_the_address(page: Page) -> None:
    open_page(page)
    page.locator("#index").select_option("photos")
    expect(page.locator("#status")).to_have_text("136 images in photos")
    assert address(page)["index"] == ["photos"]
    page.locator("#index").select_option("few")
    expect(page.locator(TILES)).to_have_count(12)


def test_results_are_saved_as_json_and_csv(page: Page) -> None:
    open_page(page, "/?index=photos&q=a+giraffe&alike=all")
    for format, label in (("json", "JSON"), ("csv", "CSV")):
        menu(page, "save")
        with page.expect_download() as download:
            page.get_by_role("button", name=label).click()
        assert download.value.suggested_filename == f"photos.{format}"
        text = Path(download.value.path()).read_bytes().decode()
        rows = json.loads(text)["results"] if format == "json" else list(csv.DictReader(text.splitlines()))
        assert len(rows) == 136
        assert rows[0]["id"]
        assert rows[0]["uri"].endswith(names(page)[0])
        page.keyboard.press("Escape")


def test_the_theme_follows_the_system_until_it_is_switched_and_is_kept(page: Page) -> None:
    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    page.emulate_media(color_scheme="light")
    open_page(page)
    light = background()
    page.emulate_media(color_scheme="dark")
    dark = background()
    assert dark != light
    page.get_by_role("button", name="Dark").click()
    assert background() == light
    page.reload()
    wait_for_results(page)
    assert background() == light
    page.get_by_role("button", name="Dark").click()
    assert background() == dark


def test_everything_is_reached_by_the_keyboard(page: Page) -> None:
    open_page(page, "/?index=photos&q=a+giraffe")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    expect(page.locator("#text")).to_be_focused()
    expect(page.locator("#text")).to_have_value("a giraffe")
    page.keyboard.press("ArrowDown")
    tiles = page.locator(f"{TILES} .open")
    expect(tiles.first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(tiles.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    below = page.evaluate("document.activeElement.getBoundingClientRect().top")
    page.keyboard.press("ArrowUp")
    assert below > page.evaluate("document.activeElement.getBoundingClientRect().top")
    page.keyboard.press("Home")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("ArrowRight")
    name = names(page)[1]
    expect(page.locator("#detail-name")).to_have_text(name)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(tiles.nth(1)).to_be_focused()
    page.keyboard.press("+")
    expect(page.locator("#chips .chip")).to_have_count(2)
    menu_button = page.locator("#filters summary").first
    menu_button.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".menu[open]")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(".menu[open]")).to_have_count(0)
    expect(menu_button).to_be_focused()


def test_the_map_zooms_and_moves_and_opens_images_and_its_view_is_in_the_link(
    page: Page, context: BrowserContext
) -> None:
    page.goto("/?index=photos&view=map")
    expect(page.locator("#status")).to_contain_text("near each other")
    canvas = page.locator("#map canvas")
    box = canvas.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    with page.expect_response(re.compile("/thumbnail")):
        page.mouse.wheel(0, -900)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 3 + 80, box["y"] + box["height"] / 2 + 40, steps=4)
    page.mouse.up()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.wait_for_url(re.compile("at="))
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    page.wait_for_url(re.compile(r"at=[^&]*"))
    page.keyboard.press("Enter")
    expect(page.locator("#detail-name")).to_contain_text(".jpg")
    expect(page.locator(".neighbours .strip button")).to_have_count(12)
    name = page.locator("#detail-name").inner_text()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    other = context.new_page()
    other.goto(page.url)
    expect(other.locator("#status")).to_contain_text("near each other")
    other.locator("#map canvas").press("Enter")
    expect(other.locator("#detail-name")).to_have_text(name)


def test_a_click_on_the_map_opens_the_image_under_it(page: Page) -> None:
    page.goto("/?index=photos&view=map")
    expect(page.locator("#status")).to_contain_text("near each other")
    page.get_by_label("Zoom in").click(click_count=3)
    canvas = page.locator("#map canvas")
    canvas.press("ArrowLeft")
    canvas.press("Enter")
    name = page.locator("#detail-name")
    expect(name).to_contain_text(".jpg")
    page.keyboard.press("Escape")
    page.get_by_label("Show all").click()
    points = page.evaluate("fetch('/v1/map?index=photos').then((response) => response.json())")["points"]
    box = canvas.bounding_box()
    assert box
    top = points[-1]  # painted last
    width, height = box["width"] - 96, box["height"] - 96
    width, height = min(width, height * 1.8), min(height, width * 1.8)
    x, y = box["width"] / 2 + (top["x"] - 0.5) * width, box["height"] / 2 + (top["y"] - 0.5) * height
    canvas.click(position={"x": x, "y": y})
    page.wait_for_url(re.compile(f"open={top['id']}"))


def test_the_text_has_a_weight_next_to_an_image(page: Page, searcher: httpx.Client) -> None:
    giraffe = searcher.post("/v1/search", json={"text": "a giraffe", "k": 1, "index": "photos"}).json()["results"][0]
    open_page(page, f"/?index=photos&q=snow&part=id:0.5:{giraffe['id']}")
    text_chip = page.locator("#chips .chip").first
    with page.expect_request(lambda request: "-1.5" in (request.post_data or "")) as weighed:
        text_chip.get_by_role("slider").fill("-1.5")
    parts = json.loads(weighed.value.post_data or "")["parts"]
    assert [(part.get("text"), part["weight"]) for part in parts] == [("snow", -1.5), (None, 0.5)]
    assert address(page)["weight"] == ["-1.5"]


def test_closing_an_image_leads_back_to_its_place_among_the_results(page: Page) -> None:
    open_page(page, "/?index=photos&q=a+giraffe")
    tile = page.locator(f"{TILES} .open").nth(3)
    tile.click()
    page.get_by_role("dialog").get_by_label("Close").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(tile).to_be_focused()
    expect(page.locator("#status")).to_have_attribute("role", "status")


def test_a_broken_link_is_a_search_for_its_valid_parts(page: Page) -> None:
    open_page(page, "/?index=photos&q=a+giraffe&where={broken&part=nothing&weight=much&score=high&at=here")
    assert GIRAFFE in names(page)[:5]
    expect(page.locator("#chips .chip")).to_have_count(0)


def test_another_index_is_searched_for_the_same_text_without_filters_and_images(
    page: Page, searcher: httpx.Client
) -> None:
    giraffe = searcher.post("/v1/search", json={"text": "a giraffe", "k": 1, "index": "photos"}).json()["results"][0]
    where = json.dumps({"year": {"min": 2006}})
    open_page(page, f"/?index=photos&q=a+giraffe&score=0.1&part=id:0.5:{giraffe['id']}&where={where}")
    with page.expect_request(lambda request: '"index":"few"' in (request.post_data or "")) as request:
        page.locator("#index").select_option("few")
    body = json.loads(request.value.post_data or "")
    assert body["parts"] == [{"text": "a giraffe", "weight": 1}]
    assert not {"filter", "min_score"} & set(body)


def test_the_back_button_returns_to_the_search_before(page: Page) -> None:
    open_page(page, "/?index=photos&q=an+animal")
    page.locator(f"{TILES} .open").first.click()
    page.get_by_role("dialog").get_by_role("button", name="More like this").click()
    expect(page.locator("#chips .chip")).to_have_count(2)
    wait_for_results(page)
    while "part=" in page.url:
        page.go_back()
    expect(page.locator("#chips .chip")).to_have_count(0)


def test_a_saved_file_has_the_filtered_results_the_fields_and_no_formulas(page: Page) -> None:
    def add_formula(route: Route) -> None:
        response = route.fetch()
        document = response.json()
        for result in document["results"]:
            result["metadata"] |= {"license": '=1+1,"x"', "id": "their id", "metadata.id": "their other id"}
        route.fulfill(response=response, json=document)

    where = json.dumps({"year": {"min": 2010}})
    open_page(page, f"/?index=photos&q=a+giraffe&alike=all&where={where}")
    shown_scores = page.locator(f"{TILES} .score").all_text_contents()
    page.route("**/v1/search", add_formula)
    menu(page, "save")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_bytes().decode().splitlines()))
    assert {"id", "score", "uri", "width", "height", "duplicates", "labels", "license", "year", "rating"} <= set(
        rows[0]
    )
    assert {row["license"] for row in rows} == {'\'=1+1,"x"'}
    assert {(row["metadata.id"], row["metadata.metadata.id"]) for row in rows} == {("their id", "their other id")}
    assert len({row["id"] for row in rows}) == len(rows)
    assert min(int(row["year"]) for row in rows) >= 2010
    assert [f"{float(row['score']):.2f}" for row in rows[: len(shown_scores)]] == shown_scores


def test_two_values_of_a_field_find_images_with_either_and_a_range_has_two_ends(
    page: Page, searcher: httpx.Client
) -> None:
    def count(where: object) -> int:
        body = {"text": "a photo", "k": 200, "index": "photos", "filter": where}
        return len(searcher.post("/v1/search", json=body).json()["results"])

    open_page(page, "/?index=photos&alike=all")
    menu(page, "labels")
    for name in ("giraffe", "elephant"):
        page.get_by_label("Search in the values of labels").fill(name)
        page.locator(".menu[open] .value:visible").click()
    either = {"$or": [{"labels": {"$contains": name}} for name in ("giraffe", "elephant")]}
    expect(page.locator(TILES)).to_have_count(count(either))
    page.get_by_role("button", name="Clear filters").click()
    menu(page, "year")
    page.get_by_label("year from", exact=True).fill("2006")
    page.get_by_label("year to", exact=True).fill("2007")
    both = {"$and": [{"year": {"$gte": 2006}}, {"year": {"$lte": 2007}}]}
    expect(page.locator(TILES)).to_have_count(count(both))


def test_a_search_waits_for_a_pause_between_letters(page: Page) -> None:
    page.clock.install()
    open_page(page, "/?index=photos")
    bodies: list[str] = []
    page.on("request", lambda request: bodies.append(request.post_data or "") if "/v1/search" in request.url else None)
    page.clock.pause_at(datetime.now() + timedelta(hours=1))
    bodies.clear()
    for letter in "dog":
        page.locator("#text").press(letter)
        page.clock.run_for(150)
    assert bodies == []
    with page.expect_request(lambda request: '"dog"' in (request.post_data or "")):
        page.clock.run_for(150)
    assert len([body for body in bodies if "cursor" not in body]) == 1
