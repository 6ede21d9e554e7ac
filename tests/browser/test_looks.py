"""How the page looks and reads: every view at three sizes, light and dark, without a serious violation or a jump."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, Route, expect

from tests.browser.conftest import Console
from tests.browser.test_gestures import TILES, opened, search, shown

SIZES = {"phone": (390, 844), "tablet": (820, 1180), "wide": (1600, 1000)}
WEIGHT = 150_000
SHIFT = 0.05
AXE = {"resultTypes": ["violations"]}
SHIFTS = """() => new Promise((done) => {
  let total = 0;
  new PerformanceObserver((list) => {
    for (const one of list.getEntries()) if (!one.hadRecentInput) total += one.value;
  }).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(total), 0);
})"""
LOAD = """() => {
  const figures = { first_contentful_paint_ms: 0, largest_contentful_paint_ms: 0, total_blocking_ms: 0 };
  const watch = (type, tell) =>
    new PerformanceObserver((list) => list.getEntries().forEach(tell)).observe({ type, buffered: true });
  watch("paint", (one) => one.name === "first-contentful-paint" && (figures.first_contentful_paint_ms = one.startTime));
  watch("largest-contentful-paint", (one) => (figures.largest_contentful_paint_ms = one.startTime));
  watch("longtask", (one) => (figures.total_blocking_ms += Math.max(0, one.duration - 50)));
  window.figures = () => figures;
}"""
PAINT = """() => {
  const input = document.getElementById("text");
  const grid = document.getElementById("results");
  window.painted = new Promise((done) => {
    let start;
    input.addEventListener("input", () => (start = performance.now()));
    const look = () => {
      const image = grid.querySelector("img.there");
      if (start && image && !grid.classList.contains("stale") && image.dataset.old === undefined)
        requestAnimationFrame(() => done(performance.now() - start));
      else requestAnimationFrame(look);
    };
    for (const image of grid.querySelectorAll("img")) image.dataset.old = "";
    look();
  });
}"""


def home(page: Page) -> None:
    opened(page, "/?index=photos")


def words(page: Page) -> None:
    opened(page, "/?index=photos&q=a+giraffe")


def weighted(page: Page) -> None:
    opened(page, "/?index=photos&q=an+animal")
    first = page.locator(TILES).first.get_attribute("data-id")
    third = page.locator(TILES).nth(5).get_attribute("data-id")
    opened(page, f"/?index=photos&q=an+animal&part=id:0.5:{first}&part=id:-0.5:{third}")


def filters(page: Page) -> None:
    opened(page, '/?index=photos&q=a+meal&where={"year":{"min":2006}}')
    page.locator("#tools summary").first.click()
    expect(page.locator(".menu[open] .sheet")).to_be_visible()


def detail(page: Page) -> None:
    opened(page, "/?index=photos&q=a+giraffe")
    page.locator(f"{TILES} .open").first.click()
    expect(page.locator(".frame.there")).to_be_visible()
    expect(page.locator(".neighbours .strip button")).to_have_count(12)


def plane(page: Page) -> None:
    page.goto("/?index=photos&view=map")
    expect(page.locator("#status")).to_contain_text("near each other")


def near(page: Page) -> None:
    page.goto("/?index=photos&view=map&at=0.42,0.48,3")
    expect(page.locator("#status")).to_contain_text("near each other")
    page.wait_for_load_state("networkidle")


def nothing(page: Page) -> None:
    page.goto('/?index=photos&q=a+giraffe&where={"year":{"min":9999}}')
    expect(page.locator("#notice h2")).to_have_text("No image matches")


VIEWS = {
    "home": home,
    "words": words,
    "weighted": weighted,
    "filters": filters,
    "detail": detail,
    "map": plane,
    "near": near,
    "nothing": nothing,
}


def violations(page: Page) -> list[str]:
    found = Axe().run(page, options=AXE).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_view_fits_is_readable_and_has_no_serious_violation(
    browser: Browser, url: str, screenshots: Path, size: str, scheme: str
) -> None:
    width, height = SIZES[size]
    context = browser.new_context(
        base_url=url,
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        has_touch=size != "wide",
        is_mobile=size == "phone",
        reduced_motion="reduce",
        bypass_csp=True,  # axe is a script that is put into the page
    )
    console = Console(context)
    page = context.new_page()
    found = {}
    for name, view in VIEWS.items():
        view(page)
        page.screenshot(path=screenshots / f"{size}-{scheme}-{name}.png")
        found[name] = violations(page)
        across = (
            page.evaluate("document.scrollingElement.scrollWidth") - width
        )  # a phone's innerWidth would grow with it
        assert across <= 0, f"{name} is {across} pixels wider than the screen"
    context.close()
    assert found == {name: [] for name in VIEWS}
    assert console.complaints == []


@pytest.mark.parametrize("size", SIZES)
def test_nothing_jumps_through_the_whole_list_of_gestures(
    page: Page, size: str, record_property: Callable[..., None]
) -> None:
    width, height = SIZES[size]
    page.set_viewport_size({"width": width, "height": height})
    opened(page, "/?index=photos")
    search(page, "a giraffe")
    for _ in range(6):
        page.mouse.wheel(0, 900)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_load_state("networkidle")
    search(page, " in a zoo")
    page.locator(f"{TILES} .open").first.click()
    expect(page.locator(".neighbours .strip button")).to_have_count(12)
    page.keyboard.press("ArrowRight")
    expect(page.locator(".neighbours .strip button")).to_have_count(12)
    page.get_by_role("dialog").get_by_role("button", name="More like this").click()
    expect(page.locator("#chips .chip")).to_have_count(2)
    shown(page)
    page.locator("#tools summary").first.click()
    with page.expect_response("**/v1/search"):
        page.locator(".menu[open] .value").first.click()
    shown(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Clear filters").click()
    shown(page)
    page.get_by_role("link", name="Map").click()
    expect(page.locator("#status")).to_contain_text("near each other")
    page.get_by_label("Zoom in").click()
    page.get_by_role("link", name="Images", exact=True).click()
    shown(page)
    page.wait_for_load_state("networkidle")
    shift = page.evaluate(SHIFTS)
    record_property("layout_shift", shift)
    print(f"layout shift {shift:.4f} on a {size} screen")
    assert shift < SHIFT


def test_the_page_is_light_and_says_when_it_has_not_changed(page: Page) -> None:
    weights: dict[str, int] = {}

    def weigh(answer: object) -> None:
        path = answer.url.split("?")[0].removeprefix(str(page.evaluate("location.origin")))  # type: ignore[attr-defined]
        if path == "/" or path.startswith("/page/"):
            weights[path] = len(answer.body())  # type: ignore[attr-defined]

    answers: list[object] = []
    page.on("response", lambda answer: answers.append(answer))
    opened(page, "/?index=photos")
    for answer in answers:
        weigh(answer)
    assert {"/", "/page/main.js", "/page/page.css"} <= set(weights)
    assert sum(weights.values()) < WEIGHT
    print(f"{sum(weights.values()):,} bytes in {len(weights)} files")
    etag = page.request.get("/page/main.js").headers["etag"]
    assert page.request.get("/page/main.js", headers={"If-None-Match": etag}).status == 304


def test_the_page_begins_with_few_requests_all_to_its_own_searcher(
    page: Page, url: str, record_property: Callable[..., None]
) -> None:
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    page.add_init_script(f"({LOAD})()")
    opened(page, "/?index=photos")
    page.wait_for_load_state("networkidle")
    own = [request.url for request in asked if not request.url.startswith(("data:", "blob:"))]
    assert [address for address in own if not address.startswith(url)] == []
    # All that the page is made of is named in its first document: nothing is found only after something else came.
    named = page.request.get("/").text()
    parts = [urlparse(address).path[1:] for address in own if "/page/" in address]
    assert len(parts) == len(set(parts))
    assert [part for part in parts if f'"{part}"' not in named] == []
    # Of searches, one without a cursor: the next page comes before it is scrolled to.
    counts = Counter(urlparse(one.url).path for one in asked if "cursor" not in (one.post_data or ""))
    assert [counts[f"/v1/{one}"] for one in ("indexes", "facets", "search")] == [1, 1, 1]
    figures = page.evaluate("window.figures()")
    for name, value in figures.items():
        record_property(name, value)
    print(", ".join(f"{name} {value:.0f}" for name, value in figures.items()))
    assert figures["largest_contentful_paint_ms"] > 0


def test_a_pause_asks_once_and_the_time_to_its_first_image_is_seen(
    page: Page, record_property: Callable[..., None]
) -> None:
    opened(page, "/?index=photos")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.post_data or "") if "/v1/s" in request.url else None)
    page.evaluate(PAINT)
    # All in one turn of the browser's loop: no pause is between the letters, however slow the machine is.
    page.locator("#text").evaluate(
        """(input) => {
          for (const letter of "pizza") {
            input.value += letter;
            input.dispatchEvent(new InputEvent("input", { bubbles: true }));
          }
        }"""
    )
    milliseconds = page.evaluate("window.painted")
    assert milliseconds > 0
    assert [json.loads(body)["parts"][0]["text"] for body in asked if "cursor" not in body] == ["pizza"]
    record_property("first_result_ms", milliseconds)
    print(f"first result painted {milliseconds:.0f} ms after the last keystroke")


@pytest.fixture
def refusing(page: Page, console: Console) -> Callable[..., None]:
    """Has searches answered with a problem, so many times."""
    console.refusals = True

    def refuse(status: int, detail: str, *, path: str = "**/v1/search", times: int = 1, **headers: str) -> None:
        body = json.dumps({"type": "about:blank", "title": "", "status": status, "detail": detail})

        def answer(route: Route) -> None:
            route.fulfill(status=status, body=body, headers=headers, content_type="application/problem+json")

        page.route(path, answer, times=times)

    return refuse


@pytest.mark.parametrize(
    ("status", "detail", "headline"),
    [
        (429, "too many searches wait for the model; try again in a moment", "Too many requests"),
        (503, "the store does not answer", "Temporarily unavailable"),
    ],
)
def test_what_passes_is_told_and_tried_again_by_itself(
    page: Page, refusing: Callable[..., None], status: int, detail: str, headline: str
) -> None:
    refusing(status, detail, **{"Retry-After": "2"})
    page.goto("/?index=photos&q=a+giraffe")
    expect(page.locator("#notice h2")).to_have_text(headline)
    expect(page.locator("#notice")).to_contain_text(detail)
    shown(page)
    expect(page.locator("#notice")).to_be_hidden()


def test_what_does_not_pass_waits_for_a_person(page: Page, refusing: Callable[..., None]) -> None:
    refusing(500, "something is wrong here, not with the request")
    page.goto("/?index=photos&q=a+giraffe")
    expect(page.locator("#notice")).to_contain_text("something is wrong here")
    page.get_by_role("button", name="Try again").click()
    shown(page)


def test_a_run_that_goes_leaves_what_is_shown_and_can_be_searched_anew(page: Page, console: Console) -> None:
    gone = {"type": "about:blank", "title": "Gone", "status": 410, "detail": "the run is not there any more"}

    def answer(route: Route) -> None:
        if "cursor" in (route.request.post_data or ""):
            route.fulfill(status=410, json=gone)
        else:
            route.continue_()

    console.refusals = True
    page.route("**/v1/search", answer)
    opened(page, "/?index=photos&q=people")
    page.mouse.wheel(0, 9000)
    expect(page.locator("#end")).to_contain_text("A newer version")
    assert page.locator(TILES).count() == 40
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Search again").click()
    expect(page.locator("#end")).to_be_hidden()
    expect(page.locator(TILES)).not_to_have_count(40)


def test_offline_is_said_and_ends_by_itself(page: Page, console: Console) -> None:
    console.refusals = True
    opened(page, "/?index=photos")
    page.context.set_offline(True)
    page.locator("#text").fill("a giraffe")
    expect(page.locator("#notice h2")).to_have_text("No connection")
    expect(page.locator("#notice")).to_contain_text("offline")
    page.context.set_offline(False)
    shown(page)


def test_without_an_index_the_page_says_how_to_make_one(page: Page) -> None:
    page.route("**/v1/indexes", lambda route: route.fulfill(json={"indexes": [], "problems": {}}), times=1)
    page.goto("/")
    expect(page.locator("#notice")).to_contain_text("controller run-pipeline")
    page.get_by_role("button", name="Check again").click()
    shown(page)


def test_while_the_model_is_loaded_the_page_waits(page: Page) -> None:
    loading = {"indexes": [], "problems": {"photos": "its model is being loaded"}}
    page.route("**/v1/indexes", lambda route: route.fulfill(json=loading), times=1)
    page.goto("/?q=a+giraffe")
    expect(page.locator("#notice")).to_contain_text("the model is loaded")
    shown(page)
